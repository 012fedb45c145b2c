//! What a disk counts.

use serde::Serialize;

use crate::metrics::Counter;

/// What a disk counts.
#[derive(Debug, Default, Serialize)]
pub struct DiskCounters {
    /// Reads that succeeded.
    pub reads: Counter,
    /// Bytes that they read.
    pub read_bytes: Counter,
    /// Writes that succeeded.
    pub writes: Counter,
    /// Bytes that they wrote.
    pub written_bytes: Counter,
    /// Flushes that succeeded.
    pub flushes: Counter,
    /// Requests that failed, wrong ones included.
    pub errors: Counter,
}
