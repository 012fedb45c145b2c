//! What the balloon counts.

use serde::Serialize;

use crate::metrics::Counter;

/// What the balloon counts.
#[derive(Debug, Default, Serialize)]
pub struct BalloonCounters {
    /// Pages (4 KiB) that the guest put into the balloon, given back to the host.
    pub inflated_pages: Counter,
    /// Pages that it took out.
    pub deflated_pages: Counter,
    /// Bytes of free memory that the guest reported, given back to the host.
    pub reported_bytes: Counter,
    /// Pages that the guest named in vain: that do not exist, twice, or too many in a request.
    pub ignored_pages: Counter,
    /// Ranges that the host's kernel did not take back.
    pub failures: Counter,
    /// Statistics received.
    pub stats: Counter,
}
