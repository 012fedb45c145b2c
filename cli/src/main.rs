//! `husk`: containers in microVMs, from the command line.

mod args;
mod commands;
mod create;
mod detach;
#[cfg_attr(not(test), expect(dead_code, reason = "used by the commands that follow"))]
mod filters;
mod go_text;
#[cfg_attr(not(test), expect(dead_code, reason = "used by the commands that follow"))]
mod human;
#[cfg_attr(not(test), expect(dead_code, reason = "used by the commands that follow"))]
mod list;
mod network;
mod output;
#[cfg_attr(not(test), expect(dead_code, reason = "used by the commands that follow"))]
mod ports;
mod progress;
mod runtime_class;
mod session;
mod signals;
mod start;
#[cfg_attr(not(test), expect(dead_code, reason = "used by the commands that follow"))]
mod status;
#[cfg_attr(not(test), expect(dead_code, reason = "used by the commands that follow"))]
mod template;
mod terminal;
#[cfg_attr(not(test), expect(dead_code, reason = "used by the commands that follow"))]
mod times;
mod units;
mod unprivileged;

use std::process::ExitCode;

use clap::Parser;
use husk_sandbox::{paths::Dirs, timeline::Timeline};

use args::{Cli, Command};

fn main() -> ExitCode {
    let timeline = Timeline::begin();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output and are no failure; all else is Docker's 125.
            let code = if error.use_stderr() { output::FAILURE } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match execute(cli, timeline) {
        Ok(code) => output::exit(code),
        Err(error) => {
            output::print_error(&error);
            output::exit(output::exit_code(&error))
        }
    }
}

fn execute(cli: Cli, timeline: Timeline) -> anyhow::Result<u8> {
    let dirs = Dirs::new(cli.root.as_deref());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        match cli.command {
            Command::Run(args) => commands::run::run(&dirs, &args, timeline).await,
            Command::Create(args) => commands::run::create_only(&dirs, &args).await,
            Command::Start(args) => commands::container::start(&dirs, &args).await,
            Command::Stop(args) => commands::container::stop(&dirs, &args).await,
            Command::Kill(args) => commands::container::kill(&dirs, &args).await,
            Command::Restart(args) => commands::container::restart(&dirs, &args).await,
            Command::Pause(args) => commands::container::pause(&dirs, &args, true).await,
            Command::Unpause(args) => commands::container::pause(&dirs, &args, false).await,
            Command::Wait(args) => commands::container::wait(&dirs, &args).await,
            Command::Rm(args) => commands::container::rm(&dirs, &args).await,
            Command::Exec(args) => commands::exec::run(&dirs, &args).await,
            Command::Attach(args) => commands::container::attach(&dirs, &args).await,
            Command::Rename(args) => commands::container::rename(&dirs, &args),
            Command::Pull(args) => commands::pull::run(&dirs, &args).await,
            Command::Images(args) => commands::images::run(&dirs, &args),
            Command::Rmi(args) => commands::rmi::run(&dirs, &args),
            Command::Load(args) => commands::load::run(&dirs, &args),
            Command::Network(command) => commands::network::run(&dirs, &command).await,
            Command::Port(args) => commands::network::port(&dirs, &args),
            Command::Config(command) => commands::config::run(&command),
            Command::Containerd(command) => commands::containerd::run(&command),
            Command::Check(args) => commands::check::run(&dirs, &args),
            Command::Version(args) => commands::version::run(&args),
            Command::Completion(args) => commands::completion::run(&args),
            Command::Man(args) => commands::man::run(&args),
        }
    });
    // Threads that still copy standard streams end with the process; nobody waits for them.
    runtime.shutdown_background();
    result
}
