//! Images made for tests, and a store to pull them into.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use husk_image::{BlobState, Digest, Error, Image, Progress, PullOptions, Reference, Store, pull};
use serde_json::{Value, json};

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const GZIP_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// An image in memory.
#[derive(Clone)]
pub(crate) struct TestImage {
    pub(crate) layers: Vec<Vec<u8>>,
    pub(crate) config: Vec<u8>,
    pub(crate) manifest: Vec<u8>,
}

impl TestImage {
    /// An image with a layer for each size: a tar with one file of that many incompressible bytes, gzipped.
    pub(crate) fn new(sizes: &[usize]) -> Self {
        Self::for_architecture("amd64", sizes)
    }

    pub(crate) fn for_architecture(architecture: &str, sizes: &[usize]) -> Self {
        let tars: Vec<Vec<u8>> = sizes.iter().enumerate().map(|(n, &size)| layer_tar(n, size)).collect();
        let layers: Vec<Vec<u8>> = tars.iter().map(|tar| gzip(tar)).collect();
        let diff_ids: Vec<Digest> = tars.iter().map(|tar| Digest::of(tar)).collect();
        let config = json!({"architecture": architecture, "os": "linux", "config": {"Cmd": ["true"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids}})
        .to_string()
        .into_bytes();
        let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": descriptor(OCI_CONFIG, &config),
            "layers": layers.iter().map(|layer| descriptor(GZIP_LAYER, layer)).collect::<Vec<_>>()})
        .to_string()
        .into_bytes();
        Self { layers, config, manifest }
    }

    /// The manifest with something changed.
    pub(crate) fn change_manifest(&mut self, change: impl FnOnce(&mut Value)) {
        let mut value = serde_json::from_slice(&self.manifest).unwrap();
        change(&mut value);
        self.manifest = value.to_string().into_bytes();
    }

    pub(crate) fn layer_digest(&self, number: usize) -> Digest {
        Digest::of(&self.layers[number])
    }

    pub(crate) fn blobs(&self) -> Vec<&[u8]> {
        self.layers.iter().chain([&self.config, &self.manifest]).map(Vec::as_slice).collect()
    }
}

/// An index of builds: (architecture, image).
pub(crate) fn index(builds: &[(&str, &TestImage)]) -> Vec<u8> {
    let manifests: Vec<Value> = builds
        .iter()
        .map(|(architecture, image)| {
            let mut entry = descriptor(OCI_MANIFEST, &image.manifest);
            entry["platform"] = json!({"os": "linux", "architecture": architecture});
            entry
        })
        .collect();
    json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}).to_string().into_bytes()
}

/// Writes an OCI layout directory whose index points to `top`, a manifest or an index.
pub(crate) fn write_layout(dir: &Path, media_type: &str, top: &[u8], images: &[&TestImage]) {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let mut entry = descriptor(media_type, top);
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": "t"});
    let index = json!({"schemaVersion": 2, "manifests": [entry]});
    fs::write(dir.join("index.json"), index.to_string()).unwrap();
    for blob in images.iter().flat_map(|image| image.blobs()).chain([top]) {
        fs::write(blobs.join(Digest::of(blob).hex()), blob).unwrap();
    }
}

pub(crate) fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len()})
}

fn layer_tar(number: usize, size: usize) -> Vec<u8> {
    // A generator good enough to defeat gzip.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ (number as u64 + 1);
    let content: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .flatten()
    .take(size)
    .collect();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(size as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, format!("file{number}"), content.as_slice()).unwrap();
    tar.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A store and options for pulling into it.
pub(crate) struct Puller {
    dir: tempfile::TempDir,
    pub(crate) store: Store,
    pub(crate) options: PullOptions,
    events: Mutex<Vec<Progress>>,
}

impl Puller {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let options = PullOptions {
            docker_config: Some(dir.path().join("config.json")),
            certs_dirs: vec![dir.path().join("certs.d")],
            retry_delay: Duration::from_millis(1),
            ..PullOptions::default()
        };
        Self { dir, store, options, events: Mutex::default() }
    }

    /// Writes Docker's config.json.
    pub(crate) fn docker_config(&self, content: &Value) {
        fs::write(self.dir.path().join("config.json"), content.to_string()).unwrap();
    }

    /// Logs in with a password.
    pub(crate) fn log_in(&self, host: &str, user: &str, password: &str) {
        self.docker_config(&json!({"auths": {host: {"username": user, "password": password}}}));
    }

    /// Where CA certificates for `host` go.
    pub(crate) fn certs_dir(&self, host: &str) -> PathBuf {
        let dir = self.dir.path().join("certs.d").join(host);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    pub(crate) async fn pull(&self, name: &str) -> Result<Image, Error> {
        let reference: Reference = name.parse().unwrap();
        self.events.lock().unwrap().clear();
        pull(&self.store, &reference, &self.options, &|event| self.events.lock().unwrap().push(event)).await
    }

    /// The states that the last pull reported of a layer, repetitions left out.
    pub(crate) fn states(&self, digest: &Digest) -> Vec<BlobState> {
        let events = self.events.lock().unwrap();
        let mut states: Vec<BlobState> =
            events.iter().filter(|e| e.digest == *digest).map(|e| e.state).collect();
        states.dedup();
        states
    }

    /// Files under `ingest/`.
    pub(crate) fn ingests(&self) -> Vec<String> {
        let entries = fs::read_dir(self.store.root().join("ingest")).unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Checks that the store has this image, and that nothing is left over.
    pub(crate) fn check(&self, pulled: &Image, made: &TestImage) {
        self.check_content(pulled, made);
        assert_eq!(self.ingests(), [""; 0], "nothing is left in ingest/");
    }

    pub(crate) fn check_content(&self, pulled: &Image, made: &TestImage) {
        assert_eq!(pulled.manifest_digest, Digest::of(&made.manifest));
        assert_eq!(pulled.config_digest, Digest::of(&made.config));
        assert_eq!(pulled.layers.len(), made.layers.len());
        for (pulled, made) in pulled.layers.iter().zip(&made.layers) {
            assert!(fs::read(&pulled.path).unwrap() == *made, "layer {}", pulled.digest);
        }
        let name = pulled.reference.as_ref().unwrap();
        assert_eq!(self.store.get(name).unwrap().as_ref(), Some(pulled));
    }
}
