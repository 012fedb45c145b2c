//! Docker's archives: `manifest.json` lists images as files of the archive.

use serde::Deserialize;

use super::archive::resolve;
use super::{Loader, StagedImage, synthesise};
use crate::manifest::{MAX_CONFIG, MAX_LAYERS, MAX_MANIFEST, OCI_MANIFEST, printable};
use crate::{Compression, Error, Image, Reference, Result};

/// How Docker writes that an image has no name.
const NO_NAME: &str = "<none>:<none>";
/// Images in one archive.
const MAX_IMAGES: usize = 1000;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ImageJson {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

pub(super) fn load(loader: &mut Loader<'_>) -> Result<Vec<Image>> {
    let staged = loader.contents.required("manifest.json")?;
    let bytes = loader.contents.read(&staged, MAX_MANIFEST)?;
    let images: Vec<ImageJson> = serde_json::from_slice(&bytes)
        .map_err(|e| loader.contents.not_an_archive(&format!("manifest.json: {e}")))?;
    if images.len() > MAX_IMAGES {
        return Err(loader.contents.not_an_archive(&format!("it lists {} images", images.len())));
    }
    let mut loaded = Vec::new();
    for image in images {
        let staged = stage(loader, image)?;
        loaded.extend(loader.keep(staged)?);
    }
    Ok(loaded)
}

fn stage(loader: &mut Loader<'_>, image: ImageJson) -> Result<StagedImage> {
    let names: Vec<Reference> = image
        .repo_tags
        .unwrap_or_default()
        .iter()
        .filter(|tag| *tag != NO_NAME)
        .map(|tag| tag.parse())
        .collect::<std::result::Result<_, _>>()?;
    let what = match names.first() {
        Some(name) => name.familiar(),
        None => format!("image {}", printable(&image.config)),
    };
    let config = file(loader, &image.config)?;
    let config_bytes = loader.contents.read(&config, MAX_CONFIG)?;
    let paths = image.layers.unwrap_or_default();
    if paths.len() > MAX_LAYERS {
        let (actual, limit) = (paths.len() as u64, MAX_LAYERS as u64);
        return Err(Error::TooLarge { what: format!("number of layers of {what}"), actual, limit });
    }
    let mut layers = Vec::with_capacity(paths.len());
    for path in &paths {
        let layer = file(loader, path)?;
        let media_type = match Compression::of_magic(&loader.contents.first_bytes(&layer)?) {
            Compression::None => "application/vnd.oci.image.layer.v1.tar",
            Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        };
        layers.push((layer, media_type));
    }
    let (manifest, manifest_bytes) = synthesise(&what, &config, &layers)?;
    let (_, diff_ids) = manifest.parse_config(&what, &config_bytes)?;
    for ((layer, media_type), diff_id) in layers.iter().zip(diff_ids) {
        // A plain tar is its own diff id; others are checked by whoever decompresses them.
        if media_type.ends_with(".tar") && layer.digest != diff_id {
            let (what, actual) = (format!("a layer of {what}"), layer.digest.clone());
            return Err(Error::DigestMismatch { what, expected: diff_id, actual });
        }
    }
    Ok(StagedImage {
        what,
        names,
        manifest,
        manifest_bytes,
        manifest_media_type: OCI_MANIFEST.to_owned(),
        config,
        layers: layers.into_iter().map(|(layer, _)| layer).collect(),
        source_digest: None,
    })
}

fn file(loader: &mut Loader<'_>, name: &str) -> Result<crate::store::Staged> {
    match resolve("", name) {
        Some(inside) => loader.contents.required(&inside),
        None => Err(loader.contents.not_an_archive(&format!("{} leads out of it", printable(name)))),
    }
}
