//! What the store knows of an image.

use std::path::PathBuf;

use oci_spec::image::ImageConfiguration;

use crate::{Defaults, Digest, Platform, Reference, disk_key};

/// How a layer's tar stream is compressed, found by looking at its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// A plain tar file.
    None,
    /// gzip (RFC 1952).
    Gzip,
    /// Zstandard (RFC 8878).
    Zstd,
}

impl Compression {
    /// Judges by a blob's first bytes (four are enough).
    pub fn of_magic(first_bytes: &[u8]) -> Self {
        match first_bytes {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A frame may be preceded by skippable frames, 0x184d2a50 to 0x184d2a5f.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// A layer of an image in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerBlob {
    /// Digest of the blob as stored.
    pub digest: Digest,
    /// Length of the blob in bytes.
    pub size: u64,
    /// How the blob is compressed.
    pub compression: Compression,
    /// Digest of the uncompressed tar, as the image's configuration states it. Not verified here: that takes
    /// decompression, which is left to the guest.
    pub diff_id: Digest,
    /// The blob's file in the store. Immutable while it exists.
    pub path: PathBuf,
}

/// An image in the store whose blobs are all present.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// The name it is stored under; `None` for an image that has no name (loaded without a tag, or its tag moved on).
    pub reference: Option<Reference>,
    /// Digest of the manifest.
    pub manifest_digest: Digest,
    /// Digest of the configuration, which is what Docker calls the image id.
    pub config_digest: Digest,
    /// The configuration as parsed.
    pub config: ImageConfiguration,
    /// Layers, the base first.
    pub layers: Vec<LayerBlob>,
    /// Bytes of all blobs of this image, shared ones included.
    pub size: u64,
    /// When it was built (RFC 3339), if it says so.
    pub created: Option<String>,
    /// What it is built for.
    pub platform: Platform,
}

impl Image {
    /// The name of the unpacked file system, whose hex part serves as a file name.
    pub fn disk_key(&self) -> Digest {
        disk_key(self.layers.iter().map(|layer| &layer.digest))
    }

    /// What the image says of how to run it.
    pub fn defaults(&self) -> Defaults {
        Defaults::from_config(&self.config)
    }
}

/// One line of a list of images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSummary {
    /// The name, if it has one.
    pub reference: Option<Reference>,
    /// Digest of the manifest.
    pub manifest_digest: Digest,
    /// Digest of the configuration: the image id.
    pub config_digest: Digest,
    /// The name of the unpacked disk.
    pub disk_key: Digest,
    /// Bytes of all blobs of this image.
    pub size: u64,
    /// When it was built (RFC 3339), if it says so.
    pub created: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compression_is_judged_by_the_first_bytes() {
        assert_eq!(Compression::of_magic(&[0x1f, 0x8b, 8, 0]), Compression::Gzip);
        assert_eq!(Compression::of_magic(&[0x28, 0xb5, 0x2f, 0xfd]), Compression::Zstd);
        assert_eq!(Compression::of_magic(&[0x5a, 0x2a, 0x4d, 0x18]), Compression::Zstd);
        assert_eq!(Compression::of_magic(b"etc/"), Compression::None);
        assert_eq!(Compression::of_magic(&[0x1f]), Compression::None);
        assert_eq!(Compression::of_magic(&[]), Compression::None);
    }
}
