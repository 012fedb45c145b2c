//! The program `husk-vmm`: one VM per process.

use std::{
    error::Error,
    ffi::OsString,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    path::PathBuf,
    process::ExitCode,
};

use husk_base::chain;
use husk_jail::inherited;
use husk_vmm::{
    bus::GuestEnd,
    config::VmConfig,
    jail::{self, JailError},
    probe,
    runner::{self, End, Owner, RunError},
    socket_files::SocketFiles,
    time::monotonic_ns,
    vm::Parts,
};

const USAGE: &str = "usage: husk-vmm run --config FILE [--control SOCKET] [--lifeline FD] [--lock FD]
       husk-vmm probe
       husk-vmm --version

run    runs the VM that FILE (JSON) describes. --control: listen there for requests. --lifeline: end the VM when the
       other end of this inherited descriptor is closed. --lock: keep this inherited descriptor open until the end.
       A jailed VM closes all others that it is not passed by number.
       Exit codes: 0 ended as asked by guest or owner, 1 VMM failure, 2 bad usage or configuration, 10 guest panic.
probe  tells as JSON whether KVM on this machine runs ordinary guests.";

const FAILURE: u8 = 1;
const BAD_USAGE: u8 = 2;
const GUEST_CRASHED: u8 = 10;

fn main() -> ExitCode {
    let started_ns = monotonic_ns();
    let mut args = std::env::args_os().skip(1);
    let command = args.next().and_then(|command| command.into_string().ok());
    let result = match command.as_deref() {
        Some("run") => run(args, started_ns),
        Some("probe") => print_probe(),
        Some("--version") => {
            println!("husk-vmm {}", env!("CARGO_PKG_VERSION"));
            Ok(ExitCode::SUCCESS)
        }
        Some("--help" | "-h") => {
            println!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        Some(other) => Err(Failed::usage(format!("unknown command {other:?}"))),
        None => Err(Failed::usage("no command".into())),
    };
    result.unwrap_or_else(|Failed { code, message }| {
        eprintln!("husk-vmm: {message}");
        ExitCode::from(code)
    })
}

/// What to say and how to exit.
struct Failed {
    code: u8,
    message: String,
}

impl Failed {
    fn usage(message: String) -> Self {
        Self { code: BAD_USAGE, message: format!("{message}: see husk-vmm --help") }
    }

    /// The whole chain on one line.
    fn from_error(code: u8, error: &dyn Error) -> Self {
        Self { code, message: chain::text(error).replace('\n', " ") }
    }
}

fn run(args: impl Iterator<Item = OsString>, started_ns: u64) -> Result<ExitCode, Failed> {
    let Options { config, control, lifeline, lock } = Options::parse(args)?;
    let config = VmConfig::from_file(&config).map_err(|error| Failed::from_error(BAD_USAGE, &error))?;
    let failed = |error: &dyn Error| Failed::from_error(FAILURE, error);
    if config.jail.is_some() {
        leave_inheritance(&config, &[&lifeline, &lock]).map_err(|error| failed(&error))?;
    }
    // One heap for all threads, which hardly use it: others would cost each of them some tenths of a millisecond at its
    // start, and memory; and to know how many there may be, the C library would open a file.
    // SAFETY: no other thread exists yet.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    // Sockets and the console are for this user alone.
    // SAFETY: only changes the mask for new files; no other thread exists yet.
    unsafe { libc::umask(0o077) };
    let mut sockets = SocketFiles::default();
    let control = control.map(|path| runner::listen(&path, &mut sockets)).transpose();
    let control = control.map_err(|error| failed(&error))?;
    let parts = Parts::open(&config, &mut sockets).map_err(|error| failed(&RunError::from(error)))?;
    if let Some(jail) = &config.jail {
        if let Some(outside) = jail::split(jail).map_err(|error| failed(&error))? {
            // They are the child's now: nobody must wait for this end of a socket.
            drop((control, parts, lifeline));
            return outside.wait("husk-vmm").map_err(|error| failed(&error));
        }
        sockets.keep();
        let visible = config.vsock.as_ref().and_then(|vsock| vsock.socket.parent());
        jail::enter(jail, visible).map_err(|error| failed(&error))?;
    }
    let end = runner::run(&config, parts, Owner { control, lifeline }, started_ns)
        .map_err(|error| failed(&error))?;
    let crash = |message: &str| Err(Failed { code: GUEST_CRASHED, message: message.into() });
    match end {
        End::Told | End::Guest(GuestEnd::Clean) => Ok(ExitCode::SUCCESS),
        End::Guest(GuestEnd::Panic) => crash("the guest's kernel panicked"),
        End::Guest(GuestEnd::TripleFault) => crash("the guest crashed with a triple fault"),
    }
}

/// Wipes the environment, and closes all descriptors that this process was not passed by number.
fn leave_inheritance(config: &VmConfig, own: &[&Option<OwnedFd>]) -> Result<(), JailError> {
    let own = own.iter().filter_map(|fd| fd.as_ref()).map(AsRawFd::as_raw_fd);
    let kept: Vec<RawFd> = own.chain(config.inherited()).collect();
    // SAFETY: no other thread exists. Nothing has looked at the environment, or opened a descriptor that is still
    // open.
    unsafe { inherited::keep_only(&kept) }
}

fn print_probe() -> Result<ExitCode, Failed> {
    let json = serde_json::to_string_pretty(&probe::probe());
    println!("{}", json.map_err(|error| Failed::from_error(FAILURE, &error))?);
    Ok(ExitCode::SUCCESS)
}

#[derive(Debug)]
struct Options {
    config: PathBuf,
    control: Option<PathBuf>,
    lifeline: Option<OwnedFd>,
    /// Held open until this process and the one in the jail have ended.
    lock: Option<OwnedFd>,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = OsString>) -> Result<Self, Failed> {
        let (mut config, mut control, mut lifeline, mut lock) = (None, None, None, None);
        while let Some(option) = args.next() {
            let mut value =
                || args.next().ok_or_else(|| Failed::usage(format!("{} needs a value", option.display())));
            match option.to_str() {
                Some("--config") => config = Some(PathBuf::from(value()?)),
                Some("--control") => control = Some(PathBuf::from(value()?)),
                Some("--lifeline") => lifeline = Some(value()?),
                Some("--lock") => lock = Some(value()?),
                _ => return Err(Failed::usage(format!("unknown option {}", option.display()))),
            }
        }
        let config = config.ok_or_else(|| Failed::usage("--config is missing".into()))?;
        if lifeline.is_some() && lifeline == lock {
            return Err(Failed::usage("--lifeline and --lock name the same descriptor".into()));
        }
        let take = |option, number: Option<OsString>| number.map(|number| take(option, &number)).transpose();
        Ok(Self { config, control, lifeline: take("--lifeline", lifeline)?, lock: take("--lock", lock)? })
    }
}

/// Takes over the inherited descriptor that an option names.
fn take(option: &str, number: &OsString) -> Result<OwnedFd, Failed> {
    let bad = || Failed::usage(format!("{option} {} is not an inherited descriptor", number.display()));
    let fd: RawFd = number.to_str().and_then(|text| text.parse().ok()).ok_or_else(bad)?;
    if fd <= libc::STDERR_FILENO {
        return Err(bad());
    }
    // SAFETY: nothing in this process uses it: it was named on the command line for this, once.
    unsafe { inherited::take(fd) }.map_err(|_| bad())
}
