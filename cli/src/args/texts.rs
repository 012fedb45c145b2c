//! Options of what husk writes about itself: completion, man.

use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct CompletionArgs {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ManArgs {
    /// The directory for the pages; made if it is missing
    pub(crate) dir: PathBuf,
}
