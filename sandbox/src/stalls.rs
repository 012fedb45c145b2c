//! What a pod's disks wait for, because the host's file system has no room for what the guest writes. The pod's owner writes it into
//! a file of the run directory, which is on another file system.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{paths::Dirs, watch::Watch};

const FILE: &str = "stalled";

/// What the disks of the living pod `id` wait for, if they do.
pub fn of(dirs: &Dirs, id: &str) -> Option<String> {
    fs::read_to_string(dirs.run.join(id).join(FILE)).ok()
}

/// Tells what the disks of the pod wait for whose run directory this is, or that they go on.
pub(crate) fn tell(dir: &Path, waits: Option<&str>) -> io::Result<()> {
    let path = dir.join(FILE);
    let Some(text) = waits else { return fs::remove_file(path) };
    // Whoever waits for the file finds it complete.
    let new = dir.join("stalled.new");
    fs::write(&new, text)?;
    fs::rename(new, path)
}

/// Waits for a living pod's disks to wait, or to go on.
#[derive(Debug)]
pub struct Stalls {
    changes: Watch,
    path: PathBuf,
    last: Option<String>,
}

impl Stalls {
    /// From now on, nothing is missed. Needs a tokio runtime with I/O.
    ///
    /// # Errors
    /// When the pod's run directory can't be watched.
    pub fn begin(dir: &Path) -> io::Result<Self> {
        Ok(Self { changes: Watch::begin(dir)?, path: dir.join(FILE), last: None })
    }

    /// What the pod's disks wait for; `None` when they go on. Returns when that is something else than the last time.
    ///
    /// # Errors
    /// When the kernel does not say what happens to files.
    pub async fn next(&mut self) -> io::Result<Option<String>> {
        loop {
            let now = fs::read_to_string(&self.path).ok();
            if now != self.last {
                self.last.clone_from(&now);
                return Ok(now);
            }
            self.changes.changed().await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_disks_wait_for_is_told_until_they_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let mut stalls = Stalls::begin(dir.path()).unwrap();
        tell(dir.path(), Some("no room")).unwrap();
        assert_eq!(stalls.next().await.unwrap().as_deref(), Some("no room"));
        tell(dir.path(), None).unwrap();
        assert_eq!(stalls.next().await.unwrap(), None);
    }
}
