//! Namespaces that a path keeps alive, by a bind mount on a file, as ip-netns(8) does it.

use std::{
    fs::{self, File},
    io,
    os::fd::AsRawFd,
    path::Path,
    thread,
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

use super::{Error, Netns, Result};

/// How many mounts may lie upon each other on one file.
const MAX_STACKED: usize = 16;

/// Makes an empty network namespace, its loopback up, and binds it to `path`, which must not be there yet. Killed at any
/// moment, it leaves at most what [`remove`] removes.
///
/// # Errors
/// [`Error::Create`] when the path exists, its folder does not, or we may not.
pub fn create(path: &Path) -> Result<Netns> {
    let failed = |source| Error::Create { path: path.into(), source };
    File::create_new(path).map_err(failed)?;
    let bound = thread::scope(|scope| {
        thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, || bind_new(path))
            .map_err(failed)?
            .join()
            .map_err(|_| Error::Panicked { path: path.into() })?
            .map_err(failed)
    });
    bound.and_then(|()| Netns::open(path)).inspect_err(|_| {
        // The first error tells more than that of cleaning up after it.
        let _ = remove(path);
    })
}

/// Removes the name of a namespace; the namespace itself goes with its last user. A name that is already gone, or was
/// never bound to anything, is no error.
///
/// # Errors
/// [`Error::Remove`] when it can't be unmounted or unlinked.
pub fn remove(path: &Path) -> Result<()> {
    let failed = |source| Error::Remove { path: path.into(), source };
    for _ in 0..MAX_STACKED {
        match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            // Not a mount point (any more).
            Err(Errno::EINVAL) => break,
            Err(Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(failed(errno.into())),
        }
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
        _ => Ok(()),
    }
}

/// Removes the names in `dir` whose owner is dead: `alive` is asked by file name. A folder that is not there has none.
///
/// # Errors
/// The first failure; the others are tried all the same.
pub fn repair(dir: &Path, alive: impl Fn(&str) -> bool) -> Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(Error::Remove { path: dir.into(), source }),
    };
    let mut result = Ok(());
    for entry in entries.flatten() {
        if !entry.file_name().to_str().is_some_and(&alive) {
            result = result.and(remove(&entry.path()));
        }
    }
    result
}

fn bind_new(path: &Path) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    loopback_up()?;
    let this = Path::new("/proc/thread-self/ns/net");
    Ok(mount(Some(this), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
}

/// Sets the loopback interface of the thread's namespace up: netdevice(7).
fn loopback_up() -> io::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: an ifreq is plain bytes, for which zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or_default();
    // SAFETY: SIOCSIFFLAGS reads an ifreq, which outlives the call.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) })?;
    Ok(())
}
