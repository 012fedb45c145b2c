//! The half inside: PID 1 of the machine. Reaches the root file system, sets the system up, runs the command, and says
//! how it ended. The host then ends the machine.

mod command;
mod idle_vm;
mod mounts;
mod system;

use std::{
    convert::Infallible,
    fs::{File, OpenOptions},
    io, thread,
};

use anyhow::{Context, Result};
use nix::{
    sys::reboot::{RebootMode, reboot},
    unistd::getpid,
};

use crate::wire::{self, Report, Request};

/// Whether this process is the machine's init, which the kernel runs by this name.
pub(crate) fn is_init() -> bool {
    getpid().as_raw() == 1 && std::env::args_os().next().is_some_and(|name| name == "/init")
}

/// What PID 1 does. Comes back only when the machine cannot even be switched off.
pub(crate) fn init() -> Result<u8> {
    if let Err(error) = serve() {
        // The console goes to the host, which shows its last lines when a machine ends without a report.
        eprintln!("husk-lab init: {error:#}");
    }
    match power_off()? {}
}

/// Only comes back when something failed before the host could be told.
fn serve() -> Result<()> {
    system::early()?;
    let idle_vm = idle_vm::hold()?;
    let mut control = open_port(1)?;
    take_pulse(open_port(4)?);
    let request: Request = wire::receive(&mut control).context("cannot read the request")?;
    let report = match prepare(&request).and_then(|ports| command::run(&request, &control, ports)) {
        Ok(report) => report,
        Err(error) => {
            Report::NotRun { code: crate::FAILED, reason: format!("inside the machine: {error:#}") }
        }
    };
    wire::send(&mut control, &report).context("cannot report")?;
    let ended = system::wait_for_hang_up(&control);
    drop(idle_vm);
    ended
}

fn prepare(request: &Request) -> Result<[File; 2]> {
    let ports = [open_port(2)?, open_port(3)?];
    system::set_clock(request.now_s)?;
    mounts::root()?;
    mounts::extras(request)?;
    system::late()?;
    Ok(ports)
}

/// The interrupts that come with it are all that it is for.
fn take_pulse(mut port: File) {
    thread::spawn(move || io::copy(&mut port, &mut io::sink()));
}

fn open_port(number: u32) -> Result<File> {
    let path = format!("/dev/vport0p{number}");
    system::wait_for(&path)?;
    OpenOptions::new().read(true).write(true).open(&path).with_context(|| format!("cannot open {path}"))
}

pub(crate) fn power_off() -> Result<Infallible> {
    Ok(reboot(RebootMode::RB_POWER_OFF)?)
}
