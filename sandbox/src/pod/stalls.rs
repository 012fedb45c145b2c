//! Learns when a disk of a pod waits because the host's file system is full, and when it goes on, and tells it.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use husk_vmm::{client::Client, config::DiskConfig, control::StalledDisk};
use tokio::task::spawn_blocking;

use crate::{rundir::RunDir, stalls, vm};

/// How often the VMM's log is looked at. A watch of it would cost the pod's end a grace period of the kernel's.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Watches over the disks of a pod, until it is dropped. `disks` are those whose files are known. What can't be learned or told is left out:
/// the VM is none the worse for it.
pub(super) async fn watch(dir: Arc<RunDir>, disks: Vec<DiskConfig>) {
    let files: HashMap<String, PathBuf> = disks.into_iter().map(|disk| (disk.id, disk.path)).collect();
    let log = vm::log_path(dir.path());
    let (mut waits, mut seen) = (None, 0);
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        // The VMM says so in its log, which may leave out that it goes on.
        let length = fs::metadata(&log).map_or(0, |metadata| metadata.len());
        if length == seen && waits.is_none() {
            continue;
        }
        seen = length;
        let control = vm::control_path(dir.path());
        let asked = spawn_blocking(move || Client::connect(control)?.state()).await;
        let Ok(Ok(state)) = asked else { continue };
        let now = state.stalled_disks.first().map(|disk| text(disk, &files));
        if now != waits {
            tell(dir.path(), now.as_deref());
            waits = now;
        }
    }
}

fn text(disk: &StalledDisk, files: &HashMap<String, PathBuf>) -> String {
    match files.get(&disk.id) {
        Some(file) => format!("writing to {} waits: {}", file.display(), disk.reason),
        None => format!("writing to the disk {} waits: {}", disk.id, disk.reason),
    }
}

fn tell(dir: &Path, waits: Option<&str>) {
    match waits {
        Some(text) => tracing::warn!("{text}; make room there, or end the container"),
        None => tracing::warn!("there is room again: writing continues"),
    }
    if let Err(error) = stalls::tell(dir, waits) {
        tracing::warn!("cannot tell in {} what a disk waits for: {error}", dir.display());
    }
}

#[cfg(test)]
mod tests {
    use husk_vmm::control::StallReason;

    use super::*;

    #[test]
    fn the_text_names_what_is_full() {
        let disk = StalledDisk { id: "own-0".into(), reason: StallReason::NoSpace };
        let files = HashMap::from([("own-0".to_owned(), PathBuf::from("/data/containers/x/scratch.img"))]);
        let waits = "writing to /data/containers/x/scratch.img waits: no space left on its host file system";
        assert_eq!(text(&disk, &files), waits);
        assert!(text(&disk, &HashMap::new()).contains("to the disk own-0 waits"));
    }
}
