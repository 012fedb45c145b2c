//! Lock files: flocks that end with the process that holds them.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
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

/// As [`lock_file`], but does not wait: `None` if the lock is held.
///
/// # Errors
/// When the file can't be opened or locked.
pub fn try_lock_file(path: &Path) -> Result<Option<File>, IoError> {
    loop {
        let file = made_when_missing().open(path).map_err(IoError::of("open", path))?;
        match file.try_lock() {
            Ok(()) if is_still_at(&file, path)? => return Ok(Some(file)),
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(IoError::of("lock", path)(error)),
        }
    }
}

/// Waits for a shared lock of a file, which is made when missing. Dropping the result frees the lock.
///
/// The lock belongs to the returned file alone, which is opened anew: other locks of the same process stay as they are.
///
/// # Errors
/// When the file can't be opened or locked.
pub fn lock_shared(path: &Path) -> Result<File, IoError> {
    loop {
        let file = made_when_missing().open(path).map_err(IoError::of("open", path))?;
        file.lock_shared().map_err(IoError::of("lock", path))?;
        if is_still_at(&file, path)? {
            return Ok(file);
        }
    }
}

/// Whether a lock of the file is held, exclusive or shared. A missing file is not locked, and is not made.
///
/// The test takes the lock for a moment: a [`try_lock_file`] at the same time may find it held.
///
/// # Errors
/// When the file can't be opened or its lock not tried.
pub fn is_locked(path: &Path) -> Result<bool, IoError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if is_missing(&error) => return Ok(false),
        Err(error) => return Err(IoError::of("open", path)(error)),
    };
    match file.try_lock() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(IoError::of("lock", path)(error)),
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
    use std::{path::PathBuf, thread};

    use super::*;

    fn lock_path() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        (dir, path)
    }

    #[test]
    fn an_exclusive_lock_excludes_all_others_until_it_is_dropped() {
        let (_dir, path) = lock_path();
        let held = lock_file(&path).unwrap();
        assert!(try_lock_file(&path).unwrap().is_none());
        assert!(is_locked(&path).unwrap());
        drop(held);
        assert!(!is_locked(&path).unwrap());
        assert!(try_lock_file(&path).unwrap().is_some());
    }

    #[test]
    fn shared_locks_exclude_exclusive_ones_alone() {
        let (_dir, path) = lock_path();
        let first = lock_shared(&path).unwrap();
        let second = lock_shared(&path).unwrap();
        drop(first);
        assert!(is_locked(&path).unwrap());
        assert!(try_lock_file(&path).unwrap().is_none());
        drop(second);
        assert!(try_lock_file(&path).unwrap().is_some());
    }

    #[test]
    fn a_missing_file_is_not_locked_and_not_made() {
        let (dir, path) = lock_path();
        assert!(!is_locked(&path).unwrap());
        assert!(!path.exists());
        assert!(!is_locked(&dir.path().join("gone/lock")).unwrap());
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
        assert!(is_locked(&path).unwrap());
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
