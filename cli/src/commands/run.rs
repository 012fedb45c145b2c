//! `husk run` and `husk create`

use std::io::{self, IsTerminal};

use anyhow::bail;
use husk_sandbox::{
    events::{self, Event},
    paths::Dirs,
    store::{Config, Store},
    timeline::{Stage, Timeline},
};
use husk_supervisor::Ended;

use crate::{
    args::{CreateArgs, Format, RunArgs},
    create::{Attachment, Created, create},
    output,
    session::{Outcome, Session, begin_to_wait},
    signals::Signals,
    start,
};

/// `husk create`
pub(crate) async fn create_only(dirs: &Dirs, args: &CreateArgs) -> anyhow::Result<u8> {
    let signals = Signals::catch()?;
    let attachment = Attachment { attached: false, stdin: args.options.interactive };
    match create(dirs, &args.options, attachment, &signals).await? {
        Created::Container(config) => {
            output::print_line(&config.id)?;
            Ok(0)
        }
        Created::Interrupted(code) => Ok(code),
    }
}

/// `husk run`
pub(crate) async fn run(dirs: &Dirs, args: &RunArgs, mut timeline: Timeline) -> anyhow::Result<u8> {
    let options = &args.options;
    if options.tty && options.interactive && !args.detach && !io::stdin().is_terminal() {
        bail!("standard input is not a terminal: leave out -t, or run husk in a terminal");
    }
    let signals = Signals::catch()?;
    let attachment = Attachment { attached: !args.detach, stdin: !args.detach && options.interactive };
    let config = match create(dirs, options, attachment, &signals).await? {
        Created::Container(config) => config,
        Created::Interrupted(code) => return Ok(code),
    };
    let store = Store::open(dirs)?;
    let pod = match start::pod_for(dirs, &store, &config).await {
        Ok(pod) => pod,
        Err(error) => {
            start::forget(dirs, &store, &config);
            return Err(error);
        }
    };
    if args.detach {
        start::begin(&pod, &config, false).await?;
        output::print_line(&config.id)?;
        return Ok(0);
    }
    let session = start::session(&pod, &config, options.interactive, args.sig_proxy, &args.detach_keys);
    events::record(dirs, &Event::of_container(&config, "attach"));
    let outcome = match attended(session, &config, &signals, args.timings.is_some()).await {
        Ok(outcome) => outcome,
        Err(error) => {
            start::forget_lost(dirs, &store, &config, &error).await;
            return Err(error);
        }
    };
    let Outcome::Ended(ended) = outcome else { return Ok(0) };
    start::settle(&pod, &config).await?;
    timeline.mark(Stage::CleanedUp);
    if let Some(format) = args.timings {
        print_timings(timeline, &ended, format)?;
    }
    exit_code(ended)
}

/// Attaches, starts the container, and waits.
async fn attended(
    session: husk_sandbox::Result<Session>,
    config: &Config,
    signals: &Signals,
    timings: bool,
) -> anyhow::Result<Outcome> {
    let mut session = session?;
    let copying = session.begin()?;
    let waiting = begin_to_wait(&session.pod, &config.id, "");
    let starting = start::begin(&session.pod, config, timings);
    tokio::pin!(starting);
    let mut early = None;
    loop {
        tokio::select! {
            started = &mut starting => {
                match (started, early) {
                    (Err(_), Some(number)) => return Ok(ended_by(number, Ended::default())),
                    (started, _) => break started?,
                }
            }
            number = signals.next() => {
                // Before its process runs there is nothing to pass it on to.
                if matches!(number, libc::SIGTERM | libc::SIGINT | libc::SIGHUP | libc::SIGQUIT) {
                    early = Some(number);
                    let (pod, id) = (session.pod.clone(), config.id.clone());
                    tokio::spawn(async move { pod.stop(&id, Some(0), None, false).await });
                }
            }
        }
    }
    if session.terminal {
        session.resize().await;
    }
    let outcome = session.attend(copying, waiting, signals).await?;
    match (outcome, early) {
        (Outcome::Ended(ended), Some(number)) => Ok(ended_by(number, ended)),
        (outcome, _) => Ok(outcome),
    }
}

/// The end of a container that a signal to husk ended before it ran.
fn ended_by(signal: i32, ended: Ended) -> Outcome {
    let code = u8::try_from(128 + signal).unwrap_or(u8::MAX);
    Outcome::Ended(Ended { code, error: String::new(), ..ended })
}

/// The container's exit code; husk's own when its machine has failed.
pub(crate) fn exit_code(ended: Ended) -> anyhow::Result<u8> {
    if ended.error.is_empty() {
        return Ok(ended.code);
    }
    bail!("{}", ended.error)
}

fn print_timings(mut timeline: Timeline, ended: &Ended, format: Format) -> anyhow::Result<()> {
    for mark in &ended.timeline {
        if let Some(stage) = Stage::of_name(&mark.stage) {
            timeline.mark_at(stage, mark.at_ns);
        }
    }
    match format {
        Format::Table => output::print_note(&timeline.to_string()),
        Format::Json => output::print_note(&format!("{}\n", serde_json::to_string(&timeline.rows())?)),
    }
    Ok(())
}
