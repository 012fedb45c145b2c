//! Reads the lines of one file, forwards, in bounded memory.

use std::{io, os::unix::fs::FileExt};

use super::chain::LogFile;

/// Longer lines are skipped, in bytes. The longest that a writer makes is not much longer than 100 KiB.
pub(super) const LONGEST_LINE: usize = 1024 * 1024;
const CHUNK: usize = 64 * 1024;

/// A position in a file, and the lines read ahead of it.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) log: LogFile,
    /// Where reading ends; `None`: at the file's end.
    limit: Option<u64>,
    /// Where `buffer` begins in the file.
    offset: u64,
    buffer: Vec<u8>,
    /// How much of `buffer` is delivered.
    taken: usize,
    /// How much of `buffer` is known to hold no newline that is not taken.
    searched: usize,
    /// Within a line that is too long.
    skipping: bool,
}

impl Scan {
    pub(super) fn new(log: LogFile, offset: u64, limit: Option<u64>) -> Self {
        Self { log, limit, offset, buffer: Vec::new(), taken: 0, searched: 0, skipping: false }
    }

    /// The next line, without its newline. `None`: there is none yet.
    ///
    /// What follows the last newline is a line only in a file that is `complete`. It is read again next time: until
    /// its newline is there, the writer may replace it.
    pub(super) fn next(&mut self, complete: bool) -> io::Result<Option<&[u8]>> {
        loop {
            let newline = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
            if let Some(found) = newline {
                let line = self.taken..self.searched + found;
                self.taken = line.end + 1;
                self.searched = self.taken;
                if std::mem::take(&mut self.skipping) || line.len() > LONGEST_LINE {
                    continue;
                }
                return Ok(Some(&self.buffer[line]));
            }
            self.drop_taken();
            if self.skipping || self.buffer.len() > LONGEST_LINE {
                self.skipping = true;
                self.taken = self.buffer.len();
                self.drop_taken();
            }
            if !self.fill()? {
                break;
            }
        }
        let rest = self.buffer.len();
        if complete && rest > 0 {
            (self.taken, self.searched) = (rest, rest);
            return Ok(Some(&self.buffer));
        }
        self.buffer = Vec::new();
        self.searched = 0;
        if self.limit.is_none() && self.log.file.metadata()?.len() < self.offset {
            // Another program has emptied the file.
            (self.offset, self.skipping) = (0, false);
        }
        Ok(None)
    }

    fn drop_taken(&mut self) {
        self.buffer.drain(..self.taken);
        self.offset += self.taken as u64;
        self.taken = 0;
        self.searched = self.buffer.len();
    }

    /// Reads more; `false` at the end.
    fn fill(&mut self) -> io::Result<bool> {
        let at = self.offset + self.buffer.len() as u64;
        let left = self.limit.map_or(u64::MAX, |limit| limit.saturating_sub(at));
        let length = self.buffer.len();
        self.buffer.resize(length + usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK)), 0);
        let read = loop {
            match self.log.file.read_at(&mut self.buffer[length..], at) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.buffer.truncate(length + *read.as_ref().unwrap_or(&0));
        read.map(|read| read > 0)
    }
}
