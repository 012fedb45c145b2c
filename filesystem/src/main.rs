//! The program `husk-fs`: serves one directory of the host to one guest, as the other half of a virtio-fs device.
//!
//! `husk-vmm` connects to it and hands it the guest's memory and queues (vhost-user). What the guest asks for is parsed
//! and carried out here, by the virtiofsd library, in a [jail](jail) whose root is the directory itself.

use std::{error::Error, ffi::OsString, process::ExitCode};

use husk_base::chain;

mod args;
mod filter;
mod jail;
mod log;
mod serve;

use args::{Command, Options, USAGE};
use jail::Side;

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
    let Options { root, listener, lifeline, cgroup, cache, read_only } = options;
    let max_files = jail::raise_file_limit()?;
    match jail::split(&root, cgroup.as_deref())? {
        Side::Outside(child) => {
            // They are the child's: nobody must wait for this end.
            drop((listener, lifeline));
            Ok(child.wait()?)
        }
        Side::Inside => {
            log::install();
            jail::reserve_descriptors(&listener);
            let descriptors = jail::enter(read_only)?;
            filter::apply_first()?;
            if let Some(lifeline) = lifeline {
                serve::end_with(lifeline)?;
            }
            serve::serve(listener, descriptors, &serve::Share { cache, read_only, max_files })?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
