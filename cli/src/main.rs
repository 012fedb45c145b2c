//! `husk`: containers in microVMs, from the command line.

mod args;
mod commands;
mod create;
mod describe;
mod detach;
mod facts;
mod filters;
mod go_text;
mod human;
mod list;
mod network;
mod output;
mod ports;
mod progress;
mod runtime_class;
mod session;
mod signals;
mod start;
mod status;
mod template;
mod terminal;
mod times;
mod units;
mod unprivileged;

use std::{env, path::PathBuf, process::ExitCode};

use clap::{
    Parser,
    error::{ContextKind, ContextValue, ErrorKind},
};
use husk_sandbox::{paths::Dirs, timeline::Timeline};

use args::{Cli, Command, ContainerCommand, ContainerVerb, ImageCommand};

fn main() -> ExitCode {
    let timeline = Timeline::begin();
    output::print_warnings();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output and are no failure; all else is Docker's 125.
            let code = match error.kind() {
                ErrorKind::InvalidSubcommand => 1,
                _ if error.use_stderr() => output::FAILURE,
                _ => 0,
            };
            match unknown_flag(&error) {
                Some(text) => output::print_note(&text),
                None => drop(error.print()),
            }
            return ExitCode::from(code);
        }
    };
    let failure = cli.command.failure();
    match execute(cli, timeline) {
        Ok(code) => output::exit(code),
        Err(error) => {
            output::print_error(&error);
            output::exit(output::exit_code(&error, failure))
        }
    }
}

/// Docker's words for a flag that there is not: clap's own advise to pass it to the container.
fn unknown_flag(error: &clap::Error) -> Option<String> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let flag = error.get(ContextKind::InvalidArg)?;
    let usage = match error.get(ContextKind::Usage)? {
        ContextValue::StyledStr(usage) => usage.to_string(),
        _ => return None,
    };
    let words = usage.split_whitespace().skip_while(|word| *word != "husk");
    let command: Vec<&str> =
        words.take_while(|word| word.starts_with(|c: char| c.is_ascii_lowercase())).collect();
    Some(format!("husk: unknown flag: {flag}\nSee '{} --help'.\n", command.join(" ")))
}

fn execute(cli: Cli, timeline: Timeline) -> anyhow::Result<u8> {
    let root = cli.root.or_else(|| env::var_os("HUSK_ROOT").filter(|dir| !dir.is_empty()).map(PathBuf::from));
    let dirs = Dirs::new(root.as_deref());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        match cli.command {
            Command::Verb(verb) => act(&dirs, verb, timeline).await,
            Command::Ps(args) => commands::ps::run(&dirs, &args),
            Command::Inspect(args) => commands::inspect::any(&dirs, &args),
            Command::Events(args) => commands::events::run(&dirs, &args).await,
            Command::Container(ContainerCommand::Verb(verb)) => act(&dirs, verb, timeline).await,
            Command::Container(ContainerCommand::Ls(args)) => commands::ps::run(&dirs, &args),
            Command::Container(ContainerCommand::Inspect(args)) => {
                commands::inspect::containers(&dirs, &args)
            }
            Command::Container(ContainerCommand::Prune(args)) => {
                commands::prune::containers(&dirs, &args).await
            }
            Command::Pull(args) | Command::Image(ImageCommand::Pull(args)) => {
                commands::pull::run(&dirs, &args).await
            }
            Command::Images(args) | Command::Image(ImageCommand::Ls(args)) => {
                commands::images::run(&dirs, &args)
            }
            Command::Rmi(args) | Command::Image(ImageCommand::Rm(args)) => commands::rmi::run(&dirs, &args),
            Command::Load(args) | Command::Image(ImageCommand::Load(args)) => {
                commands::load::run(&dirs, &args)
            }
            Command::Image(ImageCommand::Inspect(args)) => commands::inspect::images(&dirs, &args),
            Command::Network(command) => commands::network::run(&dirs, &command).await,
            Command::Boot => commands::boot::run(&dirs).await,
            Command::Config(command) => commands::config::run(&command),
            Command::Containerd(command) => commands::containerd::run(&command),
            Command::Check(args) => commands::check::run(&dirs, &args),
            Command::Info(args) => commands::info::run(&dirs, &args),
            Command::Version(args) => commands::version::run(&args),
            Command::Completion(args) => commands::completion::run(&args),
            Command::Man(args) => commands::man::run(&args),
        }
    });
    // Threads that still copy standard streams end with the process; nobody waits for them.
    runtime.shutdown_background();
    result
}

/// What is done with containers.
async fn act(dirs: &Dirs, verb: ContainerVerb, timeline: Timeline) -> anyhow::Result<u8> {
    match verb {
        ContainerVerb::Run(args) => commands::run::run(dirs, &args, timeline).await,
        ContainerVerb::Create(args) => commands::run::create_only(dirs, &args).await,
        ContainerVerb::Start(args) => commands::container::start(dirs, &args).await,
        ContainerVerb::Stop(args) => commands::container::stop(dirs, &args).await,
        ContainerVerb::Kill(args) => commands::container::kill(dirs, &args).await,
        ContainerVerb::Restart(args) => commands::container::restart(dirs, &args).await,
        ContainerVerb::Pause(args) => commands::container::pause(dirs, &args, true).await,
        ContainerVerb::Unpause(args) => commands::container::pause(dirs, &args, false).await,
        ContainerVerb::Wait(args) => commands::container::wait(dirs, &args).await,
        ContainerVerb::Rm(args) => commands::container::rm(dirs, &args).await,
        ContainerVerb::Exec(args) => commands::exec::run(dirs, &args).await,
        ContainerVerb::Attach(args) => commands::container::attach(dirs, &args).await,
        ContainerVerb::Rename(args) => commands::container::rename(dirs, &args).await,
        ContainerVerb::Update(args) => commands::update::run(dirs, &args).await,
        ContainerVerb::Logs(args) => commands::logs::run(dirs, &args).await,
        ContainerVerb::Stats(args) => commands::stats::run(dirs, &args).await,
        ContainerVerb::Top(args) => commands::top::run(dirs, &args).await,
        ContainerVerb::Port(args) => commands::port::run(dirs, &args),
    }
}
