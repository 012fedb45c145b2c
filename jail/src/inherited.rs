//! What a process has from the one that started it: descriptors and environment. A guest that took the
//! process over would have them, too.

use std::{
    ffi::{CStr, c_char},
    io,
    os::fd::{AsFd, FromRawFd, OwnedFd, RawFd},
};

use crate::JailError;

// SAFETY: environ(7) declares it so, and the C library defines it.
unsafe extern "C" {
    static environ: *mut *mut c_char;
}

/// Takes over the descriptor with this number, which a program that is started later will not have.
///
/// # Errors
/// When no descriptor has this number.
///
/// # Safety
/// Nothing else in this process may own it: it was passed for this, and is taken once.
pub unsafe fn take(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: touches no memory; a number that is not a descriptor is an error.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and the caller promises that it is not owned.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Closes all descriptors but the standard streams and those with these numbers.
///
/// # Errors
/// When the host's kernel refuses.
///
/// # Safety
/// Nothing in this process may own, or later use, a descriptor that is not named.
unsafe fn close_all_but(kept: &[RawFd]) -> Result<(), JailError> {
    let mut kept: Vec<u32> = kept.iter().filter_map(|fd| u32::try_from(*fd).ok()).collect();
    kept.sort_unstable();
    let mut first = libc::STDERR_FILENO.unsigned_abs() + 1;
    for fd in kept {
        if let Some(last) = fd.checked_sub(1).filter(|last| *last >= first) {
            close_range(first, last)?;
        }
        first = first.max(fd.saturating_add(1));
    }
    close_range(first, u32::MAX)
}

fn close_range(first: u32, last: u32) -> Result<(), JailError> {
    // SAFETY: touches no memory; that no one uses the descriptors is what the caller of `close_all_but`
    // promises.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    JailError::check(result, "close stray descriptors (it needs Linux 5.9)")
}

/// Leaves nothing of what this process has from the one that started it but the standard streams and the descriptors with these
/// numbers: closes the others, and wipes the environment.
///
/// # Errors
/// When the host's kernel refuses.
///
/// # Safety
/// No other thread may exist; nothing may hold a pointer into the environment, and nothing own, or later use, a descriptor that
/// is not named.
pub unsafe fn keep_only(kept: &[RawFd]) -> Result<(), JailError> {
    // SAFETY: as the caller promises.
    unsafe {
        clear_environment();
        close_all_but(kept)
    }
}

/// Leaves no variable in the environment, and nothing of their text in memory.
///
/// # Safety
/// No other thread may exist, and nothing may hold a pointer into the environment.
unsafe fn clear_environment() {
    // SAFETY: the list ends with a null pointer, and each string with zero. They are writable: the kernel put
    // them on the stack of this process, and the C library puts those that are set later on its heap. No
    // other thread reads them.
    unsafe {
        let mut variable = environ;
        while !variable.is_null() && !(*variable).is_null() {
            (*variable).write_bytes(0, CStr::from_ptr(*variable).count_bytes());
            variable = variable.add(1);
        }
        libc::clearenv();
    }
}

/// Makes the table of descriptors large enough for `count` at once. While a process has several threads, the
/// host's kernel waits for a grace period, some 10 ms, each time the table has to grow (expand_fdtable in
/// fs/file.c): first beyond 64, then beyond each double of that. Where so many are not allowed, it grows as
/// before. `any` is an open descriptor.
pub fn reserve(any: impl AsFd, count: RawFd) {
    // Not worth a failure.
    drop(rustix::io::fcntl_dupfd_cloexec(any, count - 1));
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::fd::AsRawFd};

    use super::*;

    /// The result of `check` in a child process, which has descriptors and an environment of its own.
    fn in_child(check: impl FnOnce() -> bool) -> bool {
        let mut status = 0;
        // SAFETY: the C library's fork leaves its allocator usable in the child, which takes no other lock of
        // a thread.
        unsafe {
            let child = libc::fork();
            assert!(child >= 0);
            if child == 0 {
                let code = i32::from(!check());
                libc::_exit(code);
            }
            libc::waitpid(child, &raw mut status, 0);
        }
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
    }

    fn is_open(fd: RawFd) -> bool {
        // SAFETY: touches no memory.
        unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
    }

    #[test]
    fn only_standard_streams_and_named_descriptors_stay_open() {
        let file = File::open("/dev/null").unwrap();
        let at = |fd: RawFd| rustix::io::fcntl_dupfd_cloexec(&file, fd).unwrap();
        // Neighbours, one that stands alone, and the highest.
        let files = [at(100), at(101), at(102), at(200), at(300), at(1000)];
        let [low, next, stray, alone, other, high] = files.each_ref().map(AsRawFd::as_raw_fd);
        let standard = [0, 1, 2].map(is_open);
        assert!(in_child(|| {
            // SAFETY: the child uses no descriptor afterwards.
            let closed = unsafe { close_all_but(&[high, low, next, 2, -1, alone, alone]) };
            closed.is_ok()
                && [low, next, alone, high].into_iter().all(is_open)
                && [0, 1, 2].map(is_open) == standard
                && (3..2000).filter(|fd| is_open(*fd)).count() == 4
                && ![stray, other].into_iter().any(is_open)
        }));
        assert!(in_child(|| {
            // SAFETY: as above.
            let closed = unsafe { close_all_but(&[]) };
            closed.is_ok() && !(3..2000).any(is_open)
        }));
    }

    #[test]
    fn nothing_of_the_environment_is_left_in_memory() {
        // Its own variables are on its heap, and those of the test's process where the kernel put them.
        assert!(in_child(|| {
            // SAFETY: the child has one thread, and the C library does not free strings that a process has set.
            unsafe {
                libc::setenv(c"HUSK_SECRET".as_ptr(), c"x".as_ptr(), 1);
                let (own, first) = (libc::getenv(c"HUSK_SECRET".as_ptr()), *environ);
                clear_environment();
                let kernels = std::fs::read("/proc/self/environ").unwrap_or_else(|_| vec![1]);
                *own == 0
                    && *first == 0
                    && kernels.iter().all(|byte| *byte == 0)
                    && libc::getenv(c"PATH".as_ptr()).is_null()
                    && std::env::vars_os().next().is_none()
            }
        }));
    }

    #[test]
    fn a_number_without_a_descriptor_is_refused() {
        let file = File::open("/dev/null").unwrap();
        let number = rustix::io::fcntl_dupfd_cloexec(&file, 700).unwrap();
        // SAFETY: the duplicate is given up here, so the number has one owner.
        let taken = unsafe { take(std::os::fd::IntoRawFd::into_raw_fd(number)) }.unwrap();
        assert_eq!(taken.as_raw_fd(), 700);
        // SAFETY: nothing owns these.
        let refused = [-1, 999_999].map(|fd| unsafe { take(fd) }.unwrap_err().raw_os_error());
        assert_eq!(refused, [Some(libc::EBADF); 2]);
    }
}
