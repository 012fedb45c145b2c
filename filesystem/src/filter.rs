//! Which system calls the server makes. Anything else kills it.
//!
//! There are two filters. The first binds all threads from before the first of them is made. The second is put on top when
//! the last has been made: from then on nothing is started or accepted any more.

use std::collections::BTreeMap;

use seccompiler::{
    SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

const PROT_EXEC: u64 = 4;

/// Memory, locks, time, events, and the end.
const PROCESS: &[libc::c_long] = &[
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd2,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fcntl,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_ppoll,
    libc::SYS_recvmsg,
    libc::SYS_restart_syscall,
    // The last thread may still be at its beginning when the second filter comes.
    libc::SYS_rseq,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_sendmsg,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
];

/// On whose behalf a file is made, and with what rights it is written.
const CREDENTIALS: &[libc::c_long] = &[
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_setgroups,
    libc::SYS_setresgid,
    libc::SYS_setresuid,
    libc::SYS_umask,
];

/// What a guest asks for. Not among them: `open_by_handle_at`, which would reach every file of the file system.
const FILES: &[libc::c_long] = &[
    libc::SYS_copy_file_range,
    libc::SYS_fallocate,
    libc::SYS_fchdir,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchownat,
    libc::SYS_fdatasync,
    libc::SYS_fgetxattr,
    libc::SYS_flistxattr,
    libc::SYS_flock,
    libc::SYS_fremovexattr,
    libc::SYS_fsetxattr,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getdents64,
    libc::SYS_getxattr,
    libc::SYS_linkat,
    libc::SYS_listxattr,
    libc::SYS_lseek,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_removexattr,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_setxattr,
    libc::SYS_statx,
    libc::SYS_symlinkat,
    libc::SYS_syncfs,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
    libc::SYS_write,
    libc::SYS_writev,
];

/// Makes threads, waits for the VMM, and binds itself once more.
const START: &[libc::c_long] = &[
    libc::SYS_accept4,
    libc::SYS_clone3,
    libc::SYS_epoll_create1,
    libc::SYS_rt_sigaction,
    libc::SYS_seccomp,
];

/// What a thread may tell the kernel of itself, its name and that it wants no new rights, and ask: libcap-ng looks at all
/// capabilities before it drops one for a while.
const TOLD: [libc::c_int; 4] =
    [libc::PR_SET_NAME, libc::PR_SET_NO_NEW_PRIVS, libc::PR_CAPBSET_READ, libc::PR_CAP_AMBIENT];

/// Binds the calling thread and those that it will start.
///
/// # Errors
/// When the kernel has no seccomp.
pub(crate) fn apply_first() -> Result<(), seccompiler::Error> {
    seccompiler::apply_filter(&program(&[PROCESS, CREDENTIALS, FILES, START])?)
}

/// Binds all threads, which all are under the first filter.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn apply_last() -> Result<(), seccompiler::Error> {
    seccompiler::apply_filter_all_threads(&program(&[PROCESS, CREDENTIALS, FILES])?)
}

fn program(lists: &[&[libc::c_long]]) -> Result<Vec<seccompiler::sock_filter>, seccompiler::Error> {
    let calls = lists.iter().copied().flatten();
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = calls.map(|number| (*number, Vec::new())).collect();
    // Nothing becomes code.
    for number in [libc::SYS_mmap, libc::SYS_mprotect] {
        let not_code =
            SeccompCondition::new(2, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(PROT_EXEC), 0)?;
        rules.insert(number, vec![SeccompRule::new(vec![not_code])?]);
    }
    let told = TOLD.map(|what| {
        let what = u64::try_from(what).unwrap_or(u64::MAX);
        let equal = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, what)?;
        SeccompRule::new(vec![equal])
    });
    rules.insert(libc::SYS_prctl, told.into_iter().collect::<Result<_, _>>()?);
    let (otherwise, listed) = (SeccompAction::KillProcess, SeccompAction::Allow);
    Ok(SeccompFilter::new(rules, otherwise, listed, TargetArch::x86_64)?.try_into()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a call in a process of its own under a filter; whether that was killed for it.
    fn is_killed(program: &[seccompiler::sock_filter], call: impl Fn() -> libc::c_long) -> bool {
        let mut status = 0;
        // SAFETY: the child makes only system calls, which is allowed after a fork in a process with several threads.
        unsafe {
            let child = libc::fork();
            if child == 0 {
                let code = match seccompiler::apply_filter(program) {
                    Ok(()) => i32::from(call() < 0),
                    Err(_) => 2,
                };
                libc::syscall(libc::SYS_exit_group, code);
            }
            libc::waitpid(child, &raw mut status, 0);
        }
        let killed = libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSYS;
        assert!(killed || libc::WIFEXITED(status) && libc::WEXITSTATUS(status) < 2, "{status:#x}");
        killed
    }

    #[test]
    fn what_a_server_does_passes_and_what_leads_out_kills() {
        let first = program(&[PROCESS, CREDENTIALS, FILES, START]).unwrap();
        let last = program(&[PROCESS, CREDENTIALS, FILES]).unwrap();
        let never: [libc::c_long; 10] = [
            libc::SYS_open_by_handle_at,
            libc::SYS_execve,
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
            // SAFETY: the call does not come to pass, so for all others here; or it fails for its arguments.
            let call = || unsafe { libc::syscall(number, -1, 0, 0, 0, 0, 0) };
            assert!(is_killed(&first, call) && is_killed(&last, call), "{number}");
        }
        for number in [libc::SYS_accept4, libc::SYS_clone3] {
            // SAFETY: as above.
            let call = || unsafe { libc::syscall(number, -1, 0, 0, 0, 0, 0) };
            assert!(!is_killed(&first, call) && is_killed(&last, call), "{number}");
        }
        // SAFETY: as above.
        assert!(!is_killed(&last, || unsafe { libc::syscall(libc::SYS_fsync, -1) }));
        for (protection, killed) in [(libc::PROT_READ, false), (libc::PROT_READ | libc::PROT_EXEC, true)] {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            // SAFETY: a new mapping disturbs nothing.
            let map = || unsafe { libc::syscall(libc::SYS_mmap, 0, 4096, protection, flags, -1, 0) };
            assert_eq!(is_killed(&last, map), killed);
        }
    }
}
