//! Lock files: flocks that end with the process that holds them.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use crate::IoError;

/// Waits for the exclusive lock of a file, which is made when missing. Dropping the result frees the lock.
///
/// A holder may remove the file before it frees the lock: processes that waited then start over with a new file.
///
/// # Errors
/// When the file can't be opened or locked.
pub fn lock_file(path: &Path) -> Result<File, IoError> {
    lock_with(path, &made_when_missing())
}

/// As [`lock_file`], for a file that has content, opened as `options` say.
///
/// # Errors
/// When the file can't be opened or locked.
pub fn lock_with(path: &Path, options: &OpenOptions) -> Result<File, IoError> {
    loop {
        let file = options.open(path).map_err(IoError::of("open", path))?;
        file.lock().map_err(IoError::of("lock", path))?;
        if is_still_at(&file, path)? {
            return Ok(file);
        }
    }
}

fn made_when_missing() -> OpenOptions {
    let mut options = File::options();
    options.create(true).truncate(false).write(true).mode(0o600);
    options
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Whether the file at this path is still the one that was opened.
///
/// # Errors
/// When the file or what is at the path can't be examined.
pub fn is_still_at(file: &File, path: &Path) -> Result<bool, IoError> {
    let opened = file.metadata().map_err(IoError::of("read", path))?;
    match fs::metadata(path) {
        Ok(now) => Ok(now.ino() == opened.ino() && now.dev() == opened.dev()),
        Err(error) if is_missing(&error) => Ok(false),
        Err(error) => Err(IoError::of("read", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::TryLockError, path::PathBuf, thread};

    use super::*;

    fn lock_path() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        (dir, path)
    }

    fn is_locked(path: &Path) -> bool {
        matches!(File::open(path).unwrap().try_lock(), Err(TryLockError::WouldBlock))
    }

    #[test]
    fn a_lock_excludes_all_others_until_it_is_dropped() {
        let (_dir, path) = lock_path();
        let held = lock_file(&path).unwrap();
        assert!(is_locked(&path));
        drop(held);
        assert!(!is_locked(&path));
    }

    #[test]
    fn a_lock_in_a_missing_directory_is_an_error() {
        let (dir, _) = lock_path();
        assert!(lock_file(&dir.path().join("gone/lock")).is_err());
    }

    #[test]
    fn a_waiting_process_does_not_get_a_file_that_was_removed() {
        let (_dir, path) = lock_path();
        let old = lock_file(&path).unwrap();
        let waiting = thread::spawn({
            let path = path.clone();
            move || lock_file(&path).unwrap()
        });
        fs::remove_file(&path).unwrap();
        drop(old);
        let new = waiting.join().unwrap();
        assert!(is_still_at(&new, &path).unwrap());
        assert!(is_locked(&path));
    }

    #[test]
    fn a_file_that_was_removed_or_replaced_is_noticed() {
        let (_dir, path) = lock_path();
        let old = lock_file(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(!is_still_at(&old, &path).unwrap());
        let _new = lock_file(&path).unwrap();
        assert!(!is_still_at(&old, &path).unwrap());
    }
}
