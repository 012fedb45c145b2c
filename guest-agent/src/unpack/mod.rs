//! Unpacks the layers of an OCI image on to a disk (image-spec layer.md).
//!
//! A layer is hostile. Every path is resolved by the kernel within the new root, nothing in a layer decides how much
//! memory, stack or open files are used, and whatever breaks a rule ends the work with an error that names it.
//!
//! ```text
//! disk -> compression -> digest -> tar -> apply -> tree, remove, contents, metadata -> target
//! ```

mod apply;
mod compression;
mod contents;
mod digest;
mod error;
mod metadata;
mod path;
mod remove;
mod tar;
mod target;
mod tree;
mod whiteout;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;

use apply::apply_layer;
use compression::Blob;
use digest::DiffId;
use error::{LayerError, Reason};
use target::Target;

pub(crate) use compression::Compression;
pub(crate) use error::UnpackError;

/// One layer to unpack.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    /// Read-only disk that begins with the layer's blob.
    pub(crate) device: PathBuf,
    /// Length of the blob in bytes.
    pub(crate) size: u64,
    /// How the blob is compressed.
    pub(crate) compression: Compression,
    /// Digest of the uncompressed tar, `sha256:` and 64 hexadecimal digits.
    pub(crate) diff_id: String,
}

/// Unpacks `layers`, the lowest first, on to the empty ext4 file system on `target_dev`, and leaves it unmounted and
/// written out.
///
/// Adds to `read_bytes` what is read of the compressed layers. Only one call may be under way at a time. After an
/// error the target's contents are of no use.
pub(crate) fn unpack(
    layers: Vec<Layer>,
    target_dev: &Path,
    read_bytes: &AtomicU64,
) -> Result<(), UnpackError> {
    let total = layers.len();
    let numbered = |index| move |error| UnpackError::Layer { number: index + 1, total, error };
    let mut diff_ids = Vec::with_capacity(total);
    for (index, layer) in layers.iter().enumerate() {
        diff_ids.push(DiffId::parse(&layer.diff_id).map_err(LayerError::from).map_err(numbered(index))?);
    }
    let target = Target::mount(target_dev)?;
    for (index, (layer, diff_id)) in layers.iter().zip(&diff_ids).enumerate() {
        unpack_layer(layer, diff_id, target.root()?, read_bytes).map_err(numbered(index))?;
    }
    target.finish()
}

fn unpack_layer(
    layer: &Layer,
    diff_id: &DiffId,
    root: BorrowedFd<'_>,
    read_bytes: &AtomicU64,
) -> Result<(), LayerError> {
    let device = File::open(&layer.device).map_err(Reason::Open)?;
    let blob = Blob::new(device, layer.size, read_bytes);
    let stream = compression::decompress(blob, layer.compression).map_err(Reason::stream)?;
    apply_layer(stream, root, diff_id)
}
