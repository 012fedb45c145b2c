//! Network configurations: `*.conflist`, and the older `*.conf` and `*.json` with one plugin.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Error, Result};

/// The versions of the specification that we speak, newest first.
const VERSIONS: [&str; 4] = ["1.1.0", "1.0.0", "0.4.0", "0.3.1"];
const MAX_FILE_BYTES: u64 = 1 << 20;
const MAX_FILES: usize = 1024;
const MAX_PLUGINS: usize = 64;

/// A network's configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NetworkConfig {
    /// Its name.
    pub name: String,
    /// The version of the specification that its plugins speak.
    pub cni_version: String,
    /// CHECK is not to be run.
    pub disable_check: bool,
    /// The plugins' configurations, in their order; each has a `type`.
    pub(super) plugins: Vec<Map<String, Value>>,
}

impl NetworkConfig {
    /// Finds the network `name` below `dir`. Files are looked at by name; the first that has it counts. Files that can't
    /// be read as configurations count only if nothing else has the name.
    ///
    /// # Errors
    /// [`Error::NoNetwork`], [`Error::Config`], or when the folder can't be read.
    pub fn find(dir: &Path, name: &str) -> Result<Self> {
        let mut names = Vec::new();
        let mut broken = None;
        for path in files(dir)? {
            match read(&path).and_then(|text| Self::parse(&text, &path)) {
                Ok(config) if config.name == name => return Ok(config),
                Ok(config) => names.push(config.name),
                Err(error) => broken = broken.or(Some(error)),
            }
        }
        Err(broken.unwrap_or(Error::NoNetwork { name: name.into(), dir: dir.into(), names }))
    }

    /// Reads a configuration; `path` tells by its ending of which kind it is, and is named in errors.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn parse(text: &[u8], path: &Path) -> Result<Self> {
        parse(text, path.extension().is_some_and(|ending| ending == "conflist"))
            .map_err(|reason| Error::Config { path: path.into(), reason })
    }

    /// Whether plugins of this version know CHECK.
    pub(super) fn has_check(&self) -> bool {
        !self.disable_check && self.cni_version != "0.3.1"
    }
}

fn parse(text: &[u8], is_list: bool) -> std::result::Result<NetworkConfig, String> {
    let mut all: Map<String, Value> = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let name = string(&all, "name")?;
    if !is_name(&name) {
        return Err(format!(
            "name {name:?} must be of letters, digits, '_', '.' and '-', and begin with a letter or digit"
        ));
    }
    let cni_version = version(&all)?;
    let disable_check = all.get("disableCheck").is_some_and(|value| *value == true || *value == "true");
    let plugins = match all.remove("plugins") {
        Some(Value::Array(plugins)) if is_list => plugins
            .into_iter()
            .map(|plugin| match plugin {
                Value::Object(plugin) => Ok(plugin),
                _ => Err("a plugin must be an object".to_owned()),
            })
            .collect::<std::result::Result<Vec<_>, _>>()?,
        _ if is_list => return Err("it has no list of plugins".into()),
        _ => vec![all],
    };
    if plugins.is_empty() || plugins.len() > MAX_PLUGINS {
        return Err(format!("it has {} plugins; 1 to {MAX_PLUGINS} can be run", plugins.len()));
    }
    for plugin in &plugins {
        let kind = string(plugin, "type")?;
        if !is_name(&kind) {
            return Err(format!("plugin type {kind:?} is not the name of a program"));
        }
    }
    Ok(NetworkConfig { name, cni_version, disable_check, plugins })
}

/// `cniVersions` (since 1.1) offers several; the newest that we know is taken.
fn version(all: &Map<String, Value>) -> std::result::Result<String, String> {
    let mut offered = vec![string(all, "cniVersion")?];
    if let Some(Value::Array(more)) = all.get("cniVersions") {
        offered.extend(more.iter().filter_map(Value::as_str).map(str::to_owned));
    }
    let best = VERSIONS.iter().find(|known| offered.iter().any(|one| one == *known));
    best.map(|version| (*version).to_owned())
        .ok_or_else(|| format!("cniVersion {} is none of {}", offered.join(", "), VERSIONS.join(", ")))
}

fn string(object: &Map<String, Value>, key: &str) -> std::result::Result<String, String> {
    match object.get(key) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(format!("{key} must be a string")),
        None => Err(format!("{key} is missing")),
    }
}

/// What the specification allows for names of networks, and for container ids.
pub(super) fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
        && text.len() <= 255
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("read", dir)(error)),
    };
    let is_config =
        |path: &PathBuf| path.extension().is_some_and(|e| e == "conflist" || e == "conf" || e == "json");
    let mut paths: Vec<_> =
        entries.flatten().map(|entry| entry.path()).filter(is_config).take(MAX_FILES).collect();
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let file = File::open(path).map_err(Error::io("open", path))?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut text).map_err(Error::io("read", path))?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(Error::Config {
            path: path.into(),
            reason: format!("it has more than {MAX_FILE_BYTES} bytes"),
        });
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
