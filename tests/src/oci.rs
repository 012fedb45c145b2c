//! Makes images by hand, good and bad ones, as OCI layouts.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// `sha256:...` of some bytes.
pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// A layer as its tar, before compression.
#[derive(Default)]
pub struct Layer {
    tar: Vec<u8>,
}

impl std::fmt::Debug for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Layer of {} bytes", self.tar.len())
    }
}

impl Layer {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a regular file. Names are written as they are, however bad.
    ///
    /// # Panics
    /// When the name is too long for a plain header.
    #[must_use]
    pub fn file(self, name: &str, mode: u32, content: &[u8]) -> Self {
        self.entry(tar::EntryType::Regular, name, "", mode, content)
    }

    /// Adds a directory.
    ///
    /// # Panics
    /// As [`Layer::file`].
    #[must_use]
    pub fn dir(self, name: &str) -> Self {
        self.entry(tar::EntryType::Directory, name, "", 0o755, b"")
    }

    /// Adds a symbolic link.
    ///
    /// # Panics
    /// As [`Layer::file`].
    #[must_use]
    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(tar::EntryType::Symlink, name, target, 0o777, b"")
    }

    /// Adds a hard link.
    ///
    /// # Panics
    /// As [`Layer::file`].
    #[must_use]
    pub fn hard_link(self, name: &str, target: &str) -> Self {
        self.entry(tar::EntryType::Link, name, target, 0o644, b"")
    }

    fn entry(mut self, kind: tar::EntryType, name: &str, target: &str, mode: u32, content: &[u8]) -> Self {
        let mut header = tar::Header::new_ustar();
        // Written past the crate's own checks, which would refuse the names that matter here.
        let fields = header.as_ustar_mut().unwrap();
        fields.name[..name.len()].copy_from_slice(name.as_bytes());
        fields.linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.tar.extend_from_slice(header.as_bytes());
        self.tar.extend_from_slice(content);
        self.tar.resize(self.tar.len().next_multiple_of(512), 0);
        self
    }

    /// The whole tar, with its end.
    fn finished(&self) -> Vec<u8> {
        let mut tar = self.tar.clone();
        tar.resize(tar.len() + 1024, 0);
        tar
    }
}

/// An image under construction: blobs and a manifest.
#[derive(Debug)]
pub struct Image {
    /// The image's configuration.
    pub config: Value,
    /// The manifest's layers; [`Image::blobs`] holds their bytes.
    pub layers: Vec<Value>,
    /// All blobs but configuration and manifest: digest and bytes.
    pub blobs: Vec<(String, Vec<u8>)>,
}

impl Default for Image {
    fn default() -> Self {
        Self::new()
    }
}

impl Image {
    /// An image for this machine with no layers.
    pub fn new() -> Self {
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": []},
        });
        Self { config, layers: Vec::new(), blobs: Vec::new() }
    }

    /// Adds a layer, compressed with gzip.
    #[must_use]
    pub fn layer(self, layer: &Layer) -> Self {
        let tar = layer.finished();
        let (diff_id, blob) = (digest(&tar), gzip(&tar));
        self.raw_layer(&diff_id, blob)
    }

    /// Adds a layer whose blob need not be what its diff id says.
    ///
    /// # Panics
    /// When the configuration has been changed to one without layers.
    #[must_use]
    pub fn raw_layer(mut self, diff_id: &str, blob: Vec<u8>) -> Self {
        self.config["rootfs"]["diff_ids"].as_array_mut().unwrap().push(diff_id.into());
        self.layers.push(json!({"mediaType": LAYER, "digest": digest(&blob), "size": blob.len()}));
        self.blobs.push((digest(&blob), blob));
        self
    }

    /// Sets what a container runs.
    #[must_use]
    pub fn command(mut self, command: &[&str]) -> Self {
        self.config["config"]["Cmd"] = json!(command);
        self
    }

    /// The manifest and the blobs that it names, the configuration among them.
    ///
    /// # Panics
    /// Never: the configuration is JSON.
    pub fn finish(&self) -> (Value, Vec<(String, Vec<u8>)>) {
        let config = serde_json::to_vec(&self.config).unwrap();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": digest(&config), "size": config.len()},
            "layers": self.layers,
        });
        let mut blobs = self.blobs.clone();
        blobs.push((digest(&config), config));
        (manifest, blobs)
    }

    /// Writes the image as an OCI layout directory.
    ///
    /// # Panics
    /// When that can't be written.
    pub fn write(&self, name: &str) -> Layout {
        let (manifest, blobs) = self.finish();
        let bytes = serde_json::to_vec(&manifest).unwrap();
        let entry = json!({
            "mediaType": MANIFEST, "digest": digest(&bytes), "size": bytes.len(),
            "annotations": {"org.opencontainers.image.ref.name": name},
        });
        Layout::write(
            &json!({"schemaVersion": 2, "manifests": [entry]}),
            blobs.into_iter().chain([(digest(&bytes), bytes)]),
        )
    }
}

/// Compresses with gzip.
///
/// # Panics
/// Never: memory takes all.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An OCI layout directory, removed when dropped.
#[derive(Debug)]
pub struct Layout {
    dir: TempDir,
}

impl Layout {
    /// Writes an index and blobs, whatever they are.
    ///
    /// # Panics
    /// When they can't be written.
    pub fn write(index: &Value, blobs: impl IntoIterator<Item = (String, Vec<u8>)>) -> Self {
        let dir = TempDir::new().unwrap();
        let blob_dir = dir.path().join("blobs/sha256");
        fs::create_dir_all(&blob_dir).unwrap();
        fs::write(dir.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        fs::write(dir.path().join("index.json"), index.to_string()).unwrap();
        for (digest, bytes) in blobs {
            fs::write(blob_dir.join(digest.trim_start_matches("sha256:")), bytes).unwrap();
        }
        Self { dir }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Where a blob is, by its digest.
    pub fn blob(&self, digest: &str) -> PathBuf {
        self.path().join("blobs/sha256").join(digest.trim_start_matches("sha256:"))
    }
}
