//! The Unpack call: one at a time, on a thread of its own, with its progress for all to see.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use husk_protocol::agent::{self, UnpackRequest};

use crate::{
    container::find_disk,
    failure::Failure,
    unpack::{self, Compression, Layer},
};

/// The state of the running, or last, unpack.
#[derive(Debug, Default)]
pub(crate) struct Unpacking {
    running: AtomicBool,
    read_bytes: Arc<AtomicU64>,
}

impl Unpacking {
    /// Compressed bytes read so far.
    pub(crate) fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
    }

    /// Unpacks the layers on to the target disk.
    pub(crate) async fn run(&self, request: UnpackRequest) -> Result<(), Failure> {
        if self.running.swap(true, Ordering::Relaxed) {
            return Err(Failure::state("an unpack is running already"));
        }
        self.read_bytes.store(0, Ordering::Relaxed);
        let progress = Arc::clone(&self.read_bytes);
        let work = tokio::task::spawn_blocking(move || unpack(request, &progress));
        let result = work.await;
        self.running.store(false, Ordering::Relaxed);
        result.unwrap_or_else(|e| Err(Failure::internal(format!("the unpack ended early: {e}"))))
    }
}

fn unpack(request: UnpackRequest, progress: &AtomicU64) -> Result<(), Failure> {
    let target = find_disk(&request.target_disk)?;
    let layers = request.layers.into_iter().map(layer).collect::<Result<Vec<_>, Failure>>()?;
    unpack::unpack(layers, &target, progress).map_err(|e| Failure::new(e.api_reason(), e.to_string()))
}

fn layer(layer: agent::Layer) -> Result<Layer, Failure> {
    let compression = match layer.compression.enum_value() {
        Ok(agent::Compression::NONE) => Compression::None,
        Ok(agent::Compression::GZIP) => Compression::Gzip,
        Ok(agent::Compression::ZSTD) => Compression::Zstd,
        Err(number) => return Err(Failure::invalid(format!("not a compression: {number}"))),
    };
    Ok(Layer { device: find_disk(&layer.disk)?, size: layer.size, compression, diff_id: layer.diff_id })
}
