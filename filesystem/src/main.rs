//! The program `husk-fs`: serves one directory of the host to one guest, as the other half of a virtio-fs
//! device.
//!
//! `husk-vmm` connects to it and hands it the guest's memory and queues (vhost-user). What the guest asks for
//! is parsed and carried out here, by the virtiofsd library, in a [jail](jail) whose root is the directory
//! itself.

use std::{
    error::Error,
    ffi::OsString,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    process::ExitCode,
};

use husk_base::chain;

mod args;
mod filter;
mod jail;
mod log;
mod serve;

use args::{Command, Options, USAGE};
use husk_jail::{JailError, inherited};

const FAILURE: u8 = 1;
const BAD_USAGE: u8 = 2;

fn main() -> ExitCode {
    let result = match args::parse(std::env::args_os().skip(1).collect::<Vec<OsString>>()) {
        Ok(Command::Help) => {
            println!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        Ok(Command::Version) => {
            println!("husk-fs {}", env!("CARGO_PKG_VERSION"));
            Ok(ExitCode::SUCCESS)
        }
        Ok(Command::Serve(options)) => run(options).map_err(|error| (FAILURE, line(&*error))),
        Err(error) => Err((BAD_USAGE, format!("{}: see husk-fs --help", line(&error)))),
    };
    result.unwrap_or_else(|(code, message)| {
        eprintln!("husk-fs: {message}");
        ExitCode::from(code)
    })
}

/// An error and all its causes, on one line.
fn line(error: &dyn Error) -> String {
    chain::text(error).replace('\n', " ")
}

fn run(options: Options) -> Result<ExitCode, Box<dyn Error>> {
    let Options { root, listener, lifeline, lock, cgroup, cache, read_only } = options;
    leave_inheritance(&[
        Some(listener.as_fd()),
        lifeline.as_ref().map(AsFd::as_fd),
        lock.as_ref().map(AsFd::as_fd),
    ])?;
    let max_files = jail::raise_file_limit()?;
    jail::choose_root(&root)?;
    if let Some(outside) = jail::split(cgroup.as_deref())? {
        // They are the child's: no process must wait for this end. The lock is held by both.
        drop((listener, lifeline));
        return Ok(outside.wait("husk-fs")?);
    }
    log::install();
    inherited::reserve(&listener, jail::RESERVED_FILES);
    let descriptors = jail::enter(read_only)?;
    filter::apply_first()?;
    if let Some(lifeline) = lifeline {
        serve::end_with(lifeline)?;
    }
    serve::serve(listener, descriptors, &serve::Share { cache, read_only, max_files })?;
    Ok(ExitCode::SUCCESS)
}

/// Wipes the environment, and closes all descriptors that this process was not passed by number.
fn leave_inheritance(passed: &[Option<BorrowedFd<'_>>]) -> Result<(), JailError> {
    let kept: Vec<_> = passed.iter().flatten().map(AsRawFd::as_raw_fd).collect();
    // SAFETY: no other thread exists, and nothing has looked at the environment or opened a descriptor that
    // is still open.
    unsafe { inherited::keep_only(&kept) }
}
