//! What is done with containers that there are: start, stop, kill, restart, pause, unpause, wait, rm, rename, attach.

use std::future::Future;

use anyhow::{Context, bail};
use husk_base::chain;
use husk_sandbox::{
    Error, clean_up,
    events::{self, Event},
    paths::Dirs,
    rundir,
    store::{Status, Store},
};
use husk_supervisor::Pod;

use super::run::exit_code;
use crate::{
    args::{
        AttachArgs, ContainersArgs, KillArgs, RenameArgs, RmArgs, StartArgs, StopArgs, WaitArgs,
        WaitCondition,
    },
    output,
    session::{Outcome, begin_to_wait},
    signals::Signals,
    start, units,
};

/// Does something with each container, and prints its name. One that fails does not keep the others (as Docker has it).
pub(crate) async fn for_each<F: Future<Output = anyhow::Result<()>>>(
    names: &[String],
    mut act: impl FnMut(String) -> F,
) -> anyhow::Result<u8> {
    let mut failed = false;
    for name in names {
        match act(name.clone()).await {
            Ok(()) => output::print_line(name)?,
            Err(error) => {
                output::print_error(&error);
                failed = true;
            }
        }
    }
    Ok(u8::from(failed))
}

/// A container that runs, by its name: its id, and its pod.
///
/// # Errors
/// When there is no such container, or it does not run.
pub(crate) fn running(dirs: &Dirs, store: &Store, name: &str) -> anyhow::Result<(String, Pod)> {
    let id = store.find(name)?;
    let pod = Pod::of(dirs, store, &id)?;
    let runs = store.get(&id)?.state.status.needs_supervisor();
    match pod {
        Some(pod) if runs => Ok((id, pod)),
        _ => bail!("container {id} is not running"),
    }
}

pub(crate) async fn start(dirs: &Dirs, args: &StartArgs) -> anyhow::Result<u8> {
    let store = Store::open(dirs)?;
    if args.attach || args.interactive {
        let [name] = args.containers.as_slice() else {
            bail!("you cannot start and attach multiple containers at once")
        };
        return start_attached(dirs, &store, name, args).await;
    }
    for_each(&args.containers, async |name| start_one(dirs, &store, &name).await).await
}

pub(crate) async fn start_one(dirs: &Dirs, store: &Store, name: &str) -> anyhow::Result<()> {
    let id = store.find(name)?;
    let _lock = store.lock(&id)?;
    let record = store.get(&id)?;
    if record.state.status.needs_supervisor() {
        return Ok(());
    }
    let pod = start::pod_for(dirs, store, &record.config).await?;
    start::begin(&pod, &record.config, false).await
}

async fn start_attached(dirs: &Dirs, store: &Store, name: &str, args: &StartArgs) -> anyhow::Result<u8> {
    let signals = Signals::catch()?;
    let id = store.find(name)?;
    let lock = store.lock(&id)?;
    let record = store.get(&id)?;
    if record.state.status.needs_supervisor() {
        bail!("container {name} is running already: use husk attach");
    }
    let pod = start::pod_for(dirs, store, &record.config).await?;
    let mut session = start::session(&pod, &record.config, args.interactive, true, &args.detach_keys)?;
    events::record(dirs, &Event::of_container(&record.config, "attach"));
    let copying = session.begin()?;
    let waiting = begin_to_wait(&pod, &id, "");
    start::begin(&pod, &record.config, false).await?;
    drop(lock);
    session.resize().await;
    match session.attend(copying, waiting, &signals).await? {
        Outcome::Ended(ended) => {
            start::settle(&pod, &record.config).await?;
            exit_code(ended)
        }
        Outcome::Detached => Ok(0),
    }
}

pub(crate) async fn attach(dirs: &Dirs, args: &AttachArgs) -> anyhow::Result<u8> {
    let signals = Signals::catch()?;
    let store = Store::open(dirs)?;
    let id = store.find(&args.container)?;
    let record = store.get(&id)?;
    match record.state.status {
        Status::Running => {}
        Status::Paused => bail!("You cannot attach to a paused container, unpause it first"),
        Status::Restarting => bail!("You cannot attach to a restarting container, wait until it is running"),
        _ => bail!("You cannot attach to a stopped container, start it first"),
    }
    let (_, pod) = running(dirs, &store, &id)?;
    let waiting = begin_to_wait(&pod, &id, "");
    let mut session =
        start::session(&pod, &record.config, !args.no_stdin, args.sig_proxy, &args.detach_keys)?;
    events::record(dirs, &Event::of_container(&record.config, "attach"));
    let copying = session.begin()?;
    session.resize().await;
    match session.attend(copying, waiting, &signals).await? {
        Outcome::Ended(ended) => exit_code(ended),
        Outcome::Detached => Ok(0),
    }
}

pub(crate) async fn stop(dirs: &Dirs, args: &StopArgs) -> anyhow::Result<u8> {
    let store = Store::open(dirs)?;
    let stop = async |name: String| {
        let id = store.find(&name)?;
        stop_one(dirs, &store, &id, args, false).await
    };
    for_each(&args.containers, stop).await
}

/// A signal by its name or number. That there is none is told for each container (as Docker has it).
fn signal(text: &str) -> anyhow::Result<u32> {
    units::parse_signal(text).map_err(anyhow::Error::msg)
}

/// Has a container end, if it runs.
async fn stop_one(
    dirs: &Dirs,
    store: &Store,
    id: &str,
    args: &StopArgs,
    restarting: bool,
) -> anyhow::Result<()> {
    let record = store.get(id)?;
    if !record.state.status.needs_supervisor() {
        return Ok(());
    }
    let signal = args.signal.as_deref().map(signal).transpose()?;
    let Some(pod) = Pod::of(dirs, store, id)? else { return Ok(()) };
    match pod.stop(id, args.time, signal, restarting).await {
        // It has ended by itself meanwhile.
        Err(_) if !store.get(id).is_ok_and(|record| record.state.status.needs_supervisor()) => Ok(()),
        other => {
            other?;
            if !restarting {
                start::settle(&pod, &record.config).await?;
            }
            events::record(dirs, &Event::of_container(&record.config, "stop"));
            Ok(())
        }
    }
}

pub(crate) async fn restart(dirs: &Dirs, args: &StopArgs) -> anyhow::Result<u8> {
    let store = Store::open(dirs)?;
    let restart = async |name: String| {
        let id = store.find(&name)?;
        stop_one(dirs, &store, &id, args, true).await?;
        start_one(dirs, &store, &id).await?;
        events::record(dirs, &Event::of_container(&store.config(&id)?, "restart"));
        Ok(())
    };
    for_each(&args.containers, restart).await
}

pub(crate) async fn kill(dirs: &Dirs, args: &KillArgs) -> anyhow::Result<u8> {
    let store = Store::open(dirs)?;
    let kill = async |name: String| {
        let (id, pod) =
            running(dirs, &store, &name).with_context(|| format!("cannot kill container: {name}"))?;
        Ok(pod.kill(&id, signal(&args.signal)?).await?)
    };
    for_each(&args.containers, kill).await
}

pub(crate) async fn pause(dirs: &Dirs, args: &ContainersArgs, pause: bool) -> anyhow::Result<u8> {
    let store = Store::open(dirs)?;
    let act = async |name: String| {
        let (id, pod) = running(dirs, &store, &name)?;
        match (store.get(&id)?.state.status, pause) {
            (Status::Paused, true) => bail!("Container {id} is already paused"),
            (Status::Running, false) => bail!("Container {id} is not paused"),
            (_, true) => Ok(pod.pause(&id).await?),
            (_, false) => Ok(pod.resume(&id).await?),
        }
    };
    for_each(&args.containers, act).await
}

pub(crate) async fn wait(dirs: &Dirs, args: &WaitArgs) -> anyhow::Result<u8> {
    let store = Store::open(dirs)?;
    let mut failed = false;
    for name in &args.containers {
        match wait_for(dirs, &store, name, args.condition).await {
            Ok(code) => output::print_line(&code.to_string())?,
            Err(error) => {
                output::print_error(&error);
                failed = true;
            }
        }
    }
    Ok(u8::from(failed))
}

async fn wait_for(dirs: &Dirs, store: &Store, name: &str, condition: WaitCondition) -> anyhow::Result<i32> {
    let id = store.find(name)?;
    let record = store.get(&id)?;
    let runs = record.state.status.needs_supervisor();
    let mut code = record.state.exit_code;
    if condition == WaitCondition::NotRunning {
        // Also between two lives that its restart policy gives it.
        return Ok(store.stopped(&id).await?.exit_code);
    }
    if let Some(pod) = Pod::of(dirs, store, &id)?
        && (runs || condition == WaitCondition::NextExit)
    {
        match pod.wait(&id, "", true).await {
            Ok(ended) => code = ended.code.into(),
            // It was killed with its supervisor.
            Err(_) => code = store.get(&id).map_or(code, |record| record.state.exit_code),
        }
    }
    if condition == WaitCondition::Removed {
        store.removed(&id).await?;
    }
    Ok(code)
}

pub(crate) async fn rm(dirs: &Dirs, args: &RmArgs) -> anyhow::Result<u8> {
    let store = Store::open(dirs)?;
    // As Docker: with force, what is not there is said, and not a failure.
    let is_missing = |name: &String| args.force && matches!(store.find(name), Err(Error::NoContainer { .. }));
    let (missing, there): (Vec<String>, Vec<String>) = args.containers.iter().cloned().partition(is_missing);
    for name in missing {
        output::print_note(&format!("husk: No such container: {name}\n"));
    }
    for_each(&there, async |name| remove_one(dirs, &store, &store.find(&name)?, args.force).await).await
}

/// Removes a container, and ends it before if that is forced.
///
/// # Errors
/// When it runs, and is not to be ended.
pub(crate) async fn remove_one(dirs: &Dirs, store: &Store, id: &str, force: bool) -> anyhow::Result<()> {
    // A record that can't be read is removed all the same.
    let record = store.get(id);
    let config = record.as_ref().ok().map(|record| record.config.clone());
    let state = record.map(|record| record.state);
    if let Ok(state) = &state
        && state.status.needs_supervisor()
    {
        if !force {
            let hint = if state.status == Status::Paused {
                "unpause and stop the container before removal, or force remove"
            } else {
                "stop the container before removal or force remove"
            };
            let status = state.status.name();
            bail!("cannot remove container {id:?}: container is {status}: {hint}");
        }
        end_now(dirs, store, id, state.pid).await?;
    }
    let pod = state.map_or_else(|_| id.to_owned(), |state| state.pod);
    if pod == id {
        let (dirs_of_wait, pod_of_wait) = (dirs.clone(), pod.clone());
        let gone = tokio::task::spawn_blocking(move || rundir::wait_until_gone(&dirs_of_wait, &pod_of_wait));
        tokio::time::timeout(GONE_WITHIN, gone).await.context("its virtual machine does not end")???;
        if rundir::is_dead(dirs, &pod) {
            // What can't be taken away now is tried again by the next start.
            if let Err(error) = clean_up::after_kills(dirs).await {
                tracing::warn!("cannot clean up after {pod}: {}", chain::text(&error));
            }
        }
    }
    match store.remove(id) {
        // It was to be removed at its end, and has been.
        Err(Error::NoContainer { .. }) => Ok(()),
        other => {
            other?;
            if let Some(config) = config {
                events::record(dirs, &Event::of_container(&config, "destroy"));
                super::rmi::forget_disk(dirs, store, &config.image.disk)?;
            }
            Ok(())
        }
    }
}

/// How long a killed container's machine may take to be gone.
const GONE_WITHIN: std::time::Duration = std::time::Duration::from_secs(8);
/// How long a supervisor may take to have a container end.
const END_WITHIN: std::time::Duration = std::time::Duration::from_secs(7);

/// Ends a container by SIGKILL; and its supervisor, when that does not obey.
async fn end_now(dirs: &Dirs, store: &Store, id: &str, supervisor: u32) -> anyhow::Result<()> {
    let Some(pod) = Pod::of(dirs, store, id)? else { return Ok(()) };
    let ended =
        tokio::time::timeout(END_WITHIN, pod.stop(id, Some(0), Some(libc::SIGKILL.unsigned_abs()), false));
    if !matches!(ended.await, Ok(Ok(()))) && store.get(id).is_ok_and(|r| r.state.status.needs_supervisor()) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(supervisor).unwrap_or_default());
        // Its VM ends with it. A lock that is held proves that the number is still its own.
        if pid.as_raw() > 1 && rundir::is_alive(dirs, id) {
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
    }
    Ok(())
}

pub(crate) async fn rename(dirs: &Dirs, args: &RenameArgs) -> anyhow::Result<u8> {
    let store = Store::open(dirs)?;
    let id = store.find(&args.container)?;
    let _lock = store.lock(&id)?;
    // Another client may have renamed it while this one waited.
    if store.find(&args.container)? != id {
        bail!("container {} was renamed meanwhile", args.container);
    }
    let old_name = store.config(&id)?.name;
    store.rename(&id, &args.new_name)?;
    if let Some(pod) = Pod::of(dirs, &store, &id)? {
        // Its events have the name, too. One that is just ending has no more of them.
        let _ = pod.update(&id, Vec::new()).await;
    }
    let renamed = Event::of_container(&store.config(&id)?, "rename").with("oldName", format!("/{old_name}"));
    events::record(dirs, &renamed);
    Ok(0)
}
