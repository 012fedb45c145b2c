//! What a user wants to be run.

use std::time::Duration;

use husk_image::Image;

use crate::{network::NetworkOptions, spec::ContainerOptions};

/// What to run, and how.
#[derive(Debug)]
pub struct RunRequest {
    /// The image.
    pub image: Image,
    /// The container.
    pub container: ContainerOptions,
    /// A name that no other running container has.
    pub name: Option<String>,
    /// Its network.
    pub network: NetworkOptions,
    /// Keep the container's standard input open and feed it husk's.
    pub interactive: bool,
    /// Limit of the unpacked image and of the container's writable space, in MiB.
    pub storage_mib: u64,
    /// How long VM and agent may take to answer.
    pub timeout: Duration,
    /// Is told what the user should know, and is no failure.
    pub note: fn(&str),
    /// Ask VMM and guest for their part of the timeline.
    pub timings: bool,
}
