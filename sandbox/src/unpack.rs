//! Unpacks an image inside a VM, once, on to a disk that is then kept and shared read-only.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use husk_image::{Compression, Digest, Image, LayerBlob};
use husk_protocol::{
    agent::{self, Empty, Reason, UnpackRequest},
    failure,
};
use husk_vmm::config::DiskConfig;

use crate::{
    Error, Result, disk,
    paths::{Assets, Dirs, make_private_dir},
    rundir::{RunDir, Wait, lock_file},
    vm::{Plan, Vm},
};

/// The machine has interrupt lines for about twenty devices: images with more layers take more than one boot.
const LAYERS_PER_VM: usize = 12;
const VCPUS: u8 = 2;
const MEM_SIZE_MIB: u32 = 512;
const TARGET: &str = "target";
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);
/// With less than this left on the host, a failed write inside the VM is the host's doing.
const HOST_FULL_BYTES: u64 = 8 << 20;

/// The disk that holds the unpacked image, if there is one.
pub fn base_disk(dirs: &Dirs, image: &Image) -> PathBuf {
    disk_of_chain(dirs, &image.chain_id())
}

/// The image's name for messages: its reference, or its id where it has none.
pub fn name(image: &Image) -> String {
    image.reference.as_ref().map_or_else(|| image.config_digest.to_string(), ToString::to_string)
}

/// The disk of an image by its layers' chain id.
pub fn disk_of_chain(dirs: &Dirs, chain_id: &Digest) -> PathBuf {
    dirs.disks().join(format!("{}.img", chain_id.hex()))
}

/// Removes an unpacked image that no image in the store needs any more. VMs that still use it keep it until they end.
///
/// # Errors
/// When it is there and can't be removed.
pub fn forget(dirs: &Dirs, chain_id: &Digest) -> Result<()> {
    if !dirs.disks().exists() {
        return Ok(());
    }
    let disk = disk_of_chain(dirs, chain_id);
    let lock_path = disk.with_extension("lock");
    // Whoever is unpacking it right now finishes first.
    let _lock = lock_file(&lock_path, Wait::Yes)?;
    let _lock_name = Temporary(lock_path);
    match fs::remove_file(&disk) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", &disk)(error)),
        _ => Ok(()),
    }
}

/// Makes sure that the image is unpacked, and tells where. Two that want the same image share the work: the second
/// waits for the first.
///
/// `progress` is told how many of the layers' bytes have been read.
///
/// # Errors
/// When a layer is damaged or hostile, when the image is larger than `limit_mib`, or when the host's disk is full.
/// Nothing half-made is left.
pub async fn ensure(
    dirs: &Dirs,
    assets: &Assets,
    image: &Image,
    limit_mib: u64,
    timeout: Duration,
    progress: impl Fn(u64),
) -> Result<PathBuf> {
    let disk = base_disk(dirs, image);
    if disk.exists() {
        return Ok(disk);
    }
    make_private_dir(&dirs.disks())?;
    let lock_path = disk.with_extension("lock");
    let waiting = lock_path.clone();
    // Somebody may hold the lock for as long as unpacking takes; signals are still heard meanwhile.
    let _lock = tokio::task::spawn_blocking(move || lock_file(&waiting, Wait::Yes))
        .await
        .map_err(|error| Error::io("lock", &lock_path)(error.into()))??;
    let _lock_name = Temporary(lock_path);
    if disk.exists() {
        return Ok(disk);
    }
    let unfinished = Temporary(disk.with_extension("tmp"));
    let _ = fs::remove_file(&unfinished.0);
    disk::create(dirs, &unfinished.0, limit_mib)?;
    let mut done = 0;
    for layers in image.layers.chunks(LAYERS_PER_VM) {
        let read = |bytes| progress(done + bytes);
        if let Err(error) =
            unpack_some(dirs, assets, image, layers, &unfinished.0, limit_mib, timeout, read).await
        {
            return Err(if host_is_full(&dirs.disks()) {
                Error::HostDiskFull { path: dirs.disks() }
            } else {
                error
            });
        }
        done += layers.iter().map(|layer| layer.size).sum::<u64>();
    }
    progress(done);
    keep(&unfinished.0, &disk)?;
    Ok(disk)
}

/// A file that is removed when dropped, unless it has got another name by then.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Makes the disk durable and read-only before it gets the name by which others find it.
fn keep(unfinished: &Path, disk: &Path) -> Result<()> {
    let file = File::open(unfinished).map_err(Error::io("open", unfinished))?;
    file.set_permissions(fs::Permissions::from_mode(0o400)).map_err(Error::io("change", unfinished))?;
    file.sync_all().map_err(Error::io("write", unfinished))?;
    fs::rename(unfinished, disk).map_err(Error::io("rename", unfinished))?;
    let dir = disk.parent().unwrap_or(Path::new("/"));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(Error::io("write", dir))
}

#[allow(clippy::too_many_arguments)]
async fn unpack_some(
    dirs: &Dirs,
    assets: &Assets,
    image: &Image,
    layers: &[LayerBlob],
    target: &Path,
    limit_mib: u64,
    timeout: Duration,
    progress: impl Fn(u64),
) -> Result<()> {
    let dir = RunDir::create(dirs, None)?;
    let serial = |index: usize| format!("layer{index}");
    let blobs =
        layers.iter().enumerate().map(|(index, layer)| DiskConfig::new(serial(index), &layer.path, true));
    let target = DiskConfig::new(TARGET, target, false);
    let disks = blobs.chain([target]).collect();
    let plan = Plan {
        vcpus: VCPUS,
        mem_size_mib: MEM_SIZE_MIB,
        disks,
        spare_disks: 0,
        nets: vec![],
        spare_nets: 0,
        filesystem: None,
        cgroup: None,
        timeout,
    };
    let mut vm = Vm::start(assets, &dir, plan).await?;

    let request = UnpackRequest {
        layers: layers.iter().enumerate().map(|(index, layer)| message(serial(index), layer)).collect(),
        target_disk: TARGET.into(),
        ..Default::default()
    };
    let result = {
        let guest = vm.guest();
        let unpacking = guest.agent().unpack(ttrpc::context::Context::default(), &request);
        tokio::pin!(unpacking);
        loop {
            tokio::select! {
                result = &mut unpacking => break result,
                () = tokio::time::sleep(PROGRESS_INTERVAL) => {
                    if let Ok(state) = guest.agent().unpack_progress(guest.soon(), &Empty::default()).await {
                        progress(state.read_bytes);
                    }
                }
            }
        }
    };
    if let Err(error) = result {
        let why = failure::reason(&error);
        let error = vm.explain(error).await;
        let (image, reason) = (name(image), error.to_string());
        return Err(match why {
            Reason::DAMAGED_LAYER => Error::BadLayer { image, reason },
            Reason::DISK_FULL | Reason::OUT_OF_INODES => Error::ImageTooLarge { image, limit_mib, reason },
            _ => error,
        });
    }
    vm.kill().await
}

fn message(disk: String, layer: &LayerBlob) -> agent::Layer {
    let compression = match layer.compression {
        Compression::None => agent::Compression::NONE,
        Compression::Gzip => agent::Compression::GZIP,
        Compression::Zstd => agent::Compression::ZSTD,
    };
    agent::Layer {
        disk,
        size: layer.size,
        compression: compression.into(),
        diff_id: layer.diff_id.to_string(),
        ..Default::default()
    }
}

fn host_is_full(path: &Path) -> bool {
    nix::sys::statvfs::statvfs(path)
        .is_ok_and(|fs| fs.blocks_available().saturating_mul(fs.fragment_size()) < HOST_FULL_BYTES)
}
