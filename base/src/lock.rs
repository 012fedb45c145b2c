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
    waited_for(path, locked(path, options, |file| file.lock().map_err(TryLockError::Error)))
}

/// As [`lock_file`], but does not wait: `None` if the lock is held.
///
/// # Errors
/// When the file can't be opened or locked.
pub fn try_lock_file(path: &Path) -> Result<Option<File>, IoError> {
    locked(path, &made_when_missing(), File::try_lock)
}

/// Waits for a shared lock of a file, which is made when missing. Dropping the result frees the lock.
///
/// The lock belongs to the returned file alone, which is opened anew: other locks of the same process stay as they are.
///
/// # Errors
/// When the file can't be opened or locked.
pub fn lock_shared(path: &Path) -> Result<File, IoError> {
    let lock = |file: &File| file.lock_shared().map_err(TryLockError::Error);
    waited_for(path, locked(path, &made_when_missing(), lock))
}

/// Whether somebody has a shared lock of the file. A missing file is not locked, and is not made.
///
/// Who has the lock alone looks, as this does for a moment, or cleans up: nobody shares it then.
///
/// # Errors
/// When the file can't be opened or its lock not tried.
pub fn is_shared(path: &Path) -> Result<bool, IoError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if is_missing(&error) => return Ok(false),
        Err(error) => return Err(IoError::of("open", path)(error)),
    };
    let is_free = |tried: Result<(), TryLockError>| match tried {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(IoError::of("lock", path)(error)),
    };
    Ok(!is_free(file.try_lock())? && is_free(file.try_lock_shared())?)
}

/// The file with its lock, by a lock of the file that is at the path then; `None` if that is held.
fn locked(
    path: &Path,
    options: &OpenOptions,
    lock: impl Fn(&File) -> Result<(), TryLockError>,
) -> Result<Option<File>, IoError> {
    loop {
        let file = options.open(path).map_err(IoError::of("open", path))?;
        match lock(&file) {
            Ok(()) if is_still_at(&file, path)? => return Ok(Some(file)),
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(IoError::of("lock", path)(error)),
        }
    }
}

fn waited_for(path: &Path, locked: Result<Option<File>, IoError>) -> Result<File, IoError> {
    // A lock that is waited for does not tell that it is held.
    locked?.ok_or_else(|| IoError::of("lock", path)(io::Error::from(io::ErrorKind::WouldBlock)))
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
        // Who looks at the same time is no holder.
        assert!(!is_shared(&path).unwrap());
        drop(held);
        assert!(try_lock_file(&path).unwrap().is_some());
    }

    #[test]
    fn shared_locks_exclude_exclusive_ones_alone() {
        let (_dir, path) = lock_path();
        let first = lock_shared(&path).unwrap();
        let second = lock_shared(&path).unwrap();
        drop(first);
        assert!(is_shared(&path).unwrap());
        assert!(try_lock_file(&path).unwrap().is_none());
        drop(second);
        assert!(!is_shared(&path).unwrap());
        assert!(try_lock_file(&path).unwrap().is_some());
    }

    #[test]
    fn a_missing_file_is_not_locked_and_not_made() {
        let (dir, path) = lock_path();
        assert!(!is_shared(&path).unwrap());
        assert!(!path.exists());
        assert!(!is_shared(&dir.path().join("gone/lock")).unwrap());
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
        assert!(try_lock_file(&path).unwrap().is_none());
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
