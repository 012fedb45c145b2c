//! `containerd-shim-husk-v2`: containerd's runtime `io.containerd.husk.v2`. One such process owns one pod, which is a VM.
//!
//! It stands on `containerd-shim-protos` alone, and not on `containerd-shim`: that crate (0.12) answers `start` with JSON of
//! version 3, which containerd 1.6 takes for an address and 1.7 refuses; and it brings a D-Bus client and three further
//! async executors for cgroups that are none of the shim's business.

mod address;
mod bootstrap;
mod delete;
mod entry;
mod error;
mod flags;
mod info;
mod join;
mod log;
mod message;
mod metrics;
mod pod_id;
mod publisher;
mod sandbox_api;
mod serve;
mod service;
mod socket;
mod start;
mod stdio;
mod tasks;

use std::{
    env,
    io::{self, Write},
    process::ExitCode,
};

use crate::error::Error;

fn main() -> ExitCode {
    let done = run();
    if let Err(error) = &done {
        // containerd shows this to whoever wanted the container.
        eprintln!("{}", error.text());
    }
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run() -> Result<(), Error> {
    let flags = flags::parse(env::args().skip(1)).map_err(|error| Error::invalid(error.to_string()))?;
    if flags.version {
        println!("containerd-shim-husk-v2 {}", env!("CARGO_PKG_VERSION"));
        return Ok(());
    }
    if flags.info {
        return answer(&info::info()?);
    }
    if flags.namespace.is_empty() || flags.id.is_empty() {
        return Err(Error::invalid(
            "this program is called by containerd: use `ctr run --runtime io.containerd.husk.v2` or `husk run`",
        ));
    }
    match flags.action.as_str() {
        "start" => answer(&start::start(&flags)?),
        "delete" => answer(&delete::delete(&flags)?),
        "" => serve::serve(&flags).inspect_err(|error| tracing::error!("{}", error.text())),
        other => Err(Error::invalid(format!("unknown action {other:?}: start and delete are known"))),
    }
}

fn answer(bytes: &[u8]) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(Error::io("write to", "standard output"))
}
