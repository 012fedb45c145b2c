//! `husk-lab run -- CMD...` runs a command in an emulated AMD machine with nested virtualization, so that microVMs can be
//! tested for real where the machine at hand has no usable KVM. The machine sees the host's own file tree, read-only
//! beneath a tmpfs, and hands back the command's output, exit code and files.
//!
//! The same binary is both halves: outside it drives QEMU (`host`); inside it is PID 1 (`guest`).

mod args;
mod guest;
mod host;
mod wire;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Command};

/// The exit code of the lab's own failures, as `docker run` has it.
const FAILED: u8 = 125;

fn main() -> ExitCode {
    // The kernel gives its init the arguments it could not use itself, so they say nothing.
    let result = if guest::is_init() {
        guest::init()
    } else {
        match Args::parse().command {
            Command::Run(run) => host::run(run),
            Command::Setup => host::setup(),
        }
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("husk-lab: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}
