//! Which system calls the server makes. Anything else kills it.
//!
//! There are two filters. The first binds all threads from before the first of them is made. The second is
//! put on top when the last has been made: from then on nothing is started or accepted any more.

use husk_jail::{
    JailError,
    seccomp::{
        Allowed::{self, Call, Values},
        Filter, SeccompMode, number,
    },
};

/// What the server does beside files.
const PROCESS: &[Allowed] = &[
    Call(libc::SYS_dup),
    Call(libc::SYS_eventfd2),
    Call(libc::SYS_getpid),
    Call(libc::SYS_ppoll),
    // A thread's name, and that it wants no new rights; and libcap-ng looks at all capabilities before it
    // drops one for a while.
    Values(
        libc::SYS_prctl,
        0,
        &[
            number(libc::PR_SET_NAME),
            number(libc::PR_SET_NO_NEW_PRIVS),
            number(libc::PR_CAPBSET_READ),
            number(libc::PR_CAP_AMBIENT),
        ],
    ),
    Call(libc::SYS_recvmsg),
    // The last thread may still be at its beginning when the second filter comes.
    Call(libc::SYS_rseq),
    Call(libc::SYS_sched_getaffinity),
    Call(libc::SYS_sendmsg),
    Call(libc::SYS_set_robust_list),
];

/// On whose behalf a file is made, and with what rights it is written.
const CREDENTIALS: &[Allowed] = &[
    Call(libc::SYS_capget),
    Call(libc::SYS_capset),
    Call(libc::SYS_getegid),
    Call(libc::SYS_geteuid),
    Call(libc::SYS_setgroups),
    Call(libc::SYS_setresgid),
    Call(libc::SYS_setresuid),
    Call(libc::SYS_umask),
];

/// What a guest asks for. Not among them: `open_by_handle_at`, which would reach every file of the file
/// system, and `flock`, which could release the lock that says that the sandbox lives. A guest's locks are
/// its own kernel's.
const FILES: &[Allowed] = &[
    Call(libc::SYS_copy_file_range),
    Call(libc::SYS_fallocate),
    Call(libc::SYS_fchdir),
    Call(libc::SYS_fchmod),
    Call(libc::SYS_fchmodat),
    Call(libc::SYS_fchownat),
    Call(libc::SYS_fdatasync),
    Call(libc::SYS_fgetxattr),
    Call(libc::SYS_flistxattr),
    Call(libc::SYS_fremovexattr),
    Call(libc::SYS_fsetxattr),
    Call(libc::SYS_fstat),
    Call(libc::SYS_fstatfs),
    Call(libc::SYS_fsync),
    Call(libc::SYS_ftruncate),
    Call(libc::SYS_getdents64),
    Call(libc::SYS_getxattr),
    Call(libc::SYS_linkat),
    Call(libc::SYS_listxattr),
    Call(libc::SYS_lseek),
    Call(libc::SYS_mkdirat),
    Call(libc::SYS_mknodat),
    Call(libc::SYS_newfstatat),
    Call(libc::SYS_openat),
    Call(libc::SYS_openat2),
    Call(libc::SYS_pread64),
    Call(libc::SYS_preadv),
    Call(libc::SYS_preadv2),
    Call(libc::SYS_pwrite64),
    Call(libc::SYS_pwritev),
    Call(libc::SYS_pwritev2),
    Call(libc::SYS_readlinkat),
    Call(libc::SYS_readv),
    Call(libc::SYS_removexattr),
    Call(libc::SYS_renameat),
    Call(libc::SYS_renameat2),
    Call(libc::SYS_setxattr),
    Call(libc::SYS_statx),
    Call(libc::SYS_symlinkat),
    Call(libc::SYS_syncfs),
    Call(libc::SYS_unlinkat),
    Call(libc::SYS_utimensat),
    Call(libc::SYS_writev),
];

/// Makes threads and descriptors that do not wait, waits for the VMM, and binds itself once more.
const START: &[Allowed] = &[
    Call(libc::SYS_accept4),
    Call(libc::SYS_clone3),
    Call(libc::SYS_epoll_create1),
    Values(libc::SYS_fcntl, 1, &[number(libc::F_SETFD), number(libc::F_GETFL), number(libc::F_SETFL)]),
    Call(libc::SYS_rt_sigaction),
    Call(libc::SYS_seccomp),
];

const FIRST: &[&[Allowed]] = &[PROCESS, CREDENTIALS, FILES, START];
const LAST: &[&[Allowed]] = &[PROCESS, CREDENTIALS, FILES];

/// Binds the calling thread and those that it will start.
///
/// # Errors
/// When the kernel has no seccomp.
pub(crate) fn apply_first() -> Result<(), JailError> {
    Filter::new(FIRST, SeccompMode::Kill)?.apply()
}

/// Binds all threads, which all are under the first filter.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn apply_last() -> Result<(), JailError> {
    Filter::new(LAST, SeccompMode::Kill)?.apply_to_all_threads()
}

#[cfg(test)]
mod tests {
    use husk_jail::seccomp::Trial;

    use super::*;

    /// How a system call ends in a process under a filter. It has no effect, or fails for its arguments.
    fn trial(lists: &[&[Allowed]], number: libc::c_long, arguments: [libc::c_long; 2]) -> Trial {
        let [a, b] = arguments;
        // SAFETY: no argument is an address.
        let call = || unsafe { libc::syscall(number, a, b, 0, 0, 0, 0) };
        Filter::new(lists, SeccompMode::Kill).unwrap().trial(call)
    }

    #[test]
    fn what_a_server_does_passes_and_what_leads_out_kills() {
        let never: [libc::c_long; 11] = [
            libc::SYS_open_by_handle_at,
            libc::SYS_execve,
            libc::SYS_flock,
            libc::SYS_socket,
            libc::SYS_kill,
            libc::SYS_mount,
            libc::SYS_open_tree,
            libc::SYS_ptrace,
            libc::SYS_chroot,
            libc::SYS_unshare,
            libc::SYS_ioctl,
        ];
        for number in never {
            for lists in [FIRST, LAST] {
                assert_eq!(trial(lists, number, [-1, 0]), Trial::Killed, "{number}");
            }
        }
        for number in [libc::SYS_accept4, libc::SYS_clone3] {
            assert_ne!(trial(FIRST, number, [-1, 0]), Trial::Killed, "{number}");
            assert_eq!(trial(LAST, number, [-1, 0]), Trial::Killed, "{number}");
        }
        assert_eq!(trial(LAST, libc::SYS_fsync, [-1, 0]), Trial::Failed);
    }

    #[test]
    fn a_descriptor_sends_no_signals_and_takes_no_locks() {
        let fcntl = |lists, command: libc::c_int| trial(lists, libc::SYS_fcntl, [-1, command.into()]);
        for command in [libc::F_SETOWN, libc::F_SETLK, libc::F_OFD_SETLK, libc::F_NOTIFY, libc::F_SETLEASE] {
            assert_eq!(fcntl(FIRST, command), Trial::Killed, "{command}");
        }
        assert_eq!(fcntl(FIRST, libc::F_SETFL), Trial::Failed);
        assert_eq!(fcntl(LAST, libc::F_SETFL), Trial::Killed);
        assert_eq!(fcntl(LAST, libc::F_DUPFD_CLOEXEC), Trial::Failed);
    }
}
