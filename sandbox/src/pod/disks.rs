//! Disks of containers, which join the running VM.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use husk_protocol::agent;
use husk_vmm::{client::Client, config::DiskConfig, rate_limit::RateLimit};
use tokio::task::spawn_blocking;

use super::{DiskSource, ImageRoot, spec::Block};
use crate::{Error, Result, guest::Guest};

/// Options of mounts of image files on a host, which mean nothing for a disk.
const HOST_OPTIONS: [&str; 1] = ["loop"];

/// A VM's slots for disks.
#[derive(Debug)]
pub(super) struct Disks {
    control: PathBuf,
    guest: Arc<Guest>,
    /// How many there have been: each gets a serial of its own.
    count: AtomicU32,
    at_start: Mutex<AtStart>,
}

/// The disks that a VM has from its start: the serials of an image's and of a container's own, by the container's id.
#[derive(Debug, Default)]
pub(super) struct AtStart(HashMap<String, [String; 2]>);

impl AtStart {
    /// Those of these roots, and how the VMM gets them.
    pub(super) fn of(roots: &[ImageRoot]) -> (Self, Vec<DiskConfig>) {
        let mut disks = Vec::with_capacity(2 * roots.len());
        let mut serials = HashMap::new();
        for (index, root) in roots.iter().enumerate() {
            let [base, own] = [format!("base-{index}"), format!("own-{index}")];
            disks.push(DiskConfig::new(base.clone(), root.base.clone(), true));
            disks.push(DiskConfig::new(own.clone(), root.scratch.clone(), false));
            serials.insert(root.container_id.clone(), [base, own]);
        }
        (Self(serials), disks)
    }
}

impl Disks {
    /// Those of the VM whose control socket this is, and in which `guest` runs.
    pub(super) fn new(control: PathBuf, guest: Arc<Guest>, at_start: AtStart) -> Self {
        Self { control, guest, count: AtomicU32::new(0), at_start: Mutex::new(at_start) }
    }

    /// Attaches the disks of an image and a container, unless the VM has had them from its start; returns their description for the
    /// agent, and the serials of those that were attached.
    pub(super) async fn attach_image(&self, root: ImageRoot) -> Result<(agent::ImageRoot, Vec<String>)> {
        let had = self.at_start.lock().unwrap_or_else(PoisonError::into_inner).0.remove(&root.container_id);
        let (serials, attached) = match had {
            // One from the start has no slot that it could leave.
            Some(serials) => (serials, Vec::new()),
            None => {
                let base = self.attach(root.base, true).await?;
                let scratch = match self.attach(root.scratch, false).await {
                    Ok(scratch) => scratch,
                    Err(error) => {
                        // The reason counts.
                        let _ = self.detach(base).await;
                        return Err(error);
                    }
                };
                ([base.clone(), scratch.clone()], vec![base, scratch])
            }
        };
        let [base_disk, scratch_disk] = serials;
        Ok((agent::ImageRoot { base_disk, scratch_disk, ..Default::default() }, attached))
    }

    /// Attaches a root's disk; returns its description for the agent.
    pub(super) async fn attach_root(&self, source: DiskSource) -> Result<agent::Disk> {
        let DiskSource { path, fs_type, mut options, read_only } = source;
        let serial = self.attach(path, read_only).await?;
        options.retain(|option| !HOST_OPTIONS.contains(&option.as_str()));
        if read_only && !options.iter().any(|option| option == "ro") {
            options.push("ro".into());
        }
        Ok(agent::Disk { serial, fs_type, options, ..Default::default() })
    }

    /// Attaches a block device of the host; returns its description for the agent.
    pub(super) async fn attach_block(&self, block: Block) -> Result<agent::BlockDevice> {
        let Block { path, major, minor, read_only, mode, uid, gid } = block;
        let serial = self.attach(node_of(major, minor)?, read_only).await?;
        let path = path.display().to_string();
        Ok(agent::BlockDevice { serial, path, mode, uid, gid, ..Default::default() })
    }

    /// Attaches what is at `path`, and makes it known to the guest; returns its serial.
    async fn attach(&self, path: PathBuf, read_only: bool) -> Result<String> {
        let serial = format!("disk-{}", self.count.fetch_add(1, Ordering::Relaxed));
        let (control, id) = (self.control.clone(), serial.clone());
        let attached = blocking(move || {
            let disk: File = OpenOptions::new()
                .read(true)
                .write(!read_only)
                .open(&path)
                .map_err(Error::io("open", &path))?;
            let failed = |source| Error::AttachDisk { path: path.clone(), source };
            let mut client = Client::connect(control).map_err(failed)?;
            client.attach_open_disk(&id, disk.as_fd(), read_only, RateLimit::default()).map_err(failed)
        });
        if let Err(error) = self.guest.plug_in(vec![attached.await?.device]).await {
            // The reason counts.
            let _ = self.detach(serial).await;
            return Err(error.into());
        }
        Ok(serial)
    }

    /// Detaches a disk.
    pub(super) async fn detach(&self, serial: String) -> Result<()> {
        let control = self.control.clone();
        blocking(move || {
            let failed = |source| Error::DetachDisk { source };
            Client::connect(control).map_err(failed)?.detach_disk(&serial).map_err(failed)
        })
        .await
    }
}

/// The host's node of a block device, by its number (the kernel's sysfs-block).
fn node_of(major: i64, minor: i64) -> Result<PathBuf> {
    let path = PathBuf::from(format!("/sys/dev/block/{major}:{minor}/uevent"));
    let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    let name = text.lines().find_map(|line| line.strip_prefix("DEVNAME="));
    let name = name
        .ok_or_else(|| Error::io("find a block device's name in", &path)(io::ErrorKind::NotFound.into()))?;
    Ok(Path::new("/dev").join(name))
}

/// Runs what waits for the VMM or a file system on a thread of its own.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}
