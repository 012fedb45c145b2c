//! What a file system counts. Requests and interrupts go past the VMM, so they are not among it.

use serde::Serialize;

use crate::metrics::Counter;

/// What a file system counts.
#[derive(Debug, Default, Serialize)]
pub struct FsCounters {
    /// How often the server was given the queues.
    pub starts: Counter,
    /// How often it gave them back. It is at work if this and `failures` together are one less than `starts`.
    pub stops: Counter,
    /// How often it hung up, refused or did not answer: then the guest is told that the device needs a reset.
    pub failures: Counter,
}
