//! Pulling from a registry (OCI distribution-spec, and Docker's where they differ).

mod auth;
mod client;
mod credentials;
mod download;
mod net_error;
mod resolve;
mod self_signed;
mod tls;

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::manifest::{Descriptor, check_platform};
use crate::store::Record;
use crate::{BlobState, Error, Image, Platform, Progress, Reference, Result, Store, disk_key};

use client::Client;
use download::{download, keep_bytes};
use resolve::resolve;

/// Layers downloaded at once.
const PARALLEL: usize = 3;

/// How to pull.
#[derive(Clone, Debug)]
pub struct PullOptions {
    /// Which build to take from an image that has several.
    pub platform: Platform,
    /// Docker's `config.json`, for credentials. It need not exist.
    pub docker_config: Option<PathBuf>,
    /// Directories that hold, by Docker's convention, `HOST:PORT/*.crt` with further CA certificates.
    pub certs_dirs: Vec<PathBuf>,
    /// How long to wait for the next byte before a connection counts as dead.
    pub stall_timeout: Duration,
    /// Wait before the first new attempt after a broken connection; it doubles with every further one.
    pub retry_delay: Duration,
}

impl Default for PullOptions {
    /// Docker's places: `$DOCKER_CONFIG` or `~/.docker`, and `/etc/docker/certs.d` besides husk's own.
    fn default() -> Self {
        Self {
            platform: Platform::default(),
            docker_config: credentials::default_config_path(),
            certs_dirs: vec!["/etc/docker/certs.d".into(), "/etc/husk/certs.d".into()],
            stall_timeout: Duration::from_secs(30),
            retry_delay: Duration::from_millis(300),
        }
    }
}

/// Gets what `reference` names from its registry into the store: what is there already is not downloaded again, what
/// was broken off is continued. Everything is verified against its digest. May be dropped at any time.
///
/// Registries are spoken to over HTTPS; those on loopback addresses over HTTP too, if they do not speak TLS.
///
/// # Errors
/// Each case of [`Error`] that has to do with registries, manifests, and writing to the store.
pub async fn pull(
    store: &Store,
    reference: &Reference,
    options: &PullOptions,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<Image> {
    let client = Client::connect(reference, options).await?;
    let resolved = resolve(&client, reference, &options.platform).await?;
    let (name, manifest) = (reference.familiar(), &resolved.manifest);

    let mut lease = store.lease()?;
    let parts = manifest.layers.iter().map(|l| &l.digest).chain([&manifest.config.digest, &resolved.digest]);
    lease.protect(parts)?;

    // Layers may repeat, empty ones often do.
    let mut seen = HashSet::new();
    let layers: Vec<&Descriptor> = manifest.layers.iter().filter(|l| seen.insert(&l.digest)).collect();
    let report = |layer: &Descriptor, downloaded: u64, state: BlobState| {
        progress(Progress { digest: layer.digest.clone(), downloaded, total: layer.size, state });
    };
    let mut missing = Vec::new();
    for layer in layers {
        if store.has_blob(&layer.digest, layer.size) {
            report(layer, layer.size, BlobState::Exists);
        } else {
            report(layer, 0, BlobState::Waiting);
            missing.push(layer.clone());
        }
    }

    download(&client, store, &manifest.config, &|_, _| {}).await?;
    let config_bytes = store.read_blob(&manifest.config.digest, manifest.config.size).map_err(|problem| {
        Error::Damaged { image: name.clone(), problem: format!("configuration: {problem}") }
    })?;
    let (config, _) = manifest.parse_config(&name, &config_bytes)?;
    check_platform(&name, &config, &options.platform)?;

    stream::iter(missing)
        .map(|layer| {
            let (client, report) = (&client, &report);
            async move { download(client, store, &layer, &|done, state| report(&layer, done, state)).await }
        })
        .buffer_unordered(PARALLEL)
        .try_collect::<()>()
        .await?;

    keep_bytes(store, &resolved.digest, &resolved.bytes)?;
    let record = Record {
        reference: Some(reference.clone()),
        manifest_media_type: resolved.media_type,
        manifest_size: resolved.bytes.len() as u64,
        manifest_digest: resolved.digest,
        config_digest: manifest.config.digest.clone(),
        disk_key: disk_key(manifest.layers.iter().map(|layer| &layer.digest)),
        size: manifest.content_size(),
        created: config.created().clone(),
        source_digest: resolved.source_digest,
    };
    store.add_record(record.clone())?;
    store.image(&record)
}
