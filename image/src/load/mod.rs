//! Loading images from archives and directories, the ways `docker load` and `skopeo` know.
//!
//! The outer archive is read here, once and in order, since it may be a pipe: all regular files in it go to a staging
//! directory of the store, under numbers instead of names, and are hashed on the way. What the names mean is looked at
//! afterwards. Layers stay as they are.

mod archive;
mod contents;
mod docker;
mod oci;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use serde_json::json;

use crate::manifest::{Document, Manifest, OCI_CONFIG, OCI_MANIFEST, check_platform};
use crate::store::{Lease, Record, Session, Staged};
use crate::{BlobState, Digest, Error, Image, Platform, Progress, Reference, Result, Store, disk_key};

use contents::Contents;

/// Where images come from.
pub enum Source<'a> {
    /// A tar file (plain or gzip), or a directory in OCI image layout.
    Path(&'a Path),
    /// A tar stream (plain or gzip), such as standard input.
    Reader(&'a mut dyn Read),
}

impl std::fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path(path) => f.debug_tuple("Path").field(path).finish(),
            Self::Reader(_) => f.write_str("Reader"),
        }
    }
}

/// How to load.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Which build to take where an image has several.
    pub platform: Platform,
}

/// Loads all images of a docker-archive (`docker save`), an OCI archive, or a directory in OCI image layout. An image
/// with several tags is returned once per tag; one without a tag has no name. `progress` hears of each layer when it
/// is in the store.
///
/// # Errors
/// The source is none of these, is damaged, lacks the platform, or can't be written to the store. Images before the
/// one at fault may have been loaded.
pub fn load(
    store: &Store,
    source: Source<'_>,
    options: &LoadOptions,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<Vec<Image>> {
    let lease = store.lease()?;
    let session = Session::new(store)?;
    let contents = match source {
        Source::Path(path) => {
            let name = path.display().to_string();
            if fs::metadata(path).map_err(Error::io("open", path))?.is_dir() {
                Contents::of_directory(session, path, name)
            } else {
                let mut file = File::open(path).map_err(Error::io("open", path))?;
                archive::read(session, &mut file, name)?
            }
        }
        Source::Reader(reader) => archive::read(session, reader, "standard input".to_owned())?,
    };
    let mut loader = Loader { store, contents, lease, platform: &options.platform, progress };
    // Docker writes both descriptions; the tags are only in its own.
    if loader.contents.file("manifest.json")?.is_some() {
        docker::load(&mut loader)
    } else if loader.contents.file("index.json")?.is_some() {
        oci::load(&mut loader)
    } else {
        Err(loader.contents.not_an_archive(
            "it holds neither manifest.json nor index.json (`docker save` writes such archives, `docker export` does not)",
        ))
    }
}

/// One load under way.
struct Loader<'a> {
    store: &'a Store,
    contents: Contents,
    lease: Lease,
    platform: &'a Platform,
    progress: &'a (dyn Fn(Progress) + Send + Sync),
}

/// An image whose parts are all staged.
struct StagedImage {
    /// Names it in errors.
    what: String,
    names: Vec<Reference>,
    manifest: Manifest,
    manifest_bytes: Vec<u8>,
    manifest_media_type: String,
    config: Staged,
    layers: Vec<Staged>,
    source_digest: Option<Digest>,
}

impl Loader<'_> {
    /// Puts a staged image into the store.
    fn keep(&mut self, image: StagedImage) -> Result<Vec<Image>> {
        let config_bytes = self.contents.read(&image.config, crate::manifest::MAX_CONFIG)?;
        let (config, _) = image.manifest.parse_config(&image.what, &config_bytes)?;
        check_platform(&image.what, &config, self.platform)?;
        for layer in &image.layers {
            let state = match self.store.has_blob(&layer.digest, layer.size) {
                true => BlobState::Exists,
                false => BlobState::Done,
            };
            self.contents.session.keep(&mut self.lease, layer)?;
            let (digest, size) = (layer.digest.clone(), layer.size);
            (self.progress)(Progress { digest, downloaded: size, total: size, state });
        }
        self.contents.session.keep(&mut self.lease, &image.config)?;
        let manifest =
            self.contents.session.stage(&mut image.manifest_bytes.as_slice(), &self.contents.source_name)?;
        self.contents.session.keep(&mut self.lease, &manifest)?;

        let record = Record {
            reference: None,
            manifest_media_type: image.manifest_media_type,
            manifest_digest: manifest.digest,
            manifest_size: manifest.size,
            config_digest: image.config.digest,
            disk_key: disk_key(image.layers.iter().map(|layer| &layer.digest)),
            size: image.manifest.content_size(),
            created: config.created().clone(),
            source_digest: image.source_digest,
        };
        let names =
            if image.names.is_empty() { vec![None] } else { image.names.into_iter().map(Some).collect() };
        names
            .into_iter()
            .map(|reference| {
                let record = Record { reference, ..record.clone() };
                self.store.add_record(record.clone())?;
                self.store.image(&record)
            })
            .collect()
    }
}

/// Writes an OCI manifest for parts that came without one.
fn synthesise(what: &str, config: &Staged, layers: &[(Staged, &str)]) -> Result<(Manifest, Vec<u8>)> {
    let descriptor = |media_type: &str, part: &Staged| {
        json!({
            "mediaType": media_type,
            "digest": part.digest.to_string(),
            "size": part.size,
        })
    };
    let bytes = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(OCI_CONFIG, config),
        "layers": layers.iter().map(|(layer, media_type)| descriptor(media_type, layer)).collect::<Vec<_>>(),
    })
    .to_string()
    .into_bytes();
    match Document::parse(what, &bytes)? {
        Document::Manifest(manifest) => Ok((manifest, bytes)),
        Document::Index(_) => {
            Err(Error::Invalid { what: what.to_owned(), problem: "no manifest could be made".to_owned() })
        }
    }
}
