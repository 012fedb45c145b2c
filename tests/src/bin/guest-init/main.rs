//! PID 1 of the VMM's tests: does inside the guest what a test asks for, line by line, over a vsock stream that it dials.
//!
//! Without a host to dial it complains on the console and sleeps: to husk, that is an agent that never answers.
#![no_main]

mod commands;
mod net;
mod vsock;

use std::{
    fmt::Display,
    fs::OpenOptions,
    io::{self, BufRead, BufReader, Write},
};

use nix::mount::{MsFlags, mount};

/// The host's port where the test listens.
const HOST_PORT: u32 = 700;

/// The program's start, in the place of std's, which would end PID 1 for lack of a console and a `/dev/null`.
#[unsafe(no_mangle)]
extern "C" fn main() -> libc::c_int {
    // As std's start does: a stream that the host has closed is an error, not the end.
    // SAFETY: ignoring a signal installs no handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    match serve() {
        Ok(()) => commands::reset(),
        Err(error) => {
            log(&error);
            loop {
                nix::unistd::pause();
            }
        }
    }
}

/// Answers the host's lines until it hangs up.
fn serve() -> io::Result<()> {
    for (kind, target) in [("devtmpfs", "/dev"), ("sysfs", "/sys"), ("proc", "/proc")] {
        mount(Some(kind), target, Some(kind), MsFlags::empty(), None::<&str>)?;
    }
    let mut host =
        vsock::dial(HOST_PORT).map_err(|error| io::Error::other(format!("nobody to dial: {error}")))?;
    let lines = BufReader::new(host.try_clone()?).lines();
    for line in lines {
        let answer = match commands::execute(&line?) {
            Ok(answer) => answer,
            Err(error) => format!("error: {error}"),
        };
        writeln!(host, "{answer}")?;
    }
    Ok(())
}

/// Writes to the kernel's log, at a level that a quiet console shows.
fn log(message: &impl Display) {
    if let Ok(mut kmsg) = OpenOptions::new().write(true).open("/dev/kmsg") {
        // There is nowhere left to report a failure to.
        let _ = kmsg.write_all(format!("<3>guest-init: {message}\n").as_bytes());
    }
}
