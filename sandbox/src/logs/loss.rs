//! Output that could not be written.

use std::io;

use jiff::Timestamp;
use nix::errno::Errno;

/// What a writer has lost since it was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lost {
    /// How many records: lines, and parts of long lines.
    pub records: u64,
    /// How many bytes of output.
    pub bytes: u64,
    /// When the first was lost.
    pub first: Option<Timestamp>,
    /// Why the last was lost.
    pub reason: String,
}

impl Lost {
    /// Counts one record with `bytes` of output.
    pub(super) fn count(&mut self, bytes: u64, now: Timestamp) {
        self.records += 1;
        self.bytes += bytes;
        self.first.get_or_insert(now);
    }

    /// The line that stands in the log in place of what was lost.
    pub(super) fn notice(&self) -> String {
        let Self { records, bytes, reason, .. } = self;
        format!("husk: {records} log lines ({bytes} bytes) were lost: {reason}")
    }
}

/// `error` without the number that std adds.
pub(super) fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => Errno::from_raw(number).desc().to_lowercase(),
        None => error.to_string(),
    }
}
