//! What a disk counts.

use serde::Serialize;

use super::kind::Kind;
use crate::metrics::{Counter, Histogram};

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
    /// Discards that succeeded.
    pub discards: Counter,
    /// Bytes that they gave up.
    pub discarded_bytes: Counter,
    /// Requests for zeros that succeeded.
    pub zeroings: Counter,
    /// Bytes that they made zero.
    pub zeroed_bytes: Counter,
    /// Requests that failed, wrong ones included.
    pub errors: Counter,
    /// Requests that had to wait for a rate limit.
    pub throttled: Counter,
    /// How long requests took, from when they were taken from the queue.
    pub latency: Histogram,
}

impl DiskCounters {
    /// Counts a request that succeeded, about `len` bytes.
    pub(super) fn count(&self, kind: Kind, len: u64) {
        let (requests, bytes) = match kind {
            Kind::Read => (&self.reads, Some(&self.read_bytes)),
            Kind::Write { .. } => (&self.writes, Some(&self.written_bytes)),
            Kind::Flush => (&self.flushes, None),
            Kind::Discard => (&self.discards, Some(&self.discarded_bytes)),
            Kind::WriteZeroes { .. } => (&self.zeroings, Some(&self.zeroed_bytes)),
        };
        requests.add(1);
        if let Some(bytes) = bytes {
            bytes.add(len);
        }
    }
}
