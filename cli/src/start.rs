//! Bringing a container's pod to life, and attaching to it.

use anyhow::{Context, bail};
use husk_sandbox::{
    events::{self, Event},
    network::NetworkMode,
    paths::Dirs,
    rundir,
    store::{Config, Status, Store},
};
use husk_supervisor::{Pod, Streams};

use crate::{detach::Keys, session::Session};

/// The pod that a container is to be started in: its own, whose supervisor is started, or that of the container that it joins.
///
/// # Errors
/// When it can't be.
pub(crate) async fn pod_for(dirs: &Dirs, store: &Store, config: &Config) -> anyhow::Result<Pod> {
    let Some(owner) = config.joins() else {
        // Of its last life, something may still be taken apart.
        let (dirs_of_wait, id) = (dirs.clone(), config.id.clone());
        tokio::task::spawn_blocking(move || rundir::wait_until_gone(&dirs_of_wait, &id)).await??;
        return Ok(Pod::spawn(dirs, config)?);
    };
    let owner_id = store.find(owner).with_context(|| format!("cannot join the network of {owner}"))?;
    let running = store.get(&owner_id)?.state.status;
    let pod = match running {
        Status::Running | Status::Paused => Pod::of(dirs, store, &owner_id)?,
        _ => None,
    };
    let Some(pod) = pod else { bail!("cannot join network of a non running container: {owner_id}") };
    pod.create(&config.id).await?;
    Ok(pod)
}

/// Has a container's process start, and says what the user should know of that.
///
/// # Errors
/// When it can't be started.
pub(crate) async fn begin(pod: &Pod, config: &Config, timeline: bool) -> anyhow::Result<()> {
    let started = pod.start(&config.id, "", timeline).await;
    let started = match config.joins() {
        // What is wrong may be the other's: that its VM takes no more disks.
        Some(owner) => started.with_context(|| format!("cannot start a container beside {owner}"))?,
        None => started?,
    };
    started.notes.iter().for_each(|note| tracing::warn!("{note}"));
    Ok(())
}

/// Returns when the addresses and ports of a container that has ended are free. Pasta has them for as long as it lives.
///
/// # Errors
/// When the pod's lock can't be taken.
pub(crate) async fn settle(pod: &Pod, config: &Config) -> anyhow::Result<()> {
    if let NetworkMode::Pasta(_) = config.network.options.mode {
        pod.gone().await?;
    }
    Ok(())
}

/// Removes the record of a container that could not be started, if it was to be removed at its end.
pub(crate) fn forget(dirs: &Dirs, store: &Store, config: &Config) {
    // The supervisor may have done it.
    if config.auto_remove && store.remove(&config.id).is_ok() {
        events::record(dirs, &Event::of_container(config, "destroy"));
    }
}

/// Removes the record of a container whose supervisor has been killed, as `error` says, if it was to be removed at its end.
pub(crate) async fn forget_lost(dirs: &Dirs, store: &Store, config: &Config, error: &anyhow::Error) {
    if !matches!(error.downcast_ref(), Some(husk_sandbox::Error::SupervisorDied { .. }))
        || config.joins().is_some()
    {
        return;
    }
    // Its VM takes a moment to end.
    let (dirs_of_wait, id) = (dirs.clone(), config.id.clone());
    let gone = tokio::task::spawn_blocking(move || rundir::wait_until_gone(&dirs_of_wait, &id)).await;
    if matches!(gone, Ok(Ok(()))) {
        forget(dirs, store, config);
    }
}

/// A session with a container's first process, which is attached to already.
///
/// # Errors
/// When it can't be attached to.
pub(crate) fn session(
    pod: &Pod,
    config: &Config,
    stdin: bool,
    sig_proxy: bool,
    detach_keys: &Keys,
) -> husk_sandbox::Result<Session> {
    let terminal = config.options.terminal;
    let wanted = Streams { stdin: stdin && config.options.interactive, stdout: true, stderr: !terminal };
    Ok(Session {
        pod: pod.clone(),
        id: config.id.clone(),
        exec_id: String::new(),
        streams: pod.attach(&config.id, "", wanted)?,
        terminal,
        sig_proxy,
        detach_keys: detach_keys.clone(),
    })
}
