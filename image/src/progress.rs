//! Progress of a pull or a load, for whoever draws it.

use crate::Digest;

/// What is happening to one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobState {
    /// Known, but not started: waits for its turn or for another process that downloads it.
    Waiting,
    /// Bytes arrive.
    Downloading,
    /// All bytes are here; they are being written out and checked.
    Verifying,
    /// The layer is in the store.
    Done,
    /// The layer was in the store already.
    Exists,
}

/// One step of progress on one layer. `pull` reports every layer as [`BlobState::Waiting`] or
/// [`BlobState::Exists`] in the order of the manifest before the first download starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The layer.
    pub digest: Digest,
    /// Bytes here so far, those kept from an earlier attempt included. It may go back when a download has to
    /// start over.
    pub downloaded: u64,
    /// Bytes in all.
    pub total: u64,
    /// What is happening.
    pub state: BlobState,
}
