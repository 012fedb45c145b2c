//! Cleaning up after what was killed.

use crate::{Result, network, paths::Dirs, rundir, store};

/// Cleans up what killed pods and containers left: directories, cgroups, names, networks. What lives is left alone.
///
/// # Errors
/// When that is not possible.
pub async fn after_kills(dirs: &Dirs) -> Result<()> {
    store::remove_orphans(dirs, &rundir::clean_up(dirs)?);
    network::repair(dirs).await
}
