//! Binds threads to their [filters](super::filters).
//!
//! A thread inherits the filter of the thread that starts it, so vCPUs can't start device threads: those
//! would be able to do only what both may. [`crate::virtio::worker`] has a thread for that, whose list is
//! that of all devices.

use std::sync::OnceLock;

use husk_jail::{
    JailError,
    seccomp::{Filter, SeccompMode},
};

use super::filters;
pub use super::filters::Role;

/// Whether threads are filtered, for the whole process.
static MODE: OnceLock<SeccompMode> = OnceLock::new();

/// From now on, each thread that [`apply`]s its filter is bound by it.
pub fn enable(mode: SeccompMode) {
    // A second call changes nothing.
    let _ = MODE.set(mode);
}

/// Binds the calling thread, for good. Does nothing unless filters are [enabled](enable).
///
/// # Errors
/// When the kernel has no seccomp.
pub fn apply(role: Role) -> Result<(), JailError> {
    match MODE.get() {
        Some(mode) => Filter::new(filters::of(role), *mode)?.apply(),
        None => Ok(()),
    }
}

/// Binds the calling thread, whatever the process's mode is.
#[cfg(test)]
pub(crate) fn bind(role: Role) {
    Filter::new(filters::of(role), SeccompMode::Kill).unwrap().apply().unwrap();
}

#[cfg(test)]
mod tests {
    use husk_jail::seccomp::Trial;

    use super::*;

    const ROLES: [Role; 10] = [
        Role::Loader,
        Role::Main,
        Role::Vcpu,
        Role::Spawner,
        Role::Block,
        Role::Net,
        Role::Vsock,
        Role::Rng,
        Role::Balloon,
        Role::Fs,
    ];

    /// How a system call with these arguments ends in a process bound by a role's filter.
    fn bound(role: Role, number: libc::c_long, arguments: [libc::c_long; 3]) -> Trial {
        let [a, b, c] = arguments;
        // SAFETY: the arguments are no addresses of this process that the system calls of these tests would
        // write to.
        let call = || unsafe { libc::syscall(number, a, b, c) };
        Filter::new(filters::of(role), SeccompMode::Kill).unwrap().trial(call)
    }

    #[test]
    fn a_forbidden_call_kills_each_kind_of_thread() {
        let forbidden = [
            libc::SYS_open,
            libc::SYS_openat,
            libc::SYS_execve,
            libc::SYS_flock,
            libc::SYS_mount,
            libc::SYS_ptrace,
            libc::SYS_setresuid,
            libc::SYS_unshare,
        ];
        for role in ROLES {
            for number in forbidden {
                assert_eq!(bound(role, number, [-1; 3]), Trial::Killed, "{role:?}: {number}");
            }
            assert_eq!(bound(role, libc::SYS_sched_yield, [0; 3]), Trial::Succeeded, "{role:?}");
        }
    }

    #[test]
    fn only_the_spawner_makes_threads_and_only_vsock_makes_sockets_which_are_unix_sockets() {
        for role in ROLES {
            let starts = bound(role, libc::SYS_clone3, [0; 3]) != Trial::Killed;
            assert_eq!(starts, role == Role::Spawner, "{role:?}");
            let socket = |family: libc::c_int| bound(role, libc::SYS_socket, [family.into(), -1, 0]);
            let connects = socket(libc::AF_UNIX) != Trial::Killed;
            assert_eq!(connects, matches!(role, Role::Vsock | Role::Spawner), "{role:?}");
            assert_eq!(socket(libc::AF_INET), Trial::Killed, "{role:?}");
        }
    }

    #[test]
    fn the_loader_reads_and_nothing_more() {
        for number in [libc::SYS_statx, libc::SYS_lseek, libc::SYS_pread64] {
            assert_eq!(bound(Role::Loader, number, [-1; 3]), Trial::Failed, "{number}");
        }
        for number in [libc::SYS_ioctl, libc::SYS_pwrite64, libc::SYS_eventfd2, libc::SYS_accept4] {
            assert_eq!(bound(Role::Loader, number, [-1; 3]), Trial::Killed, "{number}");
        }
    }

    #[test]
    fn arguments_are_checked() {
        let terminal = bound(Role::Vcpu, libc::SYS_ioctl, [0, libc::TIOCSTI.cast_signed(), 0]);
        assert_eq!(terminal, Trial::Killed);
    }
}
