//! Unpacks an image inside a VM, once, on to a disk that is then kept and shared read-only.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use husk_base::{dirs::make_private_dir, lock::lock_file};
use husk_protocol::{
    agent::{self, Compression, Empty, Reason, UnpackRequest},
    failure,
};
use husk_vmm::config::{DiskConfig, WhenFull};

use crate::{
    Error, Result,
    cgroup::Cgroup,
    disk,
    paths::{Assets, Dirs},
    rundir::RunDir,
    store::remove_orphans,
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

/// An image's layers, as they are to be unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layers {
    /// The image's name, for errors.
    pub image: String,
    /// Names the unpacked disk: 64 hexadecimal digits that are the same for the same layers, and for no others.
    pub key: String,
    /// The lowest first.
    pub layers: Vec<Layer>,
}

/// A layer: a tar archive, maybe compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The file.
    pub path: PathBuf,
    /// Its length in bytes.
    pub size: u64,
    /// How it is compressed.
    pub compression: Compression,
    /// Expected digest of the uncompressed archive, `sha256:<64 hex>`.
    pub diff_id: String,
}

/// The disk of the layers with this key.
pub fn disk_of(dirs: &Dirs, key: &str) -> PathBuf {
    dirs.disks().join(format!("{key}.img"))
}

/// Removes an unpacked image that no image in the store needs any more. VMs that still use it keep it until they end.
///
/// # Errors
/// When it is there and can't be removed.
pub fn forget(dirs: &Dirs, key: &str) -> Result<()> {
    if !dirs.disks().exists() {
        return Ok(());
    }
    let disk = disk_of(dirs, key);
    let lock_path = disk.with_extension("lock");
    // Whoever is unpacking it right now finishes first.
    let _lock = lock_file(&lock_path)?;
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
    image: &Layers,
    limit_mib: u64,
    timeout: Duration,
    progress: impl Fn(u64),
) -> Result<PathBuf> {
    let disk = disk_of(dirs, &image.key);
    if disk.exists() {
        return Ok(disk);
    }
    make_private_dir(&dirs.disks())?;
    let lock_path = disk.with_extension("lock");
    let waiting = lock_path.clone();
    // Somebody may hold the lock for as long as unpacking takes; signals are still heard meanwhile.
    let _lock = tokio::task::spawn_blocking(move || lock_file(&waiting))
        .await
        .map_err(|error| Error::io("lock", &lock_path)(error.into()))??;
    let _lock_name = Temporary(lock_path);
    if disk.exists() {
        return Ok(disk);
    }
    let unfinished = Temporary(disk.with_extension("tmp"));
    let _ = fs::remove_file(&unfinished.0);
    disk::create(dirs, &unfinished.0, limit_mib, disk::Kind::Unpacked)?;
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

#[expect(clippy::too_many_arguments, reason = "each is needed once, here")]
async fn unpack_some(
    dirs: &Dirs,
    assets: &Assets,
    image: &Layers,
    layers: &[Layer],
    target: &Path,
    limit_mib: u64,
    timeout: Duration,
    progress: impl Fn(u64),
) -> Result<()> {
    let (dir, dead) = RunDir::create(dirs, None)?;
    remove_orphans(dirs, &dead);
    let serial = |index: usize| format!("layer{index}");
    let blobs =
        layers.iter().enumerate().map(|(index, layer)| DiskConfig::new(serial(index), &layer.path, true));
    // An image that does not fit into the host's file system is thrown away: there is nothing to wait for.
    let target = DiskConfig { when_full: WhenFull::Fail, ..DiskConfig::new(TARGET, target, false) };
    let disks = blobs.chain([target]).collect();
    let cgroup = Cgroup::create(dir.id(), MEM_SIZE_MIB)?;
    let plan = Plan {
        vcpus: VCPUS,
        mem_size_mib: MEM_SIZE_MIB,
        disks,
        spare_disks: 0,
        nets: vec![],
        spare_nets: 0,
        filesystem: None,
        shared_memory: false,
        cgroup: cgroup.as_ref().map(|own| own.path().to_owned()),
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
        let (image, reason) = (image.image.clone(), error.to_string());
        return Err(match why {
            Reason::DAMAGED_LAYER => Error::BadLayer { image, reason },
            Reason::DISK_FULL | Reason::OUT_OF_INODES => Error::ImageTooLarge { image, limit_mib, reason },
            _ => error,
        });
    }
    vm.kill().await
}

fn message(disk: String, layer: &Layer) -> agent::Layer {
    agent::Layer {
        disk,
        size: layer.size,
        compression: layer.compression.into(),
        diff_id: layer.diff_id.clone(),
        ..Default::default()
    }
}

fn host_is_full(path: &Path) -> bool {
    nix::sys::statvfs::statvfs(path)
        .is_ok_and(|fs| fs.blocks_available().saturating_mul(fs.fragment_size()) < HOST_FULL_BYTES)
}
