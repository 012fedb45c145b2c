//! The file that is written to, and its rotation.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use nix::errno::Errno;

use super::{
    LogConfig,
    chain::{absent, numbered},
};

/// As Docker's.
const MODE: u32 = 0o640;

/// A log file that records are appended to.
#[derive(Debug)]
pub(super) struct RotatingFile {
    path: PathBuf,
    max_size: Option<u64>,
    max_file: u32,
    /// Missing after a failure, until it can be opened.
    file: Option<File>,
    /// The file's size, unless another program has changed it.
    size: u64,
    /// The file does not end with a newline.
    torn: bool,
}

/// Appending failed.
#[derive(Debug)]
pub(super) struct Failed {
    /// How many bytes are in the file nevertheless. They end with a newline.
    pub(super) kept: usize,
    /// Why.
    pub(super) error: io::Error,
}

impl RotatingFile {
    /// Opens the file at `path`, or creates it. A disk that can't be written to now is no error.
    pub(super) fn open(path: &Path, config: &LogConfig) -> io::Result<Self> {
        let (max_size, max_file) = (config.max_size(), config.max_file());
        let mut new = Self { path: path.to_owned(), max_size, max_file, file: None, size: 0, torn: false };
        match new.reopen() {
            Err(error) if !is_disk_trouble(&error) => Err(error),
            _ => Ok(new),
        }
    }

    /// The file is to be rotated once it has `more` bytes.
    pub(super) fn is_full_with(&self, more: usize) -> bool {
        self.max_size.is_some_and(|max| self.size.saturating_add(more as u64) >= max)
    }

    /// Appends whole records, after a rotation if the file is full.
    pub(super) fn append(&mut self, records: &[u8]) -> Result<(), Failed> {
        let nothing = |error| Failed { kept: 0, error };
        if self.file.is_none() {
            self.reopen().map_err(nothing)?;
        }
        if self.is_full_with(0) {
            self.rotate().map_err(nothing)?;
        }
        if self.torn {
            self.write(b"\n").map_err(|(_, error)| nothing(error))?;
            self.torn = false;
        }
        self.write(records)
            .map_err(|(written, error)| Failed { kept: self.cut_back(records, written), error })
    }

    /// Writes all of `bytes`, or returns how many were written, and the error.
    fn write(&mut self, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
        let mut written = 0;
        while written < bytes.len() {
            let Some(mut file) = self.file.as_ref() else { break };
            match file.write(&bytes[written..]) {
                Ok(0) => return Err((written, io::ErrorKind::WriteZero.into())),
                Ok(more) => {
                    written += more;
                    self.size += more as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err((written, error)),
            }
        }
        Ok(())
    }

    /// Takes away the part of a record at the file's end, where only `written` bytes of `records` are.
    /// Returns how many bytes of them stay.
    fn cut_back(&mut self, records: &[u8], written: usize) -> usize {
        let kept = records[..written].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let excess = (written - kept) as u64;
        if let Some(file) = self.file.as_ref().filter(|_| excess > 0) {
            // Its real size: if another program has emptied it, `size` would make a hole.
            let cut = file.metadata().and_then(|metadata| {
                let size = metadata.len().saturating_sub(excess);
                file.set_len(size).map(|()| size)
            });
            match cut {
                Ok(size) => self.size = size,
                Err(_) => self.torn = true,
            }
        }
        kept
    }

    fn reopen(&mut self) -> io::Result<()> {
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(MODE)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&self.path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        let size = metadata.len();
        let mut last = [b'\n'];
        if size > 0 {
            file.read_at(&mut last, size - 1)?;
        }
        (self.file, self.size, self.torn) = (Some(file), size, last != [b'\n']);
        Ok(())
    }

    /// Each step leaves names in the order of age, so that a rotation that was cut off is continued by the next.
    fn rotate(&mut self) -> io::Result<()> {
        let exists = |number| numbered(&self.path, number).symlink_metadata().is_ok();
        let oldest = (1..self.max_file).take_while(|number| exists(*number)).last().unwrap_or(0);
        // The last of `max_file` files is replaced.
        for number in (1..=oldest).filter(|number| number + 1 < self.max_file).rev() {
            absent(fs::rename(numbered(&self.path, number), numbered(&self.path, number + 1)))?;
        }
        if self.max_file > 1 {
            absent(fs::rename(&self.path, numbered(&self.path, 1)))?;
        } else {
            absent(fs::remove_file(&self.path))?;
        }
        self.file = None;
        self.reopen()
    }
}

/// The errors of a disk that is full, or broken.
fn is_disk_trouble(error: &io::Error) -> bool {
    let error = error.raw_os_error().map(Errno::from_raw);
    matches!(error, Some(Errno::ENOSPC | Errno::EDQUOT | Errno::EROFS | Errno::EIO))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(dir: &tempfile::TempDir, options: &[&str]) -> RotatingFile {
        RotatingFile::open(&dir.path().join("c.log"), &LogConfig::parse("", options).unwrap()).unwrap()
    }

    fn contents(dir: &tempfile::TempDir) -> Vec<(String, String)> {
        let mut found: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| {
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                (name, fs::read_to_string(path).unwrap())
            })
            .collect();
        found.sort();
        found
    }

    fn files(of: &[(&str, &str)]) -> Vec<(String, String)> {
        of.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn full_files_are_rotated_before_the_next_record() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = file(&dir, &["max-size=4", "max-file=3"]);
        for text in ["1\n", "2\n"] {
            log.append(text.as_bytes()).unwrap();
        }
        assert_eq!(contents(&dir), files(&[("c.log", "1\n2\n")]));
        for text in ["33333\n", "4444\n", "5\n"] {
            log.append(text.as_bytes()).unwrap();
        }
        let expected = files(&[("c.log", "5\n"), ("c.log.1", "4444\n"), ("c.log.2", "33333\n")]);
        assert_eq!(contents(&dir), expected);
    }

    #[test]
    fn a_single_file_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = file(&dir, &["max-size=4"]);
        for text in ["1\n", "2\n", "3\n"] {
            log.append(text.as_bytes()).unwrap();
        }
        assert_eq!(contents(&dir), files(&[("c.log", "3\n")]));
    }

    #[test]
    fn rotations_that_were_cut_off_are_continued() {
        let dir = tempfile::tempdir().unwrap();
        // After .1 became .2.
        fs::write(dir.path().join("c.log"), "young\n").unwrap();
        fs::write(dir.path().join("c.log.2"), "old\n").unwrap();
        file(&dir, &["max-size=4", "max-file=4"]).append(b"new\n").unwrap();
        let expected = files(&[("c.log", "new\n"), ("c.log.1", "young\n"), ("c.log.2", "old\n")]);
        assert_eq!(contents(&dir), expected);
        // After the file became .1.
        fs::remove_file(dir.path().join("c.log")).unwrap();
        file(&dir, &["max-size=4", "max-file=4"]).append(b"2\n").unwrap();
        let expected = files(&[("c.log", "2\n"), ("c.log.1", "young\n"), ("c.log.2", "old\n")]);
        assert_eq!(contents(&dir), expected);
    }

    #[test]
    fn torn_lines_are_ended() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("c.log"), "whole\nto").unwrap();
        let mut log = file(&dir, &[]);
        log.append(b"1\n").unwrap();
        log.append(b"2\n").unwrap();
        drop(log);
        file(&dir, &[]).append(b"3\n").unwrap();
        assert_eq!(contents(&dir), files(&[("c.log", "whole\nto\n1\n2\n3\n")]));
    }

    #[test]
    fn parts_of_records_are_taken_away_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = file(&dir, &[]);
        log.append(b"0\n").unwrap();
        let records = b"11\n22\n";
        for (written, kept) in [(0, 0), (2, 0), (3, 3), (5, 3), (6, 6)] {
            log.file.as_ref().unwrap().set_len(2).unwrap();
            log.write(&records[..written]).unwrap();
            assert_eq!(log.cut_back(records, written), kept);
            assert_eq!(log.file.as_ref().unwrap().metadata().unwrap().len(), 2 + kept as u64);
        }
        // Another program has emptied the file: what is cut back is all that there is.
        log.file.as_ref().unwrap().set_len(0).unwrap();
        log.write(b"1").unwrap();
        assert_eq!(log.cut_back(records, 1), 0);
        log.append(b"3\n").unwrap();
        assert_eq!(contents(&dir), files(&[("c.log", "3\n")]));
    }

    #[test]
    fn what_is_not_a_regular_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.log");
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        RotatingFile::open(&path, &LogConfig::default()).unwrap_err();
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        RotatingFile::open(&path, &LogConfig::default()).unwrap_err();
        RotatingFile::open(Path::new("/nowhere/c.log"), &LogConfig::default()).unwrap_err();
    }
}
