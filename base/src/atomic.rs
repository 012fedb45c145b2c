//! Files that are replaced as a whole: a reader, or a process that is killed, sees the old or the new content.

use std::{
    fs::{self, File, Metadata, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    time::{Duration, SystemTime},
};

use crate::{IoError, id};

/// How the names of temporary files end. They begin with a dot.
const ENDING: &str = ".new";
/// A temporary file is there for moments: one that is older belongs to no living process.
const MAX_AGE: Duration = Duration::from_hours(1);

/// Whether new content has to survive a power failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durable {
    /// The file and its directory are synchronised before the function returns.
    Yes,
    /// The content survives the end of the process, but not that of the system.
    No,
}

/// Replaces a file, which is made when missing, with one of this content and these permissions.
///
/// The content is first in a file beside it, named `.HEX.new`. A killed process may leave it: see [`sweep`].
///
/// # Errors
/// When the file can't be written. It is then as it was.
pub fn replace(path: &Path, content: &[u8], mode: u32, durable: Durable) -> Result<(), IoError> {
    try_replace(path, content, mode, durable).map_err(IoError::of("write", path))
}

fn try_replace(path: &Path, content: &[u8], mode: u32, durable: Durable) -> io::Result<()> {
    let directory = directory_of(path);
    let fresh = directory.join(format!(".{}{ENDING}", id::short(&id::random()?)));
    let mut file = File::options().create_new(true).write(true).mode(0o600).open(&fresh)?;
    let mut write = || {
        file.write_all(content)?;
        // The mode that a file is made with is subject to the umask.
        file.set_permissions(Permissions::from_mode(mode))?;
        if durable == Durable::Yes {
            file.sync_all()?;
        }
        fs::rename(&fresh, path)
    };
    if let Err(error) = write() {
        // The first error is the one to report.
        let _ = fs::remove_file(&fresh);
        return Err(error);
    }
    match durable {
        Durable::Yes => sync_directory(directory),
        Durable::No => Ok(()),
    }
}

/// Removes from a directory what killed processes left of replacing files, once it is an hour old.
///
/// What can't be removed is left for the next time.
pub fn sweep(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if is_temporary(&entry.file_name().to_string_lossy())
            && entry.metadata().is_ok_and(|file| is_old(&file))
        {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn is_temporary(name: &str) -> bool {
    let digits = name.strip_prefix('.').and_then(|name| name.strip_suffix(ENDING));
    digits.is_some_and(|digits| {
        digits.len() == id::SHORT_LEN && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
    })
}

fn is_old(file: &Metadata) -> bool {
    let age = |modified| SystemTime::now().duration_since(modified).unwrap_or_default();
    file.modified().is_ok_and(|modified| age(modified) > MAX_AGE)
}

/// Makes the directory's new names, renames and removals durable.
///
/// # Errors
/// When it can't be opened or synchronised.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// The directory that holds the path's last component.
pub(crate) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) => Path::new("."),
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_and_mode_are_replaced_and_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for (content, mode, durable) in [("one", 0o600, Durable::No), ("two", 0o666, Durable::Yes)] {
            replace(&path, content.as_bytes(), mode, durable).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_name_of_any_length_will_do() {
        let dir = tempfile::tempdir().unwrap();
        replace(&dir.path().join("x".repeat(255)), b"content", 0o600, Durable::No).unwrap();
    }

    #[test]
    fn failure_leaves_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("directory");
        fs::create_dir(&path).unwrap();
        let error = replace(&path, b"content", 0o600, Durable::No).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot write {}", path.display()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(path.is_dir());
    }

    #[test]
    fn old_temporary_files_are_swept_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let long_ago = SystemTime::now() - MAX_AGE - Duration::from_secs(1);
        let kept = ["state.json", ".new", "0123456789ab.new", ".0123456789xy.new", ".0123456789.new"];
        for name in [&kept[..], &[".0123456789ab.new"]].concat() {
            File::create(dir.path().join(name)).unwrap().set_modified(long_ago).unwrap();
        }
        fs::write(dir.path().join(".ba9876543210.new"), "being written").unwrap();
        sweep(dir.path());
        let left = |name: &&str| dir.path().join(name).exists();
        assert!(kept.iter().all(left) && left(&".ba9876543210.new") && !left(&".0123456789ab.new"));
        sweep(&dir.path().join("missing"));
    }

    #[test]
    fn a_bare_name_is_in_the_current_directory() {
        assert_eq!(directory_of(Path::new("name")), Path::new("."));
        assert_eq!(directory_of(Path::new("/name")), Path::new("/"));
        assert_eq!(directory_of(Path::new("a/name")), Path::new("a"));
    }
}
