//! The program `husk-vmm`: one VM per process.

use std::{
    error::Error,
    ffi::OsString,
    os::fd::{FromRawFd, OwnedFd, RawFd},
    path::PathBuf,
    process::ExitCode,
};

use husk_base::chain;
use husk_vmm::{
    bus::GuestEnd,
    config::VmConfig,
    jail::{self, User},
    probe,
    runner::{self, End, Owner, RunError},
    time::monotonic_ns,
    vm::{Parts, SocketFiles},
};

const USAGE: &str = "usage: husk-vmm run --config FILE [--control SOCKET] [--lifeline FD]
       husk-vmm probe
       husk-vmm --version

run    runs the VM that FILE (JSON) describes. --control: listen there for requests. --lifeline: end the VM when the
       other end of this inherited descriptor is closed.
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
    let Options { config, control, lifeline } = Options::parse(args)?;
    let config = VmConfig::from_file(&config).map_err(|error| Failed::from_error(BAD_USAGE, &error))?;
    // One heap for all threads, which hardly use it: others would cost each of them some tenths of a millisecond at its
    // start, and memory; and to know how many there may be, the C library would open a file.
    // SAFETY: no other thread exists yet.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    // Sockets and the console are for this user alone.
    // SAFETY: only changes the mask for new files; no other thread exists yet.
    unsafe { libc::umask(0o077) };
    let failed = |error: &dyn Error| Failed::from_error(FAILURE, error);
    let mut sockets = SocketFiles::default();
    let control = control.map(|path| runner::listen(&path, &mut sockets)).transpose();
    let control = control.map_err(|error| failed(&error))?;
    let parts = Parts::open(&config, &mut sockets).map_err(|error| failed(&RunError::from(error)))?;
    if let Some(jail) = &config.jail {
        let user = User::current();
        if let Some(outside) = jail::split(jail).map_err(|error| failed(&error))? {
            // They are the child's now: nobody must wait for this end of a socket.
            drop((control, parts, lifeline));
            return outside.wait().map_err(|error| failed(&error));
        }
        sockets.keep();
        let visible = config.vsock.as_ref().and_then(|vsock| vsock.socket.parent());
        jail::enter(jail, visible, user).map_err(|error| failed(&error))?;
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
}

impl Options {
    fn parse(mut args: impl Iterator<Item = OsString>) -> Result<Self, Failed> {
        let (mut config, mut control, mut lifeline) = (None, None, None);
        while let Some(option) = args.next() {
            let mut value =
                || args.next().ok_or_else(|| Failed::usage(format!("{} needs a value", option.display())));
            match option.to_str() {
                Some("--config") => config = Some(PathBuf::from(value()?)),
                Some("--control") => control = Some(PathBuf::from(value()?)),
                Some("--lifeline") => lifeline = Some(inherited(&value()?)?),
                _ => return Err(Failed::usage(format!("unknown option {}", option.display()))),
            }
        }
        let config = config.ok_or_else(|| Failed::usage("--config is missing".into()))?;
        Ok(Self { config, control, lifeline })
    }
}

/// Takes over an inherited descriptor.
fn inherited(number: &OsString) -> Result<OwnedFd, Failed> {
    let bad = || Failed::usage(format!("--lifeline {} is not an open descriptor", number.display()));
    let fd: RawFd =
        number.to_str().and_then(|text| text.parse().ok()).filter(|fd| *fd >= 0).ok_or_else(bad)?;
    // SAFETY: touches no memory; a number that is not a descriptor is an error.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(bad());
    }
    // SAFETY: it is open, and nothing in this process uses it: it was named on the command line for this.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
