//! OCI images on the host: references, a content store in OCI image layout, a registry client, and loading of
//! archives. Layers are stored as they come and are never unpacked here: that happens inside a guest.
//!
//! Operations that talk to the network are `async` ([`pull`]); all others are plain blocking calls.

mod config;
mod digest;
mod error;
mod image;
mod load;
mod manifest;
mod platform;
mod progress;
mod pull;
mod reference;
mod store;

pub use config::{Defaults, ExposedPort, Transport};
pub use digest::{Digest, DigestError, disk_key};
pub use error::{Error, Result};
pub use image::{Compression, Image, ImageSummary, LayerBlob};
pub use load::{LoadOptions, Source, load};
pub use oci_spec::image::ImageConfiguration;
pub use platform::{Platform, PlatformError};
pub use progress::{BlobState, Progress};
pub use pull::{PullOptions, pull};
pub use reference::{Reference, ReferenceError};
pub use store::{RemoveReport, Store};
