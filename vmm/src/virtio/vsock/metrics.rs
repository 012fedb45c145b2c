//! What the vsock device counts.

use serde::Serialize;

use crate::metrics::Counter;

/// What the vsock device counts. Bytes include the packets' headers.
#[derive(Debug, Default, Serialize)]
pub struct VsockCounters {
    /// Packets of the guest.
    pub tx_packets: Counter,
    /// Their bytes.
    pub tx_bytes: Counter,
    /// Packets of the guest that lie outside its memory.
    pub tx_errors: Counter,
    /// Packets for the guest.
    pub rx_packets: Counter,
    /// Their bytes.
    pub rx_bytes: Counter,
}
