//! Files that survive kill -9 at any moment, and locks that end with their holder.

use std::{
    fs::{self, DirBuilder, File},
    io::{ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

use serde::{Serialize, de::DeserializeOwned};

use crate::{Error, Result};

/// Makes a directory and its parents, for this user alone.
pub(crate) fn make_dir(path: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(Error::io("create", path))
}

/// Waits for the lock of a file, which is made when missing. It is free again when the result is dropped.
pub(crate) fn lock(path: &Path) -> Result<File> {
    loop {
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path)
            .map_err(Error::io("open", path))?;
        file.lock().map_err(Error::io("lock", path))?;
        // Who held it may have removed it.
        let locked = file.metadata().map_err(Error::io("read", path))?;
        if fs::metadata(path).is_ok_and(|now| now.ino() == locked.ino() && now.dev() == locked.dev()) {
            return Ok(file);
        }
    }
}

/// Reads a file of JSON; `None`: there is none.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::io("read", path)(source)),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|source| Error::Damaged { path: path.into(), source })
}

/// Whether a file's content has to outlive a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sync {
    Yes,
    No,
}

/// Puts a value into a file as JSON: all of it or nothing. Whoever writes holds a lock that others would need.
pub(crate) fn write(path: &Path, value: &impl Serialize, sync: Sync) -> Result<()> {
    let temporary = path.with_extension("new");
    let save = || {
        let mut file =
            File::options().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
        file.write_all(&serde_json::to_vec(value)?)?;
        if sync == Sync::Yes {
            file.sync_all()?;
        }
        fs::rename(&temporary, path)?;
        match path.parent().filter(|_| sync == Sync::Yes) {
            Some(dir) => File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    };
    save().map_err(Error::io("write", path))
}
