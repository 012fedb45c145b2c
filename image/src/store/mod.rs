//! The content store: an OCI image layout directory.
//!
//! ```text
//! oci-layout            version marker, written last when a store is made
//! index.json            one entry per name (or nameless image); replaced atomically under the lock
//! index.lock            flock for whoever changes index.json or removes blobs
//! blobs/sha256/HEX      immutable, complete, verified, synced to disk
//! ingest/HEX            a download under way or broken off; its flock belongs to who writes it
//! ingest/load-*         directory of a load under way, flocked
//! ingest/lease-*        digests that a running pull or load needs, flocked by it: not to be collected
//! ```
//! A process that dies leaves nothing but files under `ingest/` whose locks are free, and a temporary file beside `index.json`:
//! others resume or remove them.

mod ingest;
mod layout;
mod lease;
mod remove;
mod session;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use husk_base::dirs::make_private_dir;

pub(crate) use ingest::Ingest;
pub(crate) use layout::Record;
pub(crate) use lease::Lease;
pub use remove::RemoveReport;
pub(crate) use session::{Session, Staged};

use crate::digest::is_hex64;
use crate::manifest::{Document, MAX_MANIFEST, Manifest, platform_of};
use crate::{Compression, Digest, Error, Image, ImageSummary, LayerBlob, Reference, Result};

/// A store of images on disk. Cheap to clone and to open; any number of processes may use the same directory.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// Opens the store at `root`, making it if there is none. Directories made are for their owner only.
    ///
    /// # Errors
    /// The directory can't be made or read, or holds something else.
    pub fn open(root: &Path) -> Result<Self> {
        let store = Self { root: root.to_owned() };
        if !store.check_version()? {
            store.create()?;
        }
        Ok(store)
    }

    /// The store's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The image stored under `reference`, if any. A reference with a digest also finds an image of the same
    /// repository that was pulled by a tag.
    ///
    /// # Errors
    /// The store can't be read, or the image is damaged.
    pub fn get(&self, reference: &Reference) -> Result<Option<Image>> {
        let records = self.records()?;
        find_by_reference(&records, reference).map(|record| self.image(record)).transpose()
    }

    /// The image that `name_or_id` means: an id, a name, or an id's beginning, in this order, as Docker does it.
    ///
    /// # Errors
    /// The text can be neither name nor id, the id is ambiguous, the store can't be read, the image is damaged.
    pub fn find(&self, name_or_id: &str) -> Result<Option<Image>> {
        let records = self.records()?;
        match resolve(&records, name_or_id)? {
            Found::Nothing => Ok(None),
            Found::Named(record) => self.image(record).map(Some),
            Found::ById(records) => records.first().map(|record| self.image(record)).transpose(),
        }
    }

    /// All images, in the order they came. Reads one file only.
    ///
    /// # Errors
    /// The store can't be read.
    pub fn list(&self) -> Result<Vec<ImageSummary>> {
        let summary = |record: Record| ImageSummary {
            reference: record.reference,
            manifest_digest: record.manifest_digest,
            config_digest: record.config_digest,
            disk_key: record.disk_key,
            size: record.size,
            created: record.created,
        };
        Ok(self.records()?.into_iter().map(summary).collect())
    }

    /// Reads an image from its blobs, checking that all are there.
    pub(crate) fn image(&self, record: &Record) -> Result<Image> {
        let name = record.display_name();
        let damaged = |problem: String| Error::Damaged { image: name.clone(), problem };
        let manifest = self.manifest(&name, &record.manifest_digest)?;
        let config_bytes = self
            .read_blob(&manifest.config.digest, manifest.config.size)
            .map_err(|problem| damaged(format!("configuration: {problem}")))?;
        let (config, diff_ids) =
            manifest.parse_config(&name, &config_bytes).map_err(|e| damaged(e.to_string()))?;
        let mut layers = Vec::with_capacity(manifest.layers.len());
        for (layer, diff_id) in manifest.layers.iter().zip(diff_ids) {
            let compression = self
                .inspect_layer(&layer.digest, layer.size)
                .map_err(|problem| damaged(format!("layer {}: {problem}", layer.digest)))?;
            layers.push(LayerBlob {
                digest: layer.digest.clone(),
                size: layer.size,
                compression,
                diff_id,
                path: self.blob_path(&layer.digest),
            });
        }
        Ok(Image {
            reference: record.reference.clone(),
            manifest_digest: record.manifest_digest.clone(),
            config_digest: manifest.config.digest.clone(),
            size: manifest.content_size(),
            created: config.created().clone(),
            platform: platform_of(&config),
            config,
            layers,
        })
    }

    /// Reads and checks a stored manifest; `image` names it in errors.
    pub(crate) fn manifest(&self, image: &str, digest: &Digest) -> Result<Manifest> {
        let damaged = |problem: String| Error::Damaged { image: image.to_owned(), problem };
        let size = self.blob_size(digest).ok_or_else(|| damaged("its manifest is missing".to_owned()))?;
        let bytes = self.read_blob(digest, size).map_err(|p| damaged(format!("manifest: {p}")))?;
        match Document::parse(image, &bytes) {
            Ok(Document::Manifest(manifest)) => Ok(manifest),
            Ok(Document::Index(_)) => Err(damaged("its manifest is an index".to_owned())),
            Err(error) => Err(damaged(error.to_string())),
        }
    }

    /// Where the blob is or will be.
    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    pub(crate) fn ingest_dir(&self) -> PathBuf {
        self.root.join("ingest")
    }

    /// Length of a blob, if it is there.
    pub(crate) fn blob_size(&self, digest: &Digest) -> Option<u64> {
        fs::symlink_metadata(self.blob_path(digest)).ok().filter(fs::Metadata::is_file).map(|m| m.len())
    }

    /// Whether the blob is there in full.
    pub(crate) fn has_blob(&self, digest: &Digest, size: u64) -> bool {
        self.blob_size(digest) == Some(size)
    }

    /// Reads a small blob (manifest or configuration) and verifies it. The error is the problem in words.
    pub(crate) fn read_blob(&self, digest: &Digest, size: u64) -> std::result::Result<Vec<u8>, String> {
        if size > MAX_MANIFEST.max(crate::manifest::MAX_CONFIG) {
            return Err(format!("it has {size} bytes"));
        }
        let mut bytes = Vec::new();
        File::open(self.blob_path(digest))
            .and_then(|file| file.take(size + 1).read_to_end(&mut bytes))
            .map_err(|e| e.to_string())?;
        if bytes.len() as u64 != size || Digest::of(&bytes) != *digest {
            return Err("its content has changed".to_owned());
        }
        Ok(bytes)
    }

    /// Checks that a layer is there in full and looks at its first bytes. The error is the problem in words.
    fn inspect_layer(&self, digest: &Digest, size: u64) -> std::result::Result<Compression, String> {
        let mut file = File::open(self.blob_path(digest)).map_err(|e| e.to_string())?;
        let actual = file.metadata().map_err(|e| e.to_string())?.len();
        if actual != size {
            return Err(format!("it has {actual} bytes instead of {size}"));
        }
        let mut first = [0; 4];
        let read = file.read(&mut first).map_err(|e| e.to_string())?;
        Ok(Compression::of_magic(&first[..read]))
    }

    fn create(&self) -> Result<()> {
        make_private_dir(&self.root)?;
        let _lock = self.lock()?;
        if self.check_version()? {
            return Ok(());
        }
        make_private_dir(&self.root.join("blobs/sha256"))?;
        make_private_dir(&self.ingest_dir())?;
        if !self.root.join("index.json").exists() {
            self.write_records(&[])?;
        }
        self.write_version()
    }
}

/// What a name or an id stands for.
pub(crate) enum Found<'a> {
    Nothing,
    /// The one entry of this name.
    Named(&'a Record),
    /// All entries of one image, which was found by its id.
    ById(Vec<&'a Record>),
}

/// Looks `text` up as Docker does: id, then name, then an id's beginning.
pub(crate) fn resolve<'a>(records: &'a [Record], text: &str) -> Result<Found<'a>> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    let full_id = is_hex64(hex);
    let reference = text.parse::<Reference>();
    if !full_id
        && let Ok(reference) = &reference
        && let Some(record) = find_by_reference(records, reference)
    {
        return Ok(Found::Named(record));
    }
    let could_be_id =
        !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase());
    if !could_be_id {
        return reference.map(|_| Found::Nothing).map_err(Error::from);
    }
    let matches: Vec<&Record> = records
        .iter()
        .filter(|r| r.config_digest.hex().starts_with(hex) || r.manifest_digest.hex().starts_with(hex))
        .collect();
    let Some(first) = matches.first() else {
        return Ok(Found::Nothing);
    };
    if matches.iter().any(|r| r.config_digest != first.config_digest) {
        let mut candidates: Vec<String> =
            matches.iter().map(|r| r.config_digest.hex()[..12].to_owned()).collect();
        candidates.sort();
        candidates.dedup();
        candidates.truncate(10);
        return Err(Error::AmbiguousId { prefix: text.to_owned(), candidates });
    }
    Ok(Found::ById(matches))
}

fn find_by_reference<'a>(records: &'a [Record], wanted: &Reference) -> Option<&'a Record> {
    records.iter().find(|record| match (&record.reference, wanted.digest()) {
        (Some(stored), None) => stored == wanted,
        (Some(stored), Some(digest)) => {
            stored.same_repository(wanted)
                && (stored.digest() == Some(digest)
                    || record.manifest_digest == *digest
                    || record.source_digest.as_ref() == Some(digest))
        }
        (None, _) => false,
    })
}
