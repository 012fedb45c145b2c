//! `husk-bench` measures husk beside its peers, on real KVM or in the lab's deterministic mode, renders what it found,
//! compares results, and is the gate that every change passes.

mod args;
mod baseline;
mod compare;
mod gate;
mod guest_root;
mod layout;
mod machine;
mod measure;
mod peers;
mod plan;
mod report;
mod result;
mod run;
mod suites;
mod tree;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::{
    args::{Args, Command},
    plan::Suite,
};

fn main() -> ExitCode {
    match dispatch(Args::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("husk-bench: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether all is well.
fn dispatch(command: Command) -> Result<bool> {
    match command {
        Command::Boot(args) => run::boot(&args).map(|()| true),
        Command::Io(args) => run::io(&args).map(|()| true),
        Command::Scale(args) => run::scale(&args).map(|()| true),
        Command::Ctr(args) => run::in_root(&args.root, Suite::Ctr, &args.runtime).map(|()| true),
        Command::Fs(args) => run::in_root(&args, Suite::Fs, &[]).map(|()| true),
        Command::Report { results, out } => report::write(&results, &out).map(|()| true),
        Command::Compare { before, after } => compare::print(&before, &after).map(|()| true),
        Command::Gate(args) => gate::run(&args),
        Command::Baseline { reason, from, gate } => gate::update(&gate, &from, &reason).map(|()| true),
        Command::Inside { plan, out } => suites::run(&plan, &out).map(|()| true),
    }
}
