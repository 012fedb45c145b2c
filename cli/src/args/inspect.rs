//! Options of the descriptions of things.

use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// json, or a Go template
    #[arg(short, long)]
    pub(crate) format: Option<String>,
    /// Say what containers take on the disk, too
    #[arg(short, long)]
    pub(crate) size: bool,
    /// What is described [default: whatever has the name]
    #[arg(long, value_enum, value_name = "TYPE")]
    pub(crate) r#type: Option<ObjectType>,
    /// Names or ids
    #[arg(required = true, value_name = "NAME|ID")]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct InspectContainersArgs {
    /// json, or a Go template
    #[arg(short, long)]
    pub(crate) format: Option<String>,
    /// Say what containers take on the disk, too
    #[arg(short, long)]
    pub(crate) size: bool,
    /// Names or ids of containers
    #[arg(required = true, value_name = "CONTAINER")]
    pub(crate) containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct InspectImagesArgs {
    /// json, or a Go template
    #[arg(short, long)]
    pub(crate) format: Option<String>,
    /// Names or ids of images
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
}

/// What can be described.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ObjectType {
    Container,
    Image,
    Network,
}
