//! The files of one log: `<path>`, `<path>.1`, and so on to the oldest.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// How often [`younger_than`] begins anew because the files were rotated meanwhile.
const ATTEMPTS: u32 = 16;

/// A file apart from its name. It stays one while the file is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

/// A log file, open for reading.
#[derive(Debug)]
pub(super) struct LogFile {
    pub(super) file: File,
    pub(super) id: FileId,
}

/// The name of a file after `number` rotations.
pub(super) fn numbered(path: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// The file that is written to now. `None`: it does not exist, as for a moment within each rotation.
pub(super) fn current(path: &Path) -> io::Result<Option<FileId>> {
    absent(path.symlink_metadata()).map(|found| found.as_ref().map(id))
}

/// The files that are younger than `known`, or all of them. The youngest comes first.
///
/// Without a lock, while a writer rotates: names only ever move upwards, so that going upwards meets each file, though
/// possibly twice. A name that a rotation has just taken from a file is a gap of one.
pub(super) fn younger_than(path: &Path, known: Option<FileId>) -> io::Result<Vec<LogFile>> {
    let mut attempt = 1;
    loop {
        let (found, met) = once(path, known)?;
        let current = current(path)?;
        let unchanged = current == found.first().map(|first| first.id).or(known);
        if current.is_none() && known.is_some() && !met {
            // Another program has removed the file that is written to. All others are older.
            return Ok(Vec::new());
        }
        if unchanged || attempt == ATTEMPTS {
            return Ok(found);
        }
        attempt += 1;
    }
}

/// The files found, and whether `known` is one of those that follow them.
fn once(path: &Path, known: Option<FileId>) -> io::Result<(Vec<LogFile>, bool)> {
    let mut files: Vec<LogFile> = Vec::new();
    let mut missing = 0;
    for number in 0.. {
        let Some(next) = open(&numbered(path, number))? else {
            missing += 1;
            if missing == 2 {
                break;
            }
            continue;
        };
        missing = 0;
        if Some(next.id) == known {
            return Ok((files, true));
        }
        match files.iter().position(|file| file.id == next.id) {
            // Met again, after a rotation: what is older follows again.
            Some(at) => files.truncate(at + 1),
            None => files.push(next),
        }
    }
    Ok((files, false))
}

/// `None`: it does not exist, or is not a regular file.
fn open(path: &Path) -> io::Result<Option<LogFile>> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Ok(None),
        opened => absent(opened)?,
    };
    let Some(file) = file else { return Ok(None) };
    let metadata = file.metadata()?;
    Ok(metadata.is_file().then(|| LogFile { file, id: id(&metadata) }))
}

fn id(metadata: &std::fs::Metadata) -> FileId {
    FileId { device: metadata.dev(), inode: metadata.ino() }
}

/// `None` in place of the error that something does not exist.
pub(super) fn absent<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn contents(files: Vec<LogFile>) -> Vec<String> {
        files.into_iter().map(|file| io::read_to_string(file.file).unwrap()).collect()
    }

    #[test]
    fn files_are_found_from_the_youngest_to_the_oldest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.log");
        assert!(younger_than(&path, None).unwrap().is_empty());
        for (name, text) in
            [("c.log", "d"), ("c.log.1", "c"), ("c.log.2", "b"), ("c.log.3", "a"), ("c.log.x", "-")]
        {
            fs::write(dir.path().join(name), text).unwrap();
        }
        assert_eq!(contents(younger_than(&path, None).unwrap()), ["d", "c", "b", "a"]);
        let known = open(&numbered(&path, 2)).unwrap().unwrap().id;
        assert_eq!(contents(younger_than(&path, Some(known)).unwrap()), ["d", "c"]);
    }

    #[test]
    fn the_gap_of_a_rotation_ends_no_search() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.log");
        for gap in 0..3 {
            for number in 0..3 {
                fs::write(numbered(&path, number), number.to_string()).unwrap();
            }
            fs::remove_file(numbered(&path, gap)).unwrap();
            let expected: Vec<_> =
                (0..3).filter(|number| *number != gap).map(|number| number.to_string()).collect();
            assert_eq!(contents(younger_than(&path, None).unwrap()), expected);
        }
    }

    #[test]
    fn nothing_but_regular_files_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.log");
        fs::write(&path, "a").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", numbered(&path, 1)).unwrap();
        nix::unistd::mkfifo(&numbered(&path, 2), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(contents(younger_than(&path, None).unwrap()), ["a"]);
    }
}
