//! The command line.

use std::{ffi::OsString, path::PathBuf};

use clap::{Parser, Subcommand};

/// Runs commands in an emulated machine with nested virtualization.
#[derive(Debug, Parser)]
#[command(name = "husk-lab", version)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a command in a machine of its own.
    ///
    /// Output and exit code are the command's own; 124 means the time limit passed, 125 that the lab itself failed,
    /// 126 and 127 that the command could not be executed or found.
    Run(RunArgs),
    /// Fetch the machine's kernel, and its emulator if need be, from Debian into the cache, unless they are there (`run` does it by
    /// itself).
    Setup,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// Count virtual time in instructions: one CPU, one instruction per nanosecond, repeatable within about 1 %.
    #[arg(long)]
    pub(crate) deterministic: bool,
    /// The directory the machine has as its root file system.
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub(crate) root: PathBuf,
    /// Where files that the command writes to /lab/out end up. Created when missing.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Seconds of wall time after which the machine is ended, with exit code 124.
    #[arg(long, value_name = "SECS", default_value_t = 1800, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) timeout: u64,
    /// Number of CPUs. With more than one, guests crash now and then: the emulator's threads disturb each other.
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "deterministic", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) cpus: u32,
    /// Memory in MiB. The machine's tmpfs lives in it too.
    #[arg(long, value_name = "MIB", default_value_t = 6144, value_parser = clap::value_parser!(u32).range(512..))]
    pub(crate) memory: u32,
    /// Size in MiB of a sparse ext4 disk at /lab/disk; none when not given.
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(16..))]
    pub(crate) disk_size: Option<u64>,
    /// Set an environment variable of the command.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) env: Vec<(String, String)>,
    /// The command's working directory [default: the same as outside, or / with --root].
    #[arg(long, value_name = "DIR")]
    pub(crate) cwd: Option<PathBuf>,
    /// Show the machine's kernel messages on stderr.
    #[arg(long)]
    pub(crate) console: bool,
    /// The command and its arguments.
    #[arg(required = true, last = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_args(line: &[&str]) -> Result<RunArgs, clap::Error> {
        match Args::try_parse_from(["husk-lab", "run"].iter().chain(line))?.command {
            Command::Run(run) => Ok(run),
            Command::Setup => panic!("parsed as setup"),
        }
    }

    #[test]
    fn options_end_where_the_command_begins() {
        let run = run_args(&["--env", "A=b=c", "--", "sh", "--env", "--", "x"]).unwrap();
        assert_eq!(run.env, [("A".to_owned(), "b=c".to_owned())]);
        assert_eq!(run.command, ["sh", "--env", "--", "x"]);
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            &[][..],
            &["true"],
            &["--env", "A", "--", "true"],
            &["--env", "=b", "--", "true"],
            &["--timeout", "0", "--", "true"],
            &["--cpus", "0", "--", "true"],
            &["--deterministic", "--cpus", "2", "--", "true"],
        ] {
            assert!(run_args(line).is_err(), "{line:?} was accepted");
        }
    }
}
