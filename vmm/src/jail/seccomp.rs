//! Filters of system calls, one per kind of thread. What is not on a thread's list kills the VM.
//!
//! A thread inherits the filter of the thread that starts it, so vCPUs can't start device threads: those would be able
//! to do only what both may. [`crate::virtio::worker`] has a thread for that, whose list is that of all devices.

use std::{collections::BTreeMap, sync::OnceLock};

use seccompiler::{
    SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use super::{SeccompMode, filters, rule::Allowed};

pub use super::rule::Role;

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
pub fn apply(role: Role) -> Result<(), seccompiler::Error> {
    match MODE.get() {
        Some(mode) => seccompiler::apply_filter(&program(role, *mode)?),
        None => Ok(()),
    }
}

/// Binds the calling thread, whatever the process's mode is.
#[cfg(test)]
pub(crate) fn bind(role: Role) {
    seccompiler::apply_filter(&program(role, SeccompMode::Kill).unwrap()).unwrap();
}

fn program(role: Role, mode: SeccompMode) -> Result<Vec<seccompiler::sock_filter>, seccompiler::Error> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for allowed in filters::of(role) {
        match *allowed {
            // No rule: all arguments.
            Allowed::Call(number) => _ = rules.insert(number, Vec::new()),
            Allowed::Values(number, argument, values) => {
                for value in values {
                    let equal = SeccompCmpOp::Eq;
                    let condition =
                        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, equal, (*value).into())?;
                    rules.entry(number).or_default().push(SeccompRule::new(vec![condition])?);
                }
            }
            Allowed::Without(number, argument, bits) => {
                let none_of = SeccompCmpOp::MaskedEq(bits);
                let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Qword, none_of, 0)?;
                rules.entry(number).or_default().push(SeccompRule::new(vec![condition])?);
            }
        }
    }
    let otherwise = match mode {
        SeccompMode::Kill => SeccompAction::KillProcess,
        SeccompMode::Log => SeccompAction::Log,
    };
    Ok(SeccompFilter::new(rules, otherwise, SeccompAction::Allow, TargetArch::x86_64)?.try_into()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLES: [Role; 9] = [
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

    /// Runs `call` in a process bound by a role's filter; returns how that ended.
    fn bound(role: Role, mode: SeccompMode, call: impl Fn() -> libc::c_long) -> libc::c_int {
        let program = program(role, mode).unwrap();
        let mut status = 0;
        // SAFETY: the child makes only system calls, which is allowed after a fork in a process with several threads.
        unsafe {
            let child = libc::fork();
            if child == 0 {
                let code = match seccompiler::apply_filter(&program) {
                    Ok(()) => i32::from(call() < 0),
                    Err(_) => 2,
                };
                libc::syscall(libc::SYS_exit_group, code);
            }
            libc::waitpid(child, &raw mut status, 0);
        }
        status
    }

    fn killed(status: libc::c_int) -> bool {
        libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSYS
    }

    fn passed(status: libc::c_int) -> bool {
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
    }

    #[test]
    fn a_forbidden_call_kills_each_kind_of_thread() {
        for role in ROLES {
            // SAFETY: the system calls touch no memory of this process, so for all others here.
            let status = bound(role, SeccompMode::Kill, || unsafe {
                libc::syscall(libc::SYS_open, c"/etc/passwd".as_ptr(), libc::O_RDONLY)
            });
            assert!(killed(status), "{role:?}: {status:#x}");
            // SAFETY: as above.
            let status = bound(role, SeccompMode::Kill, || unsafe { libc::syscall(libc::SYS_sched_yield) });
            assert!(passed(status), "{role:?}: {status:#x}");
        }
    }

    #[test]
    fn in_log_mode_it_is_carried_out() {
        // SAFETY: as above.
        let status = bound(Role::Rng, SeccompMode::Log, || unsafe { libc::syscall(libc::SYS_getppid) });
        assert!(passed(status), "{status:#x}");
    }

    #[test]
    fn no_memory_becomes_code() {
        let map = |protection: libc::c_int| {
            bound(Role::Vcpu, SeccompMode::Kill, || {
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                // SAFETY: a new mapping disturbs nothing.
                unsafe { libc::syscall(libc::SYS_mmap, 0, 4096, protection, flags, -1, 0) }
            })
        };
        assert!(passed(map(libc::PROT_READ | libc::PROT_WRITE)));
        assert!(killed(map(libc::PROT_READ | libc::PROT_EXEC)));
    }

    #[test]
    fn arguments_are_checked() {
        // SAFETY: as above.
        let status = bound(Role::Vcpu, SeccompMode::Kill, || unsafe {
            libc::syscall(libc::SYS_ioctl, 0, libc::TIOCSTI, 0)
        });
        assert!(killed(status), "{status:#x}");
    }
}
