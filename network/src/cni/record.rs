//! Records of attachments on disk: all that it takes to undo one.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use husk_base::{dirs::make_private_dir, json_file};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Error, NetworkConfig, Result, Runtime};

const ENDING: &str = "json";

/// A container's place in a network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) config: NetworkConfig,
    pub(super) runtime: Runtime,
    /// The last plugin's result, when ADD came to its end.
    pub(super) result: Option<Value>,
}

impl Record {
    /// The file of an interface of a container. Ids have no `@`.
    pub(super) fn path(dir: &Path, runtime: &Runtime) -> PathBuf {
        dir.join(format!("{}@{}.{ENDING}", runtime.container_id, runtime.interface))
    }

    /// Writes it, in place of an older one.
    ///
    /// # Errors
    /// When the folder can't be written to.
    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        make_private_dir(dir)?;
        Ok(json_file::write_durable(&Self::path(dir, &self.runtime), self)?)
    }

    /// Reads one; `None` if it is gone.
    ///
    /// # Errors
    /// When it can't be read, or is not what we wrote.
    pub(super) fn read(path: &Path) -> Result<Option<Self>> {
        Ok(json_file::read(path)?)
    }

    /// Removes it; it is no error that it is not there.
    ///
    /// # Errors
    /// When it can't be removed.
    pub(super) fn remove(&self, dir: &Path) -> Result<()> {
        let path = Self::path(dir, &self.runtime);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
            _ => Ok(()),
        }
    }

    /// The records in a folder: container id and path.
    ///
    /// # Errors
    /// When the folder can't be read.
    pub(super) fn list(dir: &Path) -> Result<Vec<(String, PathBuf)>> {
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("read", dir)(error)),
        };
        let mut records = Vec::new();
        for path in entries.flatten().map(|entry| entry.path()) {
            if let Some((id, _)) =
                path.file_name().and_then(|name| name.to_str()).and_then(|name| name.split_once('@'))
            {
                records.push((id.to_owned(), path));
            }
        }
        records.sort();
        Ok(records)
    }
}
