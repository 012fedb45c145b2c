//! Finds and executes a container's program; libcontainer calls this inside the container, as its user.

use std::{
    collections::HashMap,
    convert::Infallible,
    ffi::{CString, NulError},
    fs::OpenOptions,
    io::Write,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use husk_protocol::agent::Reason;
use libcontainer::{
    capabilities,
    seccomp::initialize_seccomp,
    syscall::syscall::create_syscall,
    workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError},
};
use nix::{
    errno::Errno,
    sys::{
        signal::{SigHandler, Signal, signal},
        stat::fstat,
    },
    unistd::{AccessFlags, access, dup2_stderr, dup2_stdin, dup2_stdout, execve, fexecve},
};
use oci_spec::runtime::{LinuxCapabilities, LinuxSeccomp, Process, Spec};

use super::{helper::Reporter, init};
use crate::{failure::Failure, stdio::WindowSize};

/// The search path of a process whose environment has none.
pub(super) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a program can't be executed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ExecError {
    /// Exit code 127.
    #[error("executable not found: {0}")]
    NotFound(String),
    /// Exit code 126.
    #[error("executable not permitted: {0}")]
    NotPermitted(String),
}

impl ExecError {
    pub(super) fn new(program: &str, errno: Errno) -> Self {
        match errno {
            Errno::ENOENT | Errno::ENOTDIR => Self::NotFound(format!("{program:?}: {}", errno.desc())),
            _ => Self::NotPermitted(format!("{program:?}: {}", errno.desc())),
        }
    }

    pub(super) fn exit_code(&self) -> i32 {
        match self {
            Self::NotFound(_) => 127,
            Self::NotPermitted(_) => 126,
        }
    }
}

impl From<ExecError> for Failure {
    fn from(error: ExecError) -> Self {
        let reason = match error {
            ExecError::NotFound(_) => Reason::EXECUTABLE_NOT_FOUND,
            ExecError::NotPermitted(_) => Reason::EXECUTABLE_NOT_PERMITTED,
        };
        Self::new(reason, error.to_string())
    }
}

/// How a container's process, or a further one, is executed.
#[derive(Clone)]
pub(crate) struct AgentExecutor {
    pub(crate) reporter: Reporter,
    /// For a further process: what libcontainer leaves out of it.
    pub(crate) confinement: Option<Confinement>,
    /// The terminal's first size, if it has one.
    pub(crate) window: Option<WindowSize>,
    /// The init that starts the program, if there is to be one.
    pub(crate) init: Option<Arc<OwnedFd>>,
}

/// What confines a further process as it does the container's first.
#[derive(Clone)]
pub(crate) struct Confinement {
    pub(crate) seccomp: Option<LinuxSeccomp>,
    /// The process's own capabilities. libcontainer is told to keep all until the filter is loaded, which needs them.
    pub(crate) capabilities: Option<LinuxCapabilities>,
}

impl Executor for AgentExecutor {
    /// Called before the container is reported as created: a program that is missing fails the creation.
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        let found = spec
            .process()
            .as_ref()
            .ok_or_else(|| Failure::invalid("the spec has no process"))
            .and_then(|process| Ok(find(process)?));
        found.map(drop).map_err(|failure| {
            self.reporter.fail(&failure);
            ExecutorValidationError::ArgValidationError(failure.message)
        })
    }

    /// The environment is given to execve as it is in the spec, in order.
    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }

    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let process = spec.process().as_ref().ok_or(ExecutorError::InvalidArg)?;
        if let Some(confinement) = &self.confinement {
            confinement.apply().inspect_err(|error| {
                self.reporter.fail(&Failure::internal(format!("cannot confine the process: {error}")));
            })?;
        }
        // Neither is worth failing for.
        let _ = own_null();
        if let Some(window) = self.window {
            let _ = window.set(&std::io::stdin());
        }
        let Err(error) = execute(process, self.init.as_deref());
        if self.confinement.is_some() {
            let text = error.to_string();
            self.reporter.fail(&error.into());
            return Err(ExecutorError::Other(text));
        }
        // The container has been created and started; all that is left is how its process ends.
        let _ = writeln!(std::io::stderr(), "husk: {error}");
        // SAFETY: ends the process without running anything else of it; takes no pointers.
        unsafe { libc::_exit(error.exit_code()) }
    }
}

impl Confinement {
    fn apply(&self) -> Result<(), ExecutorError> {
        let other = |e: &dyn std::error::Error| ExecutorError::Other(e.to_string());
        if let Some(seccomp) = &self.seccomp {
            initialize_seccomp(seccomp).map_err(|e| other(&e))?;
        }
        if let Some(wanted) = &self.capabilities {
            let syscall = create_syscall();
            capabilities::drop_privileges(wanted, syscall.as_ref()).map_err(|e| other(&e))?;
        }
        Ok(())
    }
}

/// libcontainer opens a container's own /dev/null for reading only, also in place of stdout and stderr, and for a further process not
/// at all.
fn own_null() -> std::io::Result<()> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    let device = null.metadata()?.rdev();
    let is_null = |fd: BorrowedFd<'_>| fstat(fd).is_ok_and(|stat| stat.st_rdev == device);
    if is_null(std::io::stdin().as_fd()) {
        dup2_stdin(&null)?;
    }
    if is_null(std::io::stdout().as_fd()) {
        dup2_stdout(&null)?;
    }
    if is_null(std::io::stderr().as_fd()) {
        dup2_stderr(&null)?;
    }
    Ok(())
}

fn execute(process: &Process, init: Option<&OwnedFd>) -> Result<Infallible, ExecError> {
    let path = find(process)?;
    let program = path.display().to_string();
    let strings = |list: &Option<Vec<String>>| -> Result<Vec<CString>, NulError> {
        list.iter().flatten().map(|s| CString::new(s.as_str())).collect()
    };
    let prepared = (|| {
        Ok::<_, NulError>((
            CString::new(path.into_os_string().into_encoded_bytes())?,
            strings(process.args())?,
            strings(process.env())?,
        ))
    })();
    let (path, args, env) = prepared.map_err(|_| ExecError::new(&program, Errno::EINVAL))?;
    // Rust programs ignore SIGPIPE, and that would be inherited.
    // SAFETY: sets the default action, no handler; this process has one thread.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
    let executed = match init {
        None => execve(&path, &args, &env),
        Some(init) => fexecve(init, &init::command(args), &env),
    };
    executed.map_err(|errno| ExecError::new(&program, errno))
}

/// The path of the program to execute.
fn find(process: &Process) -> Result<PathBuf, ExecError> {
    let program = process.args().iter().flatten().next().map(String::as_str).unwrap_or_default();
    let path = process
        .env()
        .iter()
        .flatten()
        .rev()
        .find_map(|entry| entry.strip_prefix("PATH="))
        .unwrap_or(DEFAULT_PATH);
    find_in(program, path)
}

/// As Docker: a name with a slash is used as it is, relative to the working directory; any other is searched for in
/// `path`, where files that can't be executed are passed over.
pub(super) fn find_in(program: &str, path: &str) -> Result<PathBuf, ExecError> {
    if program.is_empty() {
        return Err(ExecError::NotFound("no command given".to_owned()));
    }
    if program.contains('/') {
        let path = PathBuf::from(program);
        return match check(&path) {
            Ok(()) => Ok(path),
            Err(errno) => Err(ExecError::new(program, errno)),
        };
    }
    path.split(':')
        .filter(|dir| !dir.is_empty())
        .map(|dir| Path::new(dir).join(program))
        .find(|path| check(path).is_ok())
        .ok_or_else(|| ExecError::NotFound(format!("{program:?}: not in $PATH")))
}

fn check(path: &Path) -> Result<(), Errno> {
    let errno = |e: std::io::Error| e.raw_os_error().map_or(Errno::EINVAL, Errno::from_raw);
    let metadata = std::fs::metadata(path).map_err(errno)?;
    if metadata.is_dir() {
        return Err(Errno::EISDIR);
    }
    // Even root needs one execute bit.
    if metadata.mode() & 0o111 == 0 {
        return Err(Errno::EACCES);
    }
    access(path, AccessFlags::X_OK)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt, symlink},
    };

    use super::*;

    #[test]
    fn finds_programs_as_docker_does() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs::create_dir(&a).unwrap();
        fs::create_dir(&b).unwrap();
        for (file, mode) in [(a.join("plain"), 0o644), (b.join("plain"), 0o755), (a.join("data"), 0o644)] {
            fs::write(&file, "").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        }
        symlink("nowhere", a.join("dangling")).unwrap();
        fs::create_dir(a.join("dir")).unwrap();
        let path = format!("{}::{}:/nonexistent", a.display(), b.display());
        let at = |name: &str| format!("{}/{name}", a.display());

        assert_eq!(find_in("plain", &path), Ok(b.join("plain")));
        assert_eq!(find_in(b.join("plain").to_str().unwrap(), ""), Ok(b.join("plain")));
        for (program, code) in [
            ("none".to_owned(), 127),
            ("data".to_owned(), 127),
            ("dir".to_owned(), 127),
            (String::new(), 127),
            (at("none"), 127),
            (at("dangling"), 127),
            (at("data/below"), 127),
            (at("data"), 126),
            (at("dir"), 126),
        ] {
            assert_eq!(find_in(&program, &path).unwrap_err().exit_code(), code, "{program}");
        }
    }

    #[test]
    fn errors_tell_which_exit_code() {
        assert!(ExecError::new("x", Errno::ENOENT).to_string().starts_with("executable not found: "));
        assert!(ExecError::new("x", Errno::ENOEXEC).to_string().starts_with("executable not permitted: "));
    }
}
