//! The directory that a pod shares with its guest, and what is mounted there.
//!
//! It is a tmpfs that holds nothing but mount points, and that the guest can't change. It exists in a mount namespace of its own
//! (see [`namespace`]), so the host's own mounts never change, and all of it is gone when the last process that sees it is.
//!
//! What is mounted below it is slave to the host's mounts (mount_namespaces(7)): what the host mounts in a source later
//! appears, and what is unmounted here stays where it was on the host.

mod namespace;
mod source;
mod stacked;
#[cfg(test)]
mod tests;
mod view;
mod volumes;

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use husk_base::dirs::make_dir_inside;
use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, mkdirat, open, openat, unlinkat},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
        UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount,
        open_tree, unmount,
    },
};

use self::{
    namespace::Namespace,
    source::{Kind, Source},
    volumes::{VOLUMES, Volumes},
};
pub use view::RootView;

use super::{FsMount, disks::blocking, spec::Bind};
use crate::{
    Error, Result,
    filesystem::{Server, ServerPlan},
    rundir::RunDir,
};

/// Where the directory is, in a sandbox's directory.
const SHARED: &str = "shared";
/// Memory and files that mount points may take.
const LIMITS: [(&str, &str); 3] = [("size", "16m"), ("nr_inodes", "65536"), ("mode", "0755")];
/// Mounts over one another on one mount point.
const MAX_STACKED: usize = 128;

/// A container's root.
#[derive(Debug)]
pub(super) enum Tree {
    /// A directory of the host.
    Directory(PathBuf),
    /// Mounts, one over the other.
    Mounts(Vec<FsMount>),
}

/// What is mounted as a root.
#[derive(Debug)]
enum Root {
    Source(Source),
    Mounts(Vec<FsMount>),
}

/// A shared directory.
#[derive(Debug)]
pub(super) struct Share {
    namespace: Namespace,
    path: PathBuf,
    /// The tmpfs, writable.
    points: Arc<OwnedFd>,
    volumes: Arc<Mutex<Volumes>>,
}

/// Where the guest finds what was shared for a container, below the directory.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Its root, if it is shared.
    pub(super) root: Option<String>,
    /// The sources of its bind mounts, in their order.
    pub(super) binds: Vec<String>,
}

impl Share {
    /// Makes the directory of the sandbox in `dir`.
    pub(super) async fn start(dir: &RunDir) -> Result<Self> {
        let path = dir.join(SHARED);
        make_dir_inside(&path)?;
        let namespace = Namespace::start().await?;
        let target = path.clone();
        let points = namespace.run(move || mount_points(&target)).await??;
        Ok(Self { namespace, path, points: Arc::new(points), volumes: Arc::default() })
    }

    /// How to start the directory's server, and the connection with it that the VMM gets.
    pub(super) fn plan(
        &self,
        binary: &Path,
        dir: &RunDir,
        cgroup: Option<&Path>,
    ) -> Result<(ServerPlan, OwnedFd)> {
        ServerPlan::new(binary, &self.path, dir, cgroup)
    }

    /// Starts the server.
    pub(super) async fn serve(&self, plan: ServerPlan) -> Result<Server> {
        let runtime = tokio::runtime::Handle::current();
        let spawn = move || {
            let _here = runtime.enter();
            plan.spawn()
        };
        self.namespace.run(spawn).await?
    }

    /// Shares a container's root and the sources of its mounts.
    pub(super) async fn add(&self, id: &str, root: Option<Tree>, binds: Vec<Bind>) -> Result<Places> {
        let shared_dir = root.is_some().then(|| format!("{id}/rootfs"));
        // Where the host's own mounts are.
        let sources = blocking(move || {
            let root = root.map(Root::open).transpose()?;
            let binds = binds.iter().map(Source::of_bind).collect::<Result<Vec<_>>>()?;
            Ok((root, binds))
        });
        let (root, binds) = sources.await?;
        let (points, path, id) = (self.points.clone(), self.path.clone(), id.to_owned());
        let volumes = self.volumes.clone();
        let add = move || add(&points, &path, &id, root, &binds, &mut lock(&volumes));
        let binds = self.namespace.run(add).await??;
        Ok(Places { root: shared_dir, binds })
    }

    /// Takes a container's root and mounts away; nothing is there of one that was never added.
    pub(super) async fn remove(&self, id: &str) -> Result<()> {
        let (points, path, id) = (self.points.clone(), self.path.clone(), id.to_owned());
        let volumes = self.volumes.clone();
        let remove = move || {
            let unused = lock(&volumes).remove(&id);
            let removed = remove(&points, &path, &id);
            unused.iter().fold(removed, |result, place| result.and(remove_point(&points, &path, place)))
        };
        self.namespace.run(remove).await?
    }

    /// Takes everything away.
    pub(super) async fn close(&self) -> Result<()> {
        let path = self.path.clone();
        self.namespace.run(move || unmount_all(&path)).await?
    }
}

impl Root {
    fn open(tree: Tree) -> Result<Self> {
        match tree {
            Tree::Directory(path) => Source::of_root(&path).map(Self::Source),
            Tree::Mounts(mounts) => match mounts.as_slice() {
                [bind] if stacked::is_bind(bind) => {
                    Source::of_root(Path::new(&bind.source)).map(Self::Source)
                }
                _ => Ok(Self::Mounts(mounts)),
            },
        }
    }

    /// Mounts it on `path`, in the mount namespace of this thread.
    fn mount(self, path: &Path) -> Result<()> {
        match self {
            Self::Source(source) => {
                attach(source.tree.as_fd(), path).map_err(|error| Error::io("mount on", path)(error.into()))
            }
            Self::Mounts(mounts) => stacked::mount_all(&mounts, path),
        }
    }
}

/// Mounts the directory: a tmpfs, and over it the same again, in which nothing can be made. Returns the former.
fn mount_points(path: &Path) -> Result<OwnedFd> {
    let failed = |source: Errno| Error::io("mount a directory to share on", path)(source.into());
    let tmpfs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed)?;
    for (key, value) in LIMITS {
        fsconfig_set_string(tmpfs.as_fd(), key, value).map_err(failed)?;
    }
    fsconfig_create(tmpfs.as_fd()).map_err(failed)?;
    let harmless = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let writable = fsmount(tmpfs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, harmless).map_err(failed)?;
    attach(writable.as_fd(), path).map_err(failed)?;
    let points =
        open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    mkdirat(&points, VOLUMES, Mode::from_raw_mode(0o755)).map_err(failed)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let shown = open_tree(CWD, path, flags).map_err(failed)?;
    source::set_attributes(shown.as_fd(), libc::MOUNT_ATTR_RDONLY, 0, false).map_err(failed)?;
    attach(shown.as_fd(), path).map_err(failed)?;
    // Its server sees what is mounted in it.
    mount_change(path, MountPropagationFlags::SHARED).map_err(failed)?;
    Ok(points)
}

/// Attaches a detached mount on `path`.
fn attach(mount: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
    move_mount(mount, c"", CWD, path, flags)
}

/// Returns the places of `binds`.
fn add(
    points: &OwnedFd,
    shared: &Path,
    id: &str,
    root: Option<Root>,
    binds: &[Source],
    volumes: &mut Volumes,
) -> Result<Vec<String>> {
    let here = shared.join(id);
    let failed = |what: &'static str, path: PathBuf| move |error: Errno| Error::io(what, path)(error.into());
    let make_dir = |name: &str| {
        mkdirat(points, name, Mode::from_raw_mode(0o755)).map_err(failed("create", shared.join(name)))
    };
    make_dir(id)?;
    make_dir(&format!("{id}/mounts"))?;
    if let Some(root) = root {
        make_dir(&format!("{id}/rootfs"))?;
        let path = here.join("rootfs");
        root.mount(&path)?;
    }
    let mut places = Vec::with_capacity(binds.len());
    for (index, source) in binds.iter().enumerate() {
        let (name, is_new) = match source.kind {
            Kind::Directory(identity) => volumes.add(id, identity, source.read_only),
            Kind::File => (format!("{id}/mounts/{index}"), true),
        };
        places.push(name.clone());
        if !is_new {
            continue;
        }
        let path = shared.join(&name);
        match source.kind {
            Kind::Directory(_) => make_dir(&name)?,
            Kind::File => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                openat(points, &name, flags, Mode::from_raw_mode(0o600))
                    .map_err(failed("create", path.clone()))?;
            }
        }
        attach(source.tree.as_fd(), &path).map_err(failed("mount on", path))?;
    }
    Ok(places)
}

/// Only mount points are removed, one by one: what is mounted somewhere makes that fail.
fn remove(points: &OwnedFd, shared: &Path, id: &str) -> Result<()> {
    let here = shared.join(id);
    if !here.exists() {
        return Ok(());
    }
    let mounts = std::fs::read_dir(here.join("mounts")).map_err(Error::io("read", here.join("mounts")))?;
    let names = mounts.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let names: Vec<String> = names.map(|name| format!("{id}/mounts/{name}")).collect();
    for name in names.into_iter().chain([format!("{id}/rootfs"), format!("{id}/mounts"), id.to_owned()]) {
        remove_point(points, shared, &name)?;
    }
    Ok(())
}

fn remove_point(points: &OwnedFd, shared: &Path, name: &str) -> Result<()> {
    let path = shared.join(name);
    unmount_all(&path)?;
    let removed = match unlinkat(points, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOTDIR) => unlinkat(points, name, AtFlags::empty()),
        removed => removed,
    };
    match removed {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(Error::io("remove", path)(error.into())),
    }
}

/// What is guarded is whole even if a thread has panicked with it.
fn lock(volumes: &Mutex<Volumes>) -> MutexGuard<'_, Volumes> {
    volumes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Unmounts whatever is mounted on `path`, with all below it.
fn unmount_all(path: &Path) -> Result<()> {
    for _ in 0..MAX_STACKED {
        match unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            // Nothing is mounted there, or there is nothing.
            Err(Errno::INVAL | Errno::NOENT) => break,
            Err(error) => return Err(Error::io("unmount", path)(error.into())),
        }
    }
    Ok(())
}
