//! Pulling from a registry.
use crate::*;
use std::path::PathBuf;
use std::time::Duration;

/// How to pull.
#[derive(Clone, Debug)]
pub struct PullOptions {
    /// Which build to take from an image index.
    pub platform: Platform,
    /// Docker's `config.json` with credentials.
    pub docker_config: Option<PathBuf>,
    /// Directories with `HOST:PORT/*.crt`.
    pub certs_dirs: Vec<PathBuf>,
    /// Longest wait for a byte.
    pub stall_timeout: Duration,
}

/// Pulls an image.
pub async fn pull(
    store: &Store,
    reference: &Reference,
    options: &PullOptions,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<Image> {
    let _ = (store, reference, options, progress);
    unimplemented!()
}
