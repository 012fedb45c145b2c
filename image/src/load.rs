//! Loading archives.
use crate::*;
use std::io::Read;
use std::path::Path;

/// Where an image archive comes from.
#[allow(missing_debug_implementations)]
pub enum Source<'a> {
    /// A tar file (plain or gzip), or a directory in OCI image layout.
    Path(&'a Path),
    /// A tar stream (plain or gzip), such as standard input.
    Reader(&'a mut dyn Read),
}

/// How to load.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Which build to take where the archive has several.
    pub platform: Platform,
}

/// Loads images.
pub fn load(
    store: &Store,
    source: Source<'_>,
    options: &LoadOptions,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<Vec<Image>> {
    let _ = (store, source, options, progress);
    unimplemented!()
}
