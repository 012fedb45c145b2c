//! Makes images for the fake registry: a prepared one with a further file.

use std::{fs, io::Write, path::Path};

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::environment;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// `sha256:...` of some bytes.
pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// An image under construction.
#[derive(Debug)]
pub struct Image {
    config: Value,
    layers: Vec<Value>,
    blobs: Vec<(String, Vec<u8>)>,
}

impl Image {
    /// The prepared image of this name.
    ///
    /// # Panics
    /// When it is not in the prepared root.
    pub fn of_prepared(name: &str) -> Self {
        let store = environment::prepared_root().join("data/images");
        let read = |path: &Path| fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let blob =
            |digest: &Value| read(&store.join("blobs").join(digest.as_str().unwrap().replace(':', "/")));
        let json = |bytes: Vec<u8>| serde_json::from_slice::<Value>(&bytes).unwrap();
        let index = json(read(&store.join("index.json")));
        let wanted = environment::image(name);
        let is_it =
            |entry: &&Value| entry["annotations"]["org.opencontainers.image.ref.name"] == wanted.as_str();
        let entry = index["manifests"].as_array().unwrap().iter().find(is_it);
        let manifest = json(blob(&entry.unwrap_or_else(|| panic!("no {wanted} in {index}"))["digest"]));
        let layers = manifest["layers"].as_array().unwrap().clone();
        let blobs =
            layers.iter().map(|layer| (layer["digest"].as_str().unwrap().to_owned(), blob(&layer["digest"])));
        Self { config: json(blob(&manifest["config"]["digest"])), blobs: blobs.collect(), layers }
    }

    /// Adds a layer with one file. Returns the digest of its blob, too.
    ///
    /// # Panics
    /// When `path` is not relative.
    #[must_use]
    pub fn file(mut self, path: &str, content: &[u8]) -> (Self, String) {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_data(&mut header, path, content).unwrap();
        let tar = builder.into_inner().unwrap();
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&tar).unwrap();
        let blob = encoder.finish().unwrap();
        let name = digest(&blob);
        self.config["rootfs"]["diff_ids"].as_array_mut().unwrap().push(digest(&tar).into());
        self.layers.push(json!({"mediaType": LAYER, "digest": name, "size": blob.len()}));
        self.blobs.push((name.clone(), blob));
        (self, name)
    }

    /// The manifest, and the blobs that it names.
    ///
    /// # Panics
    /// Never: the configuration is JSON.
    pub fn finish(self) -> (Value, Vec<(String, Vec<u8>)>) {
        let config = serde_json::to_vec(&self.config).unwrap();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": digest(&config), "size": config.len()},
            "layers": self.layers,
        });
        let mut blobs = self.blobs;
        blobs.push((digest(&config), config));
        (manifest, blobs)
    }
}

/// Bytes that no compression makes smaller, and without a pattern that a lost or doubled block could hide in.
pub fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
