//! Files in memory, for guests whose memory other processes are to map, and for huge pages of the host's pool.

use std::{
    ffi::CStr,
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    ptr,
};

use crate::config::{Backing, MemoryConfig};

// linux/mount.h
const FSCONFIG_SET_STRING: libc::c_int = 1;
const FSCONFIG_CMD_CREATE: libc::c_int = 6;

/// A file of the memory's size; none for memory of the process's own. To be called before the jail.
///
/// # Errors
/// When the host refuses.
pub(super) fn create(mem_size_mib: u32, config: MemoryConfig) -> io::Result<Option<File>> {
    let kind = match config.backing {
        Backing::Anonymous if !config.shared => return Ok(None),
        // Not worth a failure: with small pages all works as well, but slower.
        Backing::Anonymous => match in_tmpfs(mem_size_mib) {
            Ok(file) => return Ok(Some(file)),
            Err(_) => 0,
        },
        Backing::Hugetlb2M => libc::MFD_HUGETLB | libc::MFD_HUGE_2MB,
        Backing::Hugetlb1G => libc::MFD_HUGETLB | libc::MFD_HUGE_1GB,
    };
    sealed(mem_size_mib, kind).map(Some)
}

/// A memfd, of its size for good.
fn sealed(mem_size_mib: u32, kind: libc::c_uint) -> io::Result<File> {
    const SEALS: i32 = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: the name ends with a zero and lives on.
    let fd = unsafe {
        libc::memfd_create(c"guest-memory".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING | kind)
    };
    let file = File::from(owned(fd.into())?);
    file.set_len(u64::from(mem_size_mib) << 20)?;
    // SAFETY: touches no memory.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, SEALS) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}

/// A file without a name in a tmpfs of its own, which is mounted nowhere, takes huge pages whatever the host's setting for
/// memfds is (Linux, admin-guide/mm/transhuge), and holds no more than this file. Only root can make one.
fn in_tmpfs(mem_size_mib: u32) -> io::Result<File> {
    // SAFETY: the name ends with a zero; so for all strings here.
    let context = unsafe { libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), libc::FSOPEN_CLOEXEC) };
    let context = owned(context)?;
    let size = format!("{mem_size_mib}m\0");
    let size = CStr::from_bytes_with_nul(size.as_bytes()).map_err(io::Error::other)?;
    // The root directory, and the file.
    for (key, value) in [(c"huge", c"always"), (c"size", size), (c"nr_inodes", c"2"), (c"mode", c"0700")] {
        configure(&context, FSCONFIG_SET_STRING, key.as_ptr(), value.as_ptr())?;
    }
    configure(&context, FSCONFIG_CMD_CREATE, ptr::null(), ptr::null())?;
    let harmless = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    // SAFETY: takes no pointers.
    let mount =
        unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), libc::FSMOUNT_CLOEXEC, harmless) };
    let mount = owned(mount)?;
    let flags = libc::O_TMPFILE | libc::O_RDWR | libc::O_CLOEXEC;
    // SAFETY: as above.
    let fd = unsafe { libc::openat(mount.as_raw_fd(), c".".as_ptr(), flags, 0o600) };
    let file = File::from(owned(fd.into())?);
    file.set_len(u64::from(mem_size_mib) << 20)?;
    Ok(file)
}

/// fsconfig(2).
fn configure(
    context: &OwnedFd,
    command: libc::c_int,
    key: *const libc::c_char,
    value: *const libc::c_char,
) -> io::Result<()> {
    // SAFETY: the callers' strings end with a zero and live on, or are null where the command takes none.
    let result = unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), command, key, value, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What a call returned: a new descriptor, or a failure.
fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    match libc::c_int::try_from(result) {
        // SAFETY: the callers pass the result of a call that makes a descriptor, which is nobody else's.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memfd_keeps_its_size() {
        let file = sealed(64, 0).unwrap();
        for len in [0, (64 << 20) - 4096, 65 << 20] {
            assert!(file.set_len(len).is_err(), "{len}");
        }
    }

    #[test]
    fn a_tmpfs_holds_no_more_than_the_memory() {
        use std::os::unix::fs::FileExt;
        // SAFETY: only returns a number.
        if unsafe { libc::geteuid() } != 0 {
            eprintln!("SKIPPED: only root can make a tmpfs");
            return;
        }
        let file = in_tmpfs(4).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 4 << 20);
        file.write_all_at(&vec![1; 4 << 20], 0).unwrap();
        assert_eq!(file.write_at(&[1], 4 << 20).unwrap_err().kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn only_shared_memory_and_pools_are_files() {
        let config = |shared| MemoryConfig { backing: Backing::Anonymous, shared, prefault: false };
        assert!(create(64, config(false)).unwrap().is_none());
        assert_eq!(create(64, config(true)).unwrap().unwrap().metadata().unwrap().len(), 64 << 20);
    }
}
