//! What a pod's disks wait for, because the host's file system has no room for what the guest writes. The pod's owner writes it into
//! a file of the run directory, which is on another file system.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::paths::Dirs;

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

/// How often whoever is attached to a container looks. A watch of the directory would cost its end a grace period of the kernel's.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Waits for a living pod's disks to wait, or to go on.
#[derive(Debug)]
pub struct Stalls {
    path: PathBuf,
    last: Option<String>,
}

impl Stalls {
    /// Those of the pod whose run directory this is.
    pub fn of(dir: &Path) -> Self {
        Self { path: dir.join(FILE), last: None }
    }

    /// What the pod's disks wait for; `None` when they go on. Returns when that is something else than the last time. Needs a tokio
    /// runtime with time.
    pub async fn next(&mut self) -> Option<String> {
        loop {
            let now = fs::read_to_string(&self.path).ok();
            if now != self.last {
                self.last.clone_from(&now);
                return now;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_disks_wait_for_is_told_until_they_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let mut stalls = Stalls::of(dir.path());
        tell(dir.path(), Some("no room")).unwrap();
        assert_eq!(stalls.next().await.as_deref(), Some("no room"));
        tell(dir.path(), None).unwrap();
        assert_eq!(stalls.next().await, None);
    }
}
