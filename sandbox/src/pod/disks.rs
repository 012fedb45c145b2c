//! Disks of containers, which join the running VM.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use husk_protocol::agent::{self, RootFs};
use husk_vmm::{client::Client, config::DiskConfig, rate_limit::RateLimit};
use tokio::task::spawn_blocking;

use super::{DiskSource, ImageRoot, spec::Block};
use crate::{Error, Result};

/// Options of mounts of image files on a host, which mean nothing for a disk.
const HOST_OPTIONS: [&str; 1] = ["loop"];

/// A VM's slots for disks.
#[derive(Debug)]
pub(super) struct Disks {
    control: PathBuf,
    /// How many there have been: each gets a serial of its own.
    count: AtomicU32,
    /// The serials of an image's and a container's disk that the VM has had from its start, by the container's id.
    at_start: Mutex<HashMap<String, [String; 2]>>,
}

impl Disks {
    /// Those of the VM whose control socket this is.
    pub(super) fn new(control: PathBuf) -> Self {
        Self { control, count: AtomicU32::new(0), at_start: Mutex::default() }
    }

    /// The disks that a VM has from its start.
    pub(super) fn at_start(&self, roots: &[ImageRoot]) -> Vec<DiskConfig> {
        let mut at_start = lock(&self.at_start);
        let mut disks = Vec::with_capacity(2 * roots.len());
        for root in roots {
            let [base, scratch] = [self.serial(), self.serial()];
            disks.push(DiskConfig::new(base.clone(), root.base.clone(), true));
            disks.push(DiskConfig::new(scratch.clone(), root.scratch.clone(), false));
            at_start.insert(root.container_id.clone(), [base, scratch]);
        }
        disks
    }

    /// Attaches the disks of an image and a container, unless the VM has had them from its start; returns what the agent receives,
    /// and their serials.
    pub(super) async fn attach_image(&self, root: ImageRoot) -> Result<(RootFs, Vec<String>)> {
        let had = lock(&self.at_start).remove(&root.container_id);
        let (devices, [base_disk, scratch_disk]) = match had {
            Some(serials) => (Vec::new(), serials),
            None => {
                let (base_device, base) = self.attach(root.base, true).await?;
                let scratch = self.attach(root.scratch, false).await;
                if scratch.is_err() {
                    // The reason counts.
                    let _ = self.detach(base.clone()).await;
                }
                let (scratch_device, scratch) = scratch?;
                (vec![base_device, scratch_device], [base, scratch])
            }
        };
        // A disk from the start has no slot that it could leave.
        let serials =
            if devices.is_empty() { Vec::new() } else { vec![base_disk.clone(), scratch_disk.clone()] };
        Ok((RootFs { base_disk, scratch_disk, devices, ..Default::default() }, serials))
    }

    fn serial(&self) -> String {
        format!("disk-{}", self.count.fetch_add(1, Ordering::Relaxed))
    }

    /// Attaches a root's disk; returns what the agent is to be told of it, and its serial.
    pub(super) async fn attach_root(&self, source: DiskSource) -> Result<(RootFs, String)> {
        let DiskSource { path, fs_type, mut options, read_only } = source;
        let (device, serial) = self.attach(path, read_only).await?;
        options.retain(|option| !HOST_OPTIONS.contains(&option.as_str()));
        if read_only && !options.iter().any(|option| option == "ro") {
            options.push("ro".into());
        }
        let disk = agent::Disk { serial: serial.clone(), fs_type, options, ..Default::default() };
        Ok((RootFs { disk: Some(disk).into(), devices: vec![device], ..Default::default() }, serial))
    }

    /// Attaches a block device of the host; returns its place, and what the agent is to be told of it.
    pub(super) async fn attach_block(&self, block: Block) -> Result<(String, agent::BlockDevice)> {
        let Block { path, major, minor, read_only, mode, uid, gid } = block;
        let (place, serial) = self.attach(node_of(major, minor)?, read_only).await?;
        let path = path.display().to_string();
        Ok((place, agent::BlockDevice { serial, path, mode, uid, gid, ..Default::default() }))
    }

    /// Attaches what is at `path`; returns its place and its serial.
    async fn attach(&self, path: PathBuf, read_only: bool) -> Result<(String, String)> {
        let serial = self.serial();
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
        Ok((attached.await?.device, serial))
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

/// What is guarded is whole even if a thread has panicked with it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
