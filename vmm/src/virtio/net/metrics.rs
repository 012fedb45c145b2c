//! What an interface counts.

use serde::Serialize;

use crate::metrics::Counter;

/// What an interface counts. Received is what the guest receives. Bytes are those of Ethernet frames.
#[derive(Debug, Default, Serialize)]
pub struct NetCounters {
    /// Frames that the guest received.
    pub rx_frames: Counter,
    /// Their bytes.
    pub rx_bytes: Counter,
    /// Frames that did not fit the guest's buffers.
    pub rx_dropped: Counter,
    /// Reads of the tap that failed.
    pub rx_errors: Counter,
    /// Times that a frame for the guest had to wait for a rate limit.
    pub rx_throttled: Counter,
    /// Frames that the guest sent.
    pub tx_frames: Counter,
    /// Their bytes.
    pub tx_bytes: Counter,
    /// Frames of the guest that were too short or too long to be any.
    pub tx_dropped: Counter,
    /// Frames of the guest that the tap refused.
    pub tx_errors: Counter,
    /// Times that a frame of the guest had to wait for a rate limit.
    pub tx_throttled: Counter,
    /// Commands of the driver that failed.
    pub control_errors: Counter,
}
