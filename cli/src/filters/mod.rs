//! `--filter key=value`: values of one key are alternatives, all keys must match.

pub(crate) mod containers;

use std::collections::BTreeMap;

use regex_lite::Regex;

/// A filter that can't be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// The text has no `=`.
    #[error("invalid filter {0:?}: bad format of filter (expected name=value)")]
    Format(String),
    /// The command does not know the key.
    #[error("invalid filter '{0}'; use one of: {1}")]
    Key(String, String),
    /// The key does not take the value.
    #[error("invalid filter '{0}={1}'; {2}")]
    Value(&'static str, String, &'static str),
    /// `before` or `since` names a container that does not exist.
    #[error("No such container: {0}")]
    NoContainer(String),
}

/// The filters of a command.
#[derive(Debug, Default)]
pub(crate) struct Filters(BTreeMap<String, Vec<Value>>);

#[derive(Debug)]
struct Value {
    text: String,
    /// Docker takes a value that is not a regular expression for plain text.
    pattern: Option<Regex>,
}

impl Filters {
    /// Parses the values of `--filter`; `keys` are those that the command knows.
    ///
    /// # Errors
    /// A text is not `key=value`, or its key is not known.
    pub(crate) fn parse(texts: &[String], keys: &[&str]) -> Result<Self, Error> {
        let mut filters: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for text in texts.iter().filter(|text| !text.is_empty()) {
            let (key, value) = text.split_once('=').ok_or_else(|| Error::Format(text.clone()))?;
            let (key, value) = (key.trim().to_lowercase(), value.trim());
            if !keys.contains(&key.as_str()) {
                return Err(Error::Key(key, keys.join(", ")));
            }
            let value = Value { text: value.to_owned(), pattern: Regex::new(value).ok() };
            filters.entry(key).or_default().push(value);
        }
        Ok(Self(filters))
    }

    /// The values of a key.
    pub(crate) fn values(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.get(key).into_iter().flatten().map(|value| value.text.as_str())
    }

    /// The key has a value.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// One of the key's values passes the test, or the key has none.
    pub(crate) fn any(&self, key: &str, mut test: impl FnMut(&str) -> bool) -> bool {
        !self.has(key) || self.values(key).any(&mut test)
    }

    /// One of the key's values is the text, or a regular expression that matches a part of it.
    pub(crate) fn matches(&self, key: &str, text: &str) -> bool {
        let matches = |value: &Value| {
            value.text == text || value.pattern.as_ref().is_some_and(|pattern| pattern.is_match(text))
        };
        self.0.get(key).is_none_or(|values| values.iter().any(matches))
    }

    /// Labels have all of `label=KEY` and `label=KEY=VALUE`.
    pub(crate) fn matches_labels(&self, labels: &BTreeMap<String, String>) -> bool {
        self.has_labels("label", labels)
    }

    /// Labels have all that the values of a key ask for: `KEY` or `KEY=VALUE`.
    pub(crate) fn has_labels(&self, key: &str, labels: &BTreeMap<String, String>) -> bool {
        self.values(key).all(|wanted| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|label| label == value),
            None => labels.contains_key(wanted),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(texts: &[&str]) -> Result<Filters, Error> {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        Filters::parse(&texts, &["label", "name"])
    }

    #[test]
    fn syntax() {
        let filters = parse(&[" Name = web ", "name=db", "", "label=a=b=c"]).unwrap();
        assert_eq!(filters.values("name").collect::<Vec<_>>(), ["web", "db"]);
        assert_eq!(filters.values("label").collect::<Vec<_>>(), ["a=b=c"]);
        assert!(filters.has("name") && !filters.has("status"));
        assert_eq!(parse(&["web"]).unwrap_err(), Error::Format("web".into()));
        let unknown = parse(&["colour=red"]).unwrap_err();
        assert_eq!(unknown.to_string(), "invalid filter 'colour'; use one of: label, name");
    }

    #[test]
    fn patterns() {
        for (values, text, matches) in [
            (&[][..], "web", true),
            (&["name=web"], "my-web-1", true),
            (&["name=^web$"], "web-1", false),
            (&["name=^(web|db)$"], "db", true),
            (&["name=db", "name=web"], "web", true),
            (&["name=db", "name=web"], "cache", false),
            (&["name=w[eb"], "w[eb", true),
            (&["name=w[eb"], "aw[eb", false),
        ] {
            assert_eq!(parse(values).unwrap().matches("name", text), matches, "{values:?} {text}");
        }
    }

    #[test]
    fn labels_match_all() {
        let labels = [("a", "1"), ("b", ""), ("c", "x=y")];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        for (values, matches) in [
            (&[][..], true),
            (&["label=a"], true),
            (&["label=a=1"], true),
            (&["label=a=2"], false),
            (&["label=b="], true),
            (&["label=c=x=y"], true),
            (&["label=a", "label=b"], true),
            (&["label=a", "label=d"], false),
        ] {
            assert_eq!(parse(values).unwrap().matches_labels(&labels), matches, "{values:?}");
        }
    }
}
