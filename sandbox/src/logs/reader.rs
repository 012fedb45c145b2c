//! Reads a container's log: what there is of it, or on and on.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use super::{
    Record,
    chain::{self, LogFile},
    scan::Scan,
    tail,
};
use crate::{Error, Result};

/// Which records are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// The first record is the first that is not older. (Later ones may be: parts of a long line have the time of the
    /// first part.)
    pub since: Option<Timestamp>,
    /// Reading ends before the first record that is younger.
    pub until: Option<Timestamp>,
    /// No more than so many of the last records, of which `since` and `until` then select.
    pub tail: Option<u64>,
}

/// The records that a log holds when it is opened, the oldest first. What is written or rotated meanwhile changes
/// nothing.
///
/// Lines that are not records, for example torn ones, are skipped.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    walk: Walk,
}

impl Reader {
    /// Opens all files of the log at `path`. A log that does not exist has no records.
    ///
    /// # Errors
    /// A file can't be opened or read.
    pub fn open(path: &Path, options: &ReadOptions) -> Result<Self> {
        let walk = Walk::open(path, options, false).map_err(|source| unreadable(path, source))?;
        Ok(Self { path: path.to_owned(), walk })
    }
}

impl Iterator for Reader {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.walk.next(true).map_err(|source| unreadable(&self.path, source));
        if next.is_err() {
            self.walk.finished = true;
        }
        next.transpose()
    }
}

pub(super) fn unreadable(path: &Path, source: io::Error) -> Error {
    Error::Io { what: "read log", path: path.to_owned(), source }
}

/// A walk through the files of a log, from the oldest to the youngest.
#[derive(Debug)]
pub(super) struct Walk {
    path: PathBuf,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    /// The walk continues into files that did not exist at its begin.
    follow: bool,
    current: Option<Scan>,
    /// After `current`, the oldest first.
    later: VecDeque<Scan>,
    /// `until` is reached, or reading failed.
    finished: bool,
}

impl Walk {
    pub(super) fn open(path: &Path, options: &ReadOptions, follow: bool) -> io::Result<Self> {
        let mut later = VecDeque::new();
        let mut wanted = options.tail;
        for log in chain::younger_than(path, None)? {
            let size = log.file.metadata()?.len();
            let offset = match &mut wanted {
                // The youngest file is needed even for no records: it is followed.
                Some(0) if !later.is_empty() => break,
                Some(wanted) => {
                    let tail = tail::find(&log.file, size, *wanted)?;
                    *wanted -= tail.records;
                    tail.offset
                }
                None => 0,
            };
            later.push_front(Scan::new(log, offset, (!follow).then_some(size)));
        }
        if !follow && options.tail == Some(0) {
            later.clear();
        }
        let ReadOptions { since, until, .. } = *options;
        Ok(Self { path: path.to_owned(), since, until, follow, current: None, later, finished: false })
    }

    /// The next record. `None`: there is none, or none yet. `ended` says that no more will be written.
    pub(super) fn next(&mut self, ended: bool) -> io::Result<Option<Record>> {
        while !self.finished {
            let Some(current) = &mut self.current else {
                if self.later.is_empty() && !self.find_later()? {
                    return Ok(None);
                }
                self.current = self.later.pop_front();
                continue;
            };
            // A file is never written to again once there is a younger one.
            let complete = ended || !self.later.is_empty();
            if let Some(line) = current.next(complete)? {
                if let Some(record) = Record::decode(line)
                    && self.since.is_none_or(|since| record.time >= since)
                {
                    self.since = None;
                    self.finished = self.until.is_some_and(|until| record.time > until);
                    if !self.finished {
                        return Ok(Some(record));
                    }
                }
            } else if !self.later.is_empty() {
                self.current = self.later.pop_front();
            } else if !self.find_later()? {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// `until` is reached, or reading failed: nothing follows.
    pub(super) fn is_finished(&self) -> bool {
        self.finished
    }

    /// Looks for files younger than the current one; `false`: there are none.
    fn find_later(&mut self) -> io::Result<bool> {
        if !self.follow {
            return Ok(false);
        }
        let known = self.current.as_ref().map(|scan| scan.log.id);
        if known.is_some() && chain::current(&self.path)? == known {
            return Ok(false);
        }
        let younger: Vec<LogFile> = chain::younger_than(&self.path, known)?;
        self.later.extend(younger.into_iter().rev().map(|log| Scan::new(log, 0, None)));
        Ok(!self.later.is_empty())
    }
}
