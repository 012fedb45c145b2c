//! containerd's `config.toml`, versions 2 and 3. Comments, order and blanks are kept.

use toml_edit::{Array, DocumentMut, Item, Table, TableLike, value};

use super::{EditError, NAME, RUNTIME};

/// Where containerd looks for it.
pub(crate) const PATH: &str = "/etc/containerd/config.toml";

/// containerd's default runtime class, ...
const DEFAULT: &str = "runc";
/// ... and the runtime that it stands for.
const DEFAULT_RUNTIME: &str = "io.containerd.runc.v2";
/// Pods' annotations that containerd shall hand on.
const ANNOTATIONS: &str = "io.husk.*";

/// Adds the runtime class, or corrects it.
///
/// # Errors
/// When the text is no TOML, or of a version without runtime classes.
pub(crate) fn add(text: &str) -> Result<String, EditError> {
    let mut document = parse(text)?;
    if document.get("version").is_none() {
        if document.contains_key("plugins") {
            return Err(EditError::new(
                "it has no version, which means version 1: run `containerd config migrate` first",
            ));
        }
        document.insert("version", value(2));
    }
    let mut table: &mut dyn TableLike = document.as_table_mut();
    let [plugins, plugin, containerd, runtimes, name] = path(version(&document_version(table))?);
    for key in [plugins, plugin, containerd] {
        table = descend(table, key)?;
    }
    let default = table.get("default_runtime_name").and_then(Item::as_str).unwrap_or(DEFAULT);
    let is_usual = default == DEFAULT;
    table = descend(table, runtimes)?;
    // Classes in the file stand in for those that containerd knows by itself (1.x), and without its default it has no CRI.
    if is_usual && !table.contains_key(DEFAULT) {
        descend(table, DEFAULT)?.insert("runtime_type", value(DEFAULT_RUNTIME));
    }
    table = descend(table, name)?;
    table.insert("runtime_type", value(RUNTIME));
    let mut annotations = Array::new();
    annotations.push(ANNOTATIONS);
    table.insert("pod_annotations", value(annotations));
    Ok(document.to_string())
}

/// Takes the runtime class away, if it is there. An entry for containerd's default that was added with it stays: it says what
/// holds without it, too.
///
/// # Errors
/// When the text is no TOML.
pub(crate) fn remove(text: &str) -> Result<String, EditError> {
    let mut document = parse(text)?;
    for keys in [path(2), path(3)] {
        let mut table: Option<&mut dyn TableLike> = Some(document.as_table_mut());
        for key in keys.iter().take(keys.len() - 1) {
            table = table.and_then(|table| table.get_mut(key)?.as_table_like_mut());
        }
        if let Some(table) = table {
            table.remove(NAME);
        }
    }
    Ok(document.to_string())
}

fn parse(text: &str) -> Result<DocumentMut, EditError> {
    text.parse().map_err(|error| EditError::new(format!("it is no TOML: {error}")))
}

fn document_version(table: &dyn TableLike) -> Item {
    table.get("version").cloned().unwrap_or_default()
}

fn version(item: &Item) -> Result<i64, EditError> {
    match item.as_integer() {
        Some(version @ (2 | 3)) => Ok(version),
        _ => Err(EditError::new(format!(
            "its version is {}, but must be 2 or 3: run `containerd config migrate` first",
            item.to_string().trim()
        ))),
    }
}

/// Where a runtime class is.
fn path(version: i64) -> [&'static str; 5] {
    let plugin = if version == 2 { "io.containerd.grpc.v1.cri" } else { "io.containerd.cri.v1.runtime" };
    ["plugins", plugin, "containerd", "runtimes", NAME]
}

fn descend<'a>(table: &'a mut dyn TableLike, key: &str) -> Result<&'a mut dyn TableLike, EditError> {
    let item = table.entry(key).or_insert_with(|| {
        let mut fresh = Table::new();
        // Only the innermost gets a header of its own.
        fresh.set_implicit(true);
        Item::Table(fresh)
    });
    item.as_table_like_mut().ok_or_else(|| EditError::new(format!("{key} is no table in it")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_becomes_one_of_version_2() {
        let expected = "version = 2\n\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.husk]\nruntime_type = \"io.containerd.husk.v2\"\npod_annotations = [\"io.husk.*\"]\n";
        assert_eq!(add("").unwrap(), expected);
        assert_eq!(add(expected).unwrap(), expected);
    }

    #[test]
    fn comments_and_others_classes_stay() {
        let text = "# mine\nversion = 3 # new\n\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc] # keep\n  runtime_type = 'io.containerd.runc.v2'\n";
        let added = add(text).unwrap();
        assert!(added.starts_with(text), "{added}");
        assert!(
            added.contains("io.containerd.cri.v1.runtime\".containerd.runtimes.husk]")
                || added.contains("io.containerd.cri.v1.runtime'.containerd.runtimes.husk]"),
            "{added}"
        );
        assert_eq!(add(&added).unwrap(), added);
        let removed = remove(&added).unwrap();
        assert_eq!(removed.trim_end(), text.trim_end());
    }

    #[test]
    fn a_default_of_the_users_own_is_theirs_to_define() {
        let text =
            "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.containerd]\ndefault_runtime_name = 'crun'\n";
        assert!(!add(text).unwrap().contains("runc.v2"));
    }

    #[test]
    fn taking_away_what_is_not_there_changes_nothing() {
        for text in ["", "version = 2\n# x\n", "plugins = 1\n"] {
            assert_eq!(remove(text).unwrap(), text);
        }
    }

    #[test]
    fn files_that_can_not_hold_it_are_refused() {
        for text in ["version = 1\n", "[plugins.cri]\nx = 1\n", "version = 2\nplugins = 1\n", "no"] {
            assert!(add(text).is_err(), "{text}");
        }
    }
}
