//! What the source of random numbers counts.

use serde::Serialize;

use crate::metrics::Counter;

/// What the source of random numbers counts.
#[derive(Debug, Default, Serialize)]
pub struct RngCounters {
    /// Requests that were answered.
    pub requests: Counter,
    /// Bytes that were given.
    pub bytes: Counter,
}
