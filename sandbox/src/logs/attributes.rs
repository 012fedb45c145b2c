//! What `labels`, `env` and `tag` add to each record: Docker's `"attrs"`.

use std::collections::BTreeMap;

use super::{ConfigError, LogConfig};

/// The container whose output is logged, as the options `labels`, `env` and `tag` see it.
#[derive(Debug, Clone, Default)]
pub struct Subject<'a> {
    /// The container's full id.
    pub id: &'a str,
    /// Its name.
    pub name: &'a str,
    /// The image's id, with or without `sha256:`.
    pub image_id: &'a str,
    /// The image as the user named it.
    pub image_name: &'a str,
    /// The container's labels: name and value.
    pub labels: &'a [(String, String)],
    /// The environment: `NAME=value`.
    pub env: &'a [String],
}

impl LogConfig {
    /// The attributes that the container's records carry: for [`Writer::open`](super::Writer::open).
    #[must_use]
    pub fn attributes(&self, of: &Subject<'_>) -> BTreeMap<String, String> {
        let names = |option: &str| self.options().get(option).map_or("", String::as_str).split(',');
        let mut found = BTreeMap::new();
        for name in names("labels") {
            if let Some((_, value)) = of.labels.iter().find(|(label, _)| label == name) {
                found.insert(name.to_owned(), value.clone());
            }
        }
        for name in names("env") {
            let mut variables = of.env.iter().filter_map(|variable| variable.split_once('='));
            // The last of several wins, as in the process.
            if let Some((_, value)) = variables.rfind(|(variable, _)| *variable == name) {
                found.insert(name.to_owned(), value.to_owned());
            }
        }
        if let Some(tag) = self.options().get("tag").and_then(|tag| render(tag, of).ok())
            && !tag.is_empty()
        {
            found.insert("tag".into(), tag);
        }
        found
    }
}

/// `tag` with its fields, such as `{{.Name}}`, replaced.
///
/// # Errors
/// A field that is not known, or braces without an end.
pub(super) fn render(tag: &str, of: &Subject<'_>) -> Result<String, ConfigError> {
    let mut rendered = String::new();
    let mut rest = tag;
    while let Some((before, inside)) = rest.split_once("{{") {
        let (field, after) =
            inside.split_once("}}").ok_or_else(|| ConfigError::Tag(format!("{{{{{inside}")))?;
        rendered.push_str(before);
        rendered.push_str(match field.trim() {
            ".ID" => short(of.id),
            ".FullID" => of.id,
            ".Name" => of.name,
            ".ImageID" => short(of.image_id),
            ".ImageFullID" => of.image_id,
            ".ImageName" => of.image_name,
            ".DaemonName" => "husk",
            _ => return Err(ConfigError::Tag(format!("{{{{{field}}}}}"))),
        });
        rest = after;
    }
    rendered.push_str(rest);
    Ok(rendered)
}

fn short(id: &str) -> &str {
    let id = id.strip_prefix("sha256:").unwrap_or(id);
    husk_base::id::short(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_labels_variables_and_the_tag() {
        let labels = [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())];
        let env = ["X=first".to_owned(), "X=y=z".to_owned(), "Y".to_owned()];
        let subject = Subject {
            id: "0123456789abcdef",
            name: "web",
            image_id: "sha256:fedcba9876543210",
            image_name: "nginx:1",
            labels: &labels,
            env: &env,
        };
        let tag = "tag={{.ImageName}}/{{ .Name }}/{{.ID}}/{{.ImageID}}";
        let config = LogConfig::parse("", &["labels=b,none", "env=X,Y", tag]).unwrap();
        let expected = [("X", "y=z"), ("b", "2"), ("tag", "nginx:1/web/0123456789ab/fedcba987654")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(config.attributes(&subject), BTreeMap::from(expected));
        assert_eq!(LogConfig::default().attributes(&subject), BTreeMap::new());
    }

    #[test]
    fn unknown_fields_of_a_tag_are_named() {
        for (tag, part) in [("tag=x{{.Nam}}y", "{{.Nam}}"), ("tag={{.Name", "{{.Name")] {
            let error = LogConfig::parse("", &[tag]).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
