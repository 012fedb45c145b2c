//! Docker's `daemon.json`, which has no comments.

use serde_json::{Map, Value, json};

use super::{EditError, NAME, RUNTIME};

/// Where Docker looks for it.
pub(crate) const PATH: &str = "/etc/docker/daemon.json";

const RUNTIMES: &str = "runtimes";

/// Adds the runtime, or corrects it.
///
/// # Errors
/// When the text is no JSON object.
pub(crate) fn add(text: &str) -> Result<String, EditError> {
    let mut document = parse(text)?;
    let runtimes = document.entry(RUNTIMES).or_insert_with(|| json!({}));
    let runtimes = runtimes.as_object_mut().ok_or_else(|| EditError::new("its runtimes are no object"))?;
    runtimes.insert(NAME.into(), json!({ "runtimeType": RUNTIME }));
    Ok(print(document))
}

/// Takes the runtime away, if it is there.
///
/// # Errors
/// When the text is no JSON object.
pub(crate) fn remove(text: &str) -> Result<String, EditError> {
    let mut document = parse(text)?;
    let Some(runtimes) = document.get_mut(RUNTIMES).and_then(Value::as_object_mut) else {
        return Ok(text.to_owned());
    };
    if runtimes.remove(NAME).is_none() {
        return Ok(text.to_owned());
    }
    if runtimes.is_empty() {
        document.remove(RUNTIMES);
    }
    Ok(print(document))
}

fn parse(text: &str) -> Result<Map<String, Value>, EditError> {
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_str(text).map_err(|error| EditError::new(format!("it is no JSON object: {error}")))
}

fn print(document: Map<String, Value>) -> String {
    format!("{:#}\n", Value::Object(document))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_can_be_taken_away_again() {
        let text = "{\n  \"data-root\": \"/x\"\n}\n";
        let added = add(text).unwrap();
        assert!(added.contains("\"runtimeType\": \"io.containerd.husk.v2\""), "{added}");
        assert_eq!(add(&added).unwrap(), added);
        assert_eq!(remove(&added).unwrap(), text);
        assert_eq!(remove(text).unwrap(), text);
        assert!(add("").is_ok());
    }

    #[test]
    fn what_is_no_configuration_is_refused() {
        for text in ["[]", "{", "{\"runtimes\": 1}"] {
            assert!(add(text).is_err(), "{text}");
        }
    }
}
