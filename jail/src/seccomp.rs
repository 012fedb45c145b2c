//! Filters of system calls. What is not on a thread's list kills the process.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use serde::{Deserialize, Serialize};

use crate::JailError;

const PROT_EXEC: u64 = 4;

/// What happens at a forbidden system call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeccompMode {
    /// The whole process is killed.
    #[default]
    Kill,
    /// It is carried out and noted in the kernel's audit log. For debugging.
    Log,
}

/// A system call, and what its arguments must be.
#[derive(Debug, Clone, Copy)]
pub enum Allowed {
    /// Any arguments. No entry with conditions may be for the same system call.
    Call(libc::c_long),
    /// The argument with this number has one of these values in its lower half. Several such entries for one
    /// system call add up.
    Values(libc::c_long, u8, &'static [u32]),
    /// The argument with this number has none of these bits.
    Without(libc::c_long, u8, u64),
}

use Allowed::{Call, Values, Without};

/// A constant of the C library as an argument of a system call.
#[expect(clippy::cast_sign_loss, reason = "the numbers are positive")]
pub const fn number(value: libc::c_int) -> u32 {
    value as u32
}

/// What each thread needs, whatever it does: reading and writing, memory that never becomes code, locks,
/// time, an event loop, and its end.
pub const THREAD: &[Allowed] = &[
    Call(libc::SYS_read),
    Call(libc::SYS_write),
    Call(libc::SYS_close),
    // Builds with assertions look before they close.
    Values(libc::SYS_fcntl, 1, &[number(libc::F_DUPFD_CLOEXEC), number(libc::F_GETFD)]),
    Call(libc::SYS_epoll_ctl),
    Call(libc::SYS_epoll_wait),
    Call(libc::SYS_epoll_pwait),
    Call(libc::SYS_futex),
    Call(libc::SYS_sched_yield),
    // A thread asks for its own name and number.
    Call(libc::SYS_gettid),
    Call(libc::SYS_clock_gettime),
    Without(libc::SYS_mmap, 2, PROT_EXEC),
    Without(libc::SYS_mprotect, 2, PROT_EXEC),
    Call(libc::SYS_mremap),
    Call(libc::SYS_munmap),
    Call(libc::SYS_madvise),
    Call(libc::SYS_brk),
    // Seeds of hash tables.
    Call(libc::SYS_getrandom),
    Call(libc::SYS_rt_sigprocmask),
    Call(libc::SYS_rt_sigreturn),
    Call(libc::SYS_restart_syscall),
    Call(libc::SYS_sigaltstack),
    Call(libc::SYS_exit),
    Call(libc::SYS_exit_group),
];

/// A list of system calls that can bind threads.
#[derive(Debug)]
pub struct Filter(BpfProgram);

impl Filter {
    /// A filter that lets [`THREAD`] and these lists through.
    ///
    /// # Errors
    /// When it is too long for the kernel.
    pub fn new(lists: &[&[Allowed]], mode: SeccompMode) -> Result<Self, JailError> {
        let otherwise = match mode {
            SeccompMode::Kill => SeccompAction::KillProcess,
            SeccompMode::Log => SeccompAction::Log,
        };
        let allowed = THREAD.iter().chain(lists.iter().copied().flatten());
        let program = compile(allowed, otherwise).map_err(seccompiler::Error::from)?;
        Ok(Self(program))
    }

    /// Binds the calling thread, and those that it will start, for good.
    ///
    /// # Errors
    /// When the kernel has no seccomp.
    pub fn apply(&self) -> Result<(), JailError> {
        Ok(seccompiler::apply_filter(&self.0)?)
    }

    /// Binds all threads of the process, which must all be under the same filters, for good.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn apply_to_all_threads(&self) -> Result<(), JailError> {
        Ok(seccompiler::apply_filter_all_threads(&self.0)?)
    }
}

fn compile<'a>(
    list: impl Iterator<Item = &'a Allowed>,
    otherwise: SeccompAction,
) -> Result<BpfProgram, BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for allowed in list {
        match *allowed {
            // No rule: all arguments.
            Call(number) => _ = rules.insert(number, Vec::new()),
            Values(number, argument, values) => {
                for value in values {
                    let value = u64::from(*value);
                    let equal =
                        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)?;
                    rules.entry(number).or_default().push(SeccompRule::new(vec![equal])?);
                }
            }
            Without(number, argument, bits) => {
                let none_of = SeccompCmpOp::MaskedEq(bits);
                let without = SeccompCondition::new(argument, SeccompCmpArgLen::Qword, none_of, 0)?;
                rules.entry(number).or_default().push(SeccompRule::new(vec![without])?);
            }
        }
    }
    SeccompFilter::new(rules, otherwise, SeccompAction::Allow, TargetArch::x86_64)?.try_into()
}

/// How a system call under a [`Filter`] ended.
#[cfg(any(test, feature = "trial"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trial {
    /// It was carried out and succeeded.
    Succeeded,
    /// It was carried out and failed.
    Failed,
    /// The process was killed for it.
    Killed,
}

#[cfg(any(test, feature = "trial"))]
impl Filter {
    /// Makes `call` in a child process under this filter. It may make nothing but system calls.
    ///
    /// # Panics
    /// When the child can't be made or bound.
    pub fn trial(&self, call: impl FnOnce() -> libc::c_long) -> Trial {
        let mut status = 0;
        // SAFETY: the child makes only system calls, which is allowed after a fork in a process with several
        // threads.
        unsafe {
            let child = libc::fork();
            assert!(child >= 0, "fork failed");
            if child == 0 {
                let code = match self.apply() {
                    Ok(()) => i32::from(call() < 0),
                    Err(_) => 2,
                };
                libc::syscall(libc::SYS_exit_group, code);
            }
            libc::waitpid(child, &raw mut status, 0);
        }
        let exited = libc::WIFEXITED(status);
        match libc::WEXITSTATUS(status) {
            0 if exited => Trial::Succeeded,
            1 if exited => Trial::Failed,
            _ if libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSYS => Trial::Killed,
            _ => panic!("the child ended with status {status:#x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(own: &[Allowed]) -> Filter {
        Filter::new(&[own], SeccompMode::Kill).unwrap()
    }

    /// A system call with this argument, which touches no memory of this process.
    fn call(number: libc::c_long, argument: libc::c_long) -> impl Fn() -> libc::c_long {
        // SAFETY: as above; it fails for its arguments, or has no effect beyond the child.
        move || unsafe { libc::syscall(number, argument, argument, argument, 0, 0, 0) }
    }

    #[test]
    fn what_is_not_listed_kills_unless_it_is_to_be_logged() {
        let (kill, log) = (filter(&[]), Filter::new(&[], SeccompMode::Log).unwrap());
        let forbidden =
            [libc::SYS_getppid, libc::SYS_openat, libc::SYS_socket, libc::SYS_clone3, libc::SYS_execve];
        for number in forbidden {
            assert_eq!(kill.trial(call(number, -1)), Trial::Killed, "{number}");
            assert_ne!(log.trial(call(number, -1)), Trial::Killed, "{number}");
        }
        assert_eq!(kill.trial(call(libc::SYS_gettid, 0)), Trial::Succeeded);
        assert_eq!(filter(&[Call(libc::SYS_getppid)]).trial(call(libc::SYS_getppid, 0)), Trial::Succeeded);
    }

    #[test]
    fn no_memory_becomes_code() {
        let filter = filter(&[]);
        let map = |protection: libc::c_int| {
            filter.trial(|| {
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                // SAFETY: a new mapping disturbs nothing.
                unsafe { libc::syscall(libc::SYS_mmap, 0, 4096, protection, flags, -1, 0) }
            })
        };
        assert_eq!(map(libc::PROT_READ | libc::PROT_WRITE), Trial::Succeeded);
        assert_eq!(map(libc::PROT_READ | libc::PROT_EXEC), Trial::Killed);
        let executable = (libc::PROT_READ | libc::PROT_EXEC).into();
        assert_eq!(filter.trial(call(libc::SYS_mprotect, executable)), Trial::Killed);
    }

    #[test]
    fn arguments_are_compared_and_entries_of_one_call_add_up() {
        let filter = filter(&[
            Values(libc::SYS_ioctl, 1, &[7, 8]),
            Values(libc::SYS_ioctl, 1, &[9]),
            Without(libc::SYS_dup, 0, 0b101),
        ]);
        for (value, expected) in [(7, Trial::Failed), (9, Trial::Failed), (10, Trial::Killed)] {
            assert_eq!(filter.trial(call(libc::SYS_ioctl, value)), expected, "{value}");
        }
        for (value, killed) in [(1 << 20, false), (1 << 20 | 4, true), (1, true)] {
            assert_eq!(filter.trial(call(libc::SYS_dup, value)) == Trial::Killed, killed, "{value}");
        }
    }
}
