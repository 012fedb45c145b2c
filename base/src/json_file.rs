//! Values kept in files as JSON.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    IoError,
    atomic::{self, Durable},
};

/// Most files are shorter, and read at once.
const LIKELY_LEN: usize = 4096;
/// Most bytes that a file may have: 16 MiB.
pub const MAX_LEN: u64 = 16 << 20;

/// A value can't be read from a file or written to it.
#[derive(Debug, thiserror::Error)]
pub enum JsonFileError {
    /// The file can't be read or written.
    #[error(transparent)]
    Io(#[from] IoError),
    /// The file is longer than [`MAX_LEN`].
    #[error("{} is longer than {MAX_LEN} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// The file does not hold such a value.
    #[error("{} is damaged, repair or remove it", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The place in the file and what is wrong there.
        #[source]
        source: serde_json::Error,
    },
    /// The value has no form in JSON.
    #[error("cannot write {} as JSON", path.display())]
    Encode {
        /// The file.
        path: PathBuf,
        /// What is wrong with the value.
        #[source]
        source: serde_json::Error,
    },
}

/// Replaces a file with a value, readable by its owner alone. The content may be lost in a power failure.
///
/// # Errors
/// When the value can't be encoded, or the file can't be written. It is then as it was.
pub fn write_atomic<T: Serialize + ?Sized>(path: &Path, value: &T) -> Result<(), JsonFileError> {
    write(path, value, Durable::No)
}

/// As [`write_atomic`]; when it returns, the content survives a power failure.
///
/// # Errors
/// As [`write_atomic`].
pub fn write_durable<T: Serialize + ?Sized>(path: &Path, value: &T) -> Result<(), JsonFileError> {
    write(path, value, Durable::Yes)
}

fn write<T: Serialize + ?Sized>(path: &Path, value: &T, durable: Durable) -> Result<(), JsonFileError> {
    let content =
        serde_json::to_vec(value).map_err(|source| JsonFileError::Encode { path: path.into(), source })?;
    Ok(atomic::replace(path, &content, 0o600, durable)?)
}

/// Reads a value; `None` if there is no such file.
///
/// # Errors
/// When the file can't be read, is longer than [`MAX_LEN`], or does not hold such a value.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, JsonFileError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(IoError::of("open", path)(error).into()),
    };
    let mut content = Vec::with_capacity(LIKELY_LEN);
    let len = file.take(MAX_LEN + 1).read_to_end(&mut content).map_err(IoError::of("read", path))?;
    if len as u64 > MAX_LEN {
        return Err(JsonFileError::TooLong { path: path.into() });
    }
    serde_json::from_slice(&content)
        .map(Some)
        .map_err(|source| JsonFileError::Damaged { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, fs, os::unix::fs::PermissionsExt};

    use super::*;
    use crate::chain;

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        assert_eq!(read::<Vec<u8>>(&path).unwrap(), None);
        write_atomic(&path, &[1, 2]).unwrap();
        assert_eq!(read(&path).unwrap(), Some(vec![1, 2]));
        write_durable(&path, &[3]).unwrap();
        assert_eq!(read(&path).unwrap(), Some(vec![3]));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn damage_is_named_with_file_and_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        fs::write(&path, "[1,\n2").unwrap();
        let error = read::<Vec<u8>>(&path).unwrap_err();
        let text = chain::text(&error);
        let expected =
            format!("{} is damaged, repair or remove it: EOF while parsing a list at line 2", path.display());
        assert!(matches!(error, JsonFileError::Damaged { .. }) && text.starts_with(&expected), "{text}");
    }

    #[test]
    fn a_file_that_is_too_long_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        let file = File::create(&path).unwrap();
        file.set_len(MAX_LEN + 1).unwrap();
        assert!(matches!(read::<String>(&path), Err(JsonFileError::TooLong { .. })));
        file.set_len(MAX_LEN).unwrap();
        assert!(matches!(read::<String>(&path), Err(JsonFileError::Damaged { .. })));
    }

    #[test]
    fn a_value_without_a_form_in_json_leaves_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        write_atomic(&path, "old").unwrap();
        let error = write_atomic(&path, &HashMap::from([(vec![1], 2)])).unwrap_err();
        assert!(matches!(error, JsonFileError::Encode { .. }));
        assert_eq!(read(&path).unwrap(), Some("old".to_owned()));
    }
}
