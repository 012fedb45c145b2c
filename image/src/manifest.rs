//! Manifests, indexes and configurations: parsing, and refusing what is absurd before anything is downloaded.

use std::collections::BTreeMap;

use oci_spec::image::ImageConfiguration;
use serde::Deserialize;
use serde_json::{Number, Value};

use crate::{Digest, Error, Platform, Result};

#[cfg(test)]
mod tests;

/// Largest manifest or index, as registries themselves limit it.
pub(crate) const MAX_MANIFEST: u64 = 4 << 20;
/// Largest configuration.
pub(crate) const MAX_CONFIG: u64 = 8 << 20;
/// Most layers; Docker's builder stops at 127.
pub(crate) const MAX_LAYERS: usize = 128;
/// Largest layer: 1 TiB.
pub(crate) const MAX_LAYER: u64 = 1 << 40;
/// Largest sum of all layers: 4 TiB.
pub(crate) const MAX_IMAGE: u64 = 4 << 40;

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Types that an image's configuration has, the last ones by mistake of some registry or tool: Docker takes them, too.
const CONFIG_TYPES: [&str; 6] =
    [OCI_CONFIG, DOCKER_CONFIG, "application/octet-stream", "application/json", "text/html", ""];

/// What to ask a registry for.
pub(crate) const ACCEPT: [&str; 4] = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST];

/// A reference to a blob, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// An image manifest, checked against all limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

/// One line of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    pub(crate) descriptor: Descriptor,
    pub(crate) platform: Option<Platform>,
    pub(crate) annotations: BTreeMap<String, String>,
}

/// What a registry may answer to a request for a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Document {
    Manifest(Manifest),
    Index(Vec<IndexEntry>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DocumentJson {
    schema_version: u32,
    media_type: Option<String>,
    config: Option<DescriptorJson>,
    layers: Option<Vec<DescriptorJson>>,
    manifests: Option<Vec<Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DescriptorJson {
    media_type: String,
    digest: String,
    /// Any number at all, so that a negative or fractional one gets a clear answer.
    size: Number,
    #[serde(default)]
    urls: Option<Vec<String>>,
    #[serde(default)]
    platform: Option<PlatformJson>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct PlatformJson {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
}

impl Document {
    /// Parses and checks a manifest or an index. `what` names it in errors.
    pub(crate) fn parse(what: &str, bytes: &[u8]) -> Result<Self> {
        let invalid = |problem: String| Error::Invalid { what: what.to_owned(), problem };
        let version: SchemaVersion = serde_json::from_slice(bytes).map_err(|e| invalid(e.to_string()))?;
        if version.schema_version == 1 {
            return Err(unsupported(
                what,
                "its manifest has the old schema version 1: push it again with a current version of Docker",
            ));
        }
        let json: DocumentJson = serde_json::from_slice(bytes).map_err(|e| invalid(e.to_string()))?;
        if json.schema_version != 2 {
            return Err(invalid(format!("schema version {}", json.schema_version)));
        }
        let media_type = json.media_type.as_deref();
        // A document that could be read both ways is refused: two readers would see two images.
        match (json.manifests, json.config, json.layers) {
            (Some(entries), None, None) if !matches!(media_type, Some(OCI_MANIFEST | DOCKER_MANIFEST)) => {
                Ok(Self::Index(readable(what, entries)?))
            }
            (None, Some(config), Some(layers)) if !matches!(media_type, Some(OCI_INDEX | DOCKER_LIST)) => {
                Ok(Self::Manifest(Manifest::check(what, config, layers)?))
            }
            _ => Err(invalid("neither an image manifest nor an image index".to_owned())),
        }
    }
}

/// The entries of an index that can be read. The others are for somebody else; one that is wanted is missed then.
fn readable(what: &str, entries: Vec<Value>) -> Result<Vec<IndexEntry>> {
    let entries = entries.into_iter().map(|entry| {
        let entry: DescriptorJson = serde_json::from_value(entry)
            .map_err(|e| Error::Invalid { what: what.to_owned(), problem: e.to_string() })?;
        entry.into_entry(what)
    });
    let (mut readable, mut wrong) = (Vec::new(), None);
    for entry in entries {
        match entry {
            Ok(entry) => readable.push(entry),
            Err(error) => wrong = wrong.or(Some(error)),
        }
    }
    match wrong {
        Some(error) if readable.is_empty() => Err(error),
        Some(error) => {
            tracing::warn!("{what}: an entry of its index is left out: {error}");
            Ok(readable)
        }
        None => Ok(readable),
    }
}

/// Just enough to tell the old schema apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SchemaVersion {
    schema_version: u32,
}

impl Manifest {
    fn check(what: &str, config: DescriptorJson, layers: Vec<DescriptorJson>) -> Result<Self> {
        if layers.len() > MAX_LAYERS {
            return Err(too_large(
                format!("number of layers of {what}"),
                layers.len() as u64,
                MAX_LAYERS as u64,
            ));
        }
        if !CONFIG_TYPES.contains(&config.media_type.as_str()) {
            let problem = format!(
                "it is no container image (its configuration is of type {})",
                printable(&config.media_type)
            );
            return Err(unsupported(what, &problem));
        }
        let config = config.into_descriptor(what)?;
        if config.size > MAX_CONFIG {
            return Err(too_large(format!("configuration of {what}"), config.size, MAX_CONFIG));
        }
        let layers: Vec<_> = layers.into_iter().map(|l| l.into_layer(what)).collect::<Result<_>>()?;
        // MAX_LAYERS times MAX_LAYER fits, so the sum can't overflow.
        let total = layers.iter().map(|l| l.size).sum();
        if total > MAX_IMAGE {
            return Err(too_large(format!("sum of the layers of {what}"), total, MAX_IMAGE));
        }
        Ok(Self { config, layers })
    }

    /// Bytes of the configuration and all layers, each counted once.
    pub(crate) fn content_size(&self) -> u64 {
        let blobs: BTreeMap<_, _> = self.layers.iter().map(|l| (&l.digest, l.size)).collect();
        self.config.size + blobs.values().sum::<u64>()
    }

    /// Parses the configuration and checks that it fits this manifest. Returns it with the layers' diff ids.
    pub(crate) fn parse_config(&self, what: &str, bytes: &[u8]) -> Result<(ImageConfiguration, Vec<Digest>)> {
        let invalid =
            |problem: String| Error::Invalid { what: format!("the configuration of {what}"), problem };
        let config: ImageConfiguration = serde_json::from_slice(bytes).map_err(|e| invalid(e.to_string()))?;
        let diff_ids = config.rootfs().diff_ids();
        if diff_ids.len() != self.layers.len() {
            let problem = format!("{} diff ids for {} layers", diff_ids.len(), self.layers.len());
            return Err(invalid(problem));
        }
        let diff_ids = diff_ids
            .iter()
            .map(|id| id.parse().map_err(|e| invalid(format!("diff id: {e}"))))
            .collect::<Result<_>>()?;
        Ok((config, diff_ids))
    }
}

/// The platform a configuration states.
pub(crate) fn platform_of(config: &ImageConfiguration) -> Platform {
    Platform {
        os: config.os().to_string(),
        architecture: config.architecture().to_string(),
        variant: config.variant().clone().filter(|v| !v.is_empty()),
    }
}

impl DescriptorJson {
    fn into_descriptor(self, what: &str) -> Result<Descriptor> {
        let digest = self
            .digest
            .parse()
            .map_err(|e| Error::Invalid { what: what.to_owned(), problem: format!("{e}") })?;
        let size = self.size.as_u64().ok_or_else(|| Error::Invalid {
            what: what.to_owned(),
            problem: format!("{digest} has the size {}", self.size),
        })?;
        Ok(Descriptor { media_type: self.media_type, digest, size })
    }

    fn into_layer(self, what: &str) -> Result<Descriptor> {
        let media_type = self.media_type.as_str();
        let foreign = media_type.contains(".foreign.") || media_type.contains(".nondistributable.");
        if foreign || self.urls.as_ref().is_some_and(|urls| !urls.is_empty()) {
            let problem = "it has a foreign layer, one to be fetched from elsewhere: husk takes layers from the \
                           image's own registry only";
            return Err(unsupported(what, problem));
        }
        let layer_types = [
            "application/vnd.oci.image.layer.v1.tar",
            "application/vnd.oci.image.layer.v1.tar+gzip",
            "application/vnd.oci.image.layer.v1.tar+zstd",
            "application/vnd.docker.image.rootfs.diff.tar",
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
            "application/vnd.docker.image.rootfs.diff.tar.zstd",
        ];
        if !layer_types.contains(&media_type) {
            let problem = format!("a layer has the unknown type {}", printable(media_type));
            return Err(unsupported(what, &problem));
        }
        let layer = self.into_descriptor(what)?;
        if layer.size > MAX_LAYER {
            return Err(too_large(format!("layer {} of {what}", layer.digest), layer.size, MAX_LAYER));
        }
        Ok(layer)
    }

    fn into_entry(mut self, what: &str) -> Result<IndexEntry> {
        let platform = self
            .platform
            .take()
            .map(|p| Platform {
                os: p.os,
                architecture: p.architecture,
                variant: p.variant.filter(|v| !v.is_empty()),
            })
            .filter(|p| !p.os.is_empty() || !p.architecture.is_empty());
        let annotations = self.annotations.take().unwrap_or_default();
        Ok(IndexEntry { descriptor: self.into_descriptor(what)?, platform, annotations })
    }
}

/// Chooses the entry that suits `wanted` best. An entry that does not state its platform is the last choice.
pub(crate) fn choose<'a>(what: &str, entries: &'a [IndexEntry], wanted: &Platform) -> Result<&'a IndexEntry> {
    let rank = |entry: &IndexEntry| match &entry.platform {
        Some(platform) => wanted.suits(platform).map(|rank| rank + 1),
        None => Some(0),
    };
    let usable = |entry: &&IndexEntry| {
        matches!(
            entry.descriptor.media_type.as_str(),
            OCI_MANIFEST | OCI_INDEX | DOCKER_MANIFEST | DOCKER_LIST
        )
    };
    // The first of equals, as the order in an index is the publisher's preference.
    let mut best: Option<(&IndexEntry, u32)> = None;
    for entry in entries.iter().filter(usable) {
        if let Some(rank) = rank(entry).filter(|&rank| best.is_none_or(|(_, other)| rank > other)) {
            best = Some((entry, rank));
        }
    }
    best.map(|(entry, _)| entry).ok_or_else(|| {
        // Attestations pose as images for the platform unknown/unknown.
        let mut offered: Vec<String> = entries
            .iter()
            .filter_map(|entry| entry.platform.as_ref())
            .filter(|platform| platform.os != "unknown")
            .map(|platform| printable(&platform.to_string()))
            .take(50)
            .collect();
        offered.sort();
        offered.dedup();
        Error::NoSuchPlatform { image: what.to_owned(), wanted: wanted.to_string(), offered }
    })
}

/// Refuses an image built for something else than `wanted`. One that does not say is let through.
pub(crate) fn check_platform(what: &str, config: &ImageConfiguration, wanted: &Platform) -> Result<()> {
    let platform = platform_of(config);
    if platform.architecture.is_empty() || wanted.suits(&platform).is_some() {
        return Ok(());
    }
    let offered = vec![printable(&platform.to_string())];
    Err(Error::NoSuchPlatform { image: what.to_owned(), wanted: wanted.to_string(), offered })
}

/// A stranger's text made safe for a terminal: short, and without control characters.
pub(crate) fn printable(text: &str) -> String {
    let mut out: String = text.chars().take(120).map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.chars().count() > 120 {
        out.push_str("...");
    }
    out
}

fn unsupported(image: &str, problem: &str) -> Error {
    Error::Unsupported { image: image.to_owned(), problem: problem.to_owned() }
}

fn too_large(what: String, actual: u64, limit: u64) -> Error {
    Error::TooLarge { what, actual, limit }
}
