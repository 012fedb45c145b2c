//! The init of a container that asked for one (`--init`): its first process, which starts the program, passes signals on to it, and reaps
//! the processes that others leave behind. It is this same file, executed under another name, and does what Docker's does.

use std::{
    convert::Infallible,
    env,
    ffi::{CString, OsString},
    io,
    os::{fd::OwnedFd, unix::ffi::OsStringExt},
    sync::Arc,
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    sys::{
        prctl,
        signal::{SigSet, SigmaskHow},
        stat::Mode,
    },
    unistd::{ForkResult, Pid, execv, fork, setpgid, tcsetpgrp},
};

use super::executor::{DEFAULT_PATH, ExecError, find_in};
use crate::failure::Failure;

/// What it is called, also in the lists of `husk top` (as Docker's).
const NAME: &str = "/sbin/docker-init";
/// Its name where there is room for fifteen bytes.
const SHORT_NAME: &std::ffi::CStr = c"docker-init";
/// A shell's exit code of what a signal ended, less the signal's number.
const BY_SIGNAL: i32 = 128;
/// Exit code when the program can't be started for want of a process.
const FAILED: i32 = 1;

/// The file to execute as a container's init.
pub(super) fn program() -> Result<Arc<OwnedFd>, Failure> {
    let own = open("/proc/self/exe", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|e| Failure::io("cannot open the init of containers", &e.into()))?;
    Ok(Arc::new(own))
}

/// Its command line, to start a program with these arguments.
pub(super) fn command(program: Vec<CString>) -> Vec<CString> {
    let own = [NAME, "--"].map(|text| CString::new(text).unwrap_or_default());
    own.into_iter().chain(program).collect()
}

/// The program's arguments, if this process is to be a container's init.
pub(crate) fn args() -> Option<Vec<OsString>> {
    let mut args = env::args_os();
    (args.next()? == NAME).then(|| args.skip(1).collect())
}

/// Starts the program, and returns its exit code, or 128 and the number of the signal that ended it.
pub(crate) fn run(args: &[OsString]) -> i32 {
    // Executed by its descriptor, it would be called after that.
    let _ = prctl::set_name(SHORT_NAME);
    let all = SigSet::all();
    let Ok(inherited) = all.thread_swap_mask(SigmaskHow::SIG_SETMASK) else { return FAILED };
    // SAFETY: this process has one thread, so that the child may do whatever it could do.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => {
            let Err(error) = start(args, &inherited);
            eprintln!("husk: {error}");
            error.exit_code()
        }
        Ok(ForkResult::Parent { child }) => attend(child, &all),
        Err(errno) => {
            eprintln!("husk: cannot start the container's program: {}", errno.desc());
            FAILED
        }
    }
}

/// The program: in a process group of its own, which is its terminal's foreground.
fn start(args: &[OsString], inherited: &SigSet) -> Result<Infallible, ExecError> {
    let this = Pid::this();
    let _ = setpgid(this, this);
    let _ = tcsetpgrp(io::stdin(), this);
    let _ = inherited.thread_set_mask();
    let program = args.first().map(|arg| arg.to_string_lossy().into_owned()).unwrap_or_default();
    let path = find_in(&program, &env::var("PATH").unwrap_or_else(|_| DEFAULT_PATH.to_owned()))?;
    let c_string =
        |text: OsString| CString::new(text.into_vec()).map_err(|_| ExecError::new(&program, Errno::EINVAL));
    let args: Vec<CString> = args.iter().cloned().map(c_string).collect::<Result<_, _>>()?;
    execv(&c_string(path.into_os_string())?, &args).map_err(|errno| ExecError::new(&program, errno))
}

/// Passes signals on and reaps, until `child` ends; its exit code.
fn attend(child: Pid, signals: &SigSet) -> i32 {
    loop {
        match next(signals) {
            libc::SIGCHLD => {
                if let Some(code) = reap(child) {
                    return code;
                }
            }
            // Also one of the real-time signals, which `nix` has no names for.
            // SAFETY: takes no pointers.
            signal => drop(unsafe { libc::kill(child.as_raw(), signal) }),
        }
    }
}

/// Waits for one of these signals; its number. 0, which does nothing to a process, when the wait was interrupted.
fn next(signals: &SigSet) -> libc::c_int {
    // SAFETY: the set is initialised; what was sent, and by whom, need not be told.
    let signal = unsafe { libc::sigwaitinfo(signals.as_ref(), std::ptr::null_mut()) };
    signal.max(0)
}

/// Reaps all that ended; the exit code of `child` if it is among them.
fn reap(child: Pid) -> Option<i32> {
    let mut ended = None;
    loop {
        let mut status = 0;
        // SAFETY: `status` outlives the call.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        if pid <= 0 {
            return ended;
        }
        if pid == child.as_raw() {
            ended = Some(exit_code(status));
        }
    }
}

fn exit_code(status: libc::c_int) -> i32 {
    if libc::WIFSIGNALED(status) { BY_SIGNAL + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_arguments_follow_two_of_its_own() {
        let command = command(vec![c"sh".into(), c"-c".into()]);
        assert_eq!(command, [c"/sbin/docker-init", c"--", c"sh", c"-c"].map(CString::from));
    }

    #[test]
    fn exit_codes_are_those_of_shells() {
        // wait(2): the code is in the second byte, the signal in the low seven bits.
        assert_eq!(exit_code(3 << 8), 3);
        assert_eq!(exit_code(libc::SIGKILL), 137);
        assert_eq!(exit_code(libc::SIGSEGV | 0x80), 139);
        assert_eq!(exit_code(40), 168);
    }
}
