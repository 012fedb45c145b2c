//! OCI image layouts, as a directory or as a tar file of one (image-spec image-layout.md).

use super::{Loader, StagedImage};
use crate::manifest::{
    DOCKER_LIST, DOCKER_MANIFEST, Descriptor, Document, IndexEntry, MAX_MANIFEST, Manifest, OCI_INDEX,
    OCI_MANIFEST, choose,
};
use crate::store::Staged;
use crate::{Digest, Error, Image, Reference, Result};

const MAX_DEPTH: usize = 3;
/// Where a name may stand, the better place first: containerd's has the full name where the other has the tag only.
const NAMES: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

pub(super) fn load(loader: &mut Loader<'_>) -> Result<Vec<Image>> {
    let staged = loader.contents.required("index.json")?;
    let bytes = loader.contents.read(&staged, MAX_MANIFEST)?;
    let source = loader.contents.source_name.clone();
    let Document::Index(entries) = Document::parse(&source, &bytes)? else {
        return Err(loader.contents.not_an_archive("index.json is no image index"));
    };
    let images: Vec<IndexEntry> = entries.iter().filter(|e| is_image(&e.descriptor)).cloned().collect();
    if images.is_empty() {
        return Err(loader.contents.not_an_archive("its index lists no images"));
    }
    // Builds of one image may be listed side by side; those for other platforms are left out.
    let platform = loader.platform;
    let suitable: Vec<IndexEntry> = images
        .iter()
        .filter(|e| e.platform.as_ref().is_none_or(|p| platform.suits(p).is_some()))
        .cloned()
        .collect();
    if suitable.is_empty() {
        choose(&source, &images, platform)?;
    }
    let (mut loaded, mut other) = (Vec::new(), None);
    for entry in suitable {
        match stage(loader, &entry) {
            Ok(staged) => loaded.extend(loader.keep(staged)?),
            // A signature, or what else lies beside images.
            Err(error @ Error::Unsupported { .. }) => {
                tracing::warn!("left out: {error}");
                other = other.or(Some(error));
            }
            Err(error) => return Err(error),
        }
    }
    match other {
        Some(error) if loaded.is_empty() => Err(error),
        _ => Ok(loaded),
    }
}

fn is_image(descriptor: &Descriptor) -> bool {
    matches!(descriptor.media_type.as_str(), OCI_MANIFEST | OCI_INDEX | DOCKER_MANIFEST | DOCKER_LIST)
}

fn name_of(entry: &IndexEntry) -> Option<Reference> {
    NAMES.iter().find_map(|key| entry.annotations.get(*key)?.parse().ok())
}

fn stage(loader: &mut Loader<'_>, entry: &IndexEntry) -> Result<StagedImage> {
    let name = name_of(entry);
    let what = name.as_ref().map_or_else(|| entry.descriptor.digest.to_string(), Reference::familiar);
    let (manifest, manifest_bytes, chosen, source_digest) = find_manifest(loader, &what, entry)?;
    let config = blob(loader, &what, &manifest.config)?;
    let layers = manifest.layers.iter().map(|l| blob(loader, &what, l)).collect::<Result<_>>()?;
    Ok(StagedImage {
        what,
        names: name.into_iter().collect(),
        manifest,
        manifest_bytes,
        manifest_media_type: chosen,
        config,
        layers,
        source_digest,
    })
}

/// Follows indexes down to a manifest. Returns it with its bytes, its media type, and the index's digest.
fn find_manifest(
    loader: &mut Loader<'_>,
    what: &str,
    entry: &IndexEntry,
) -> Result<(Manifest, Vec<u8>, String, Option<Digest>)> {
    let mut descriptor = entry.descriptor.clone();
    let mut source_digest = None;
    for _ in 0..MAX_DEPTH {
        let staged = blob(loader, what, &descriptor)?;
        let bytes = loader.contents.read(&staged, MAX_MANIFEST)?;
        match Document::parse(what, &bytes)? {
            Document::Manifest(manifest) => {
                return Ok((manifest, bytes, descriptor.media_type, source_digest));
            }
            Document::Index(entries) => {
                source_digest.get_or_insert(descriptor.digest);
                descriptor = choose(what, &entries, loader.platform)?.descriptor.clone();
            }
        }
    }
    Err(Error::Invalid {
        what: what.to_owned(),
        problem: "its index points to indexes without end".to_owned(),
    })
}

/// A blob of the layout, verified.
fn blob(loader: &mut Loader<'_>, what: &str, wanted: &Descriptor) -> Result<Staged> {
    let staged = loader.contents.required(&format!("blobs/sha256/{}", wanted.digest.hex()))?;
    let part = || format!("blob {} of {what}", wanted.digest);
    if staged.digest != wanted.digest {
        let (expected, actual) = (wanted.digest.clone(), staged.digest);
        return Err(Error::DigestMismatch { what: part(), expected, actual });
    }
    if staged.size != wanted.size {
        return Err(Error::SizeMismatch { what: part(), expected: wanted.size, actual: staged.size });
    }
    Ok(staged)
}
