//! How a container ends: by itself, by a client's wish, or with its VM; and whether it is started again then.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use husk_sandbox::{
    Error, Result,
    container::ContainerOptions,
    pod::{
        Exit,
        state::{Action, Status},
    },
    signals,
    store::{self, Timestamp},
};
use tokio::time::{sleep, timeout};

use crate::{
    hub::Hub,
    supervisor::{Supervisor, unknown},
};

/// Exit code of what was killed.
const KILLED: u32 = 128 + SIGKILL;
const SIGKILL: u32 = libc::SIGKILL.unsigned_abs();
/// How long a guest may take to pass a signal on, and a container to end by SIGKILL; then its VM is ended.
const OBEY_WITHIN: Duration = Duration::from_secs(3);
/// How long a guest may take to write what it has kept of a container's disk.
const FLUSH_WITHIN: Duration = Duration::from_secs(10);
/// The first wait before a restart; each further one is twice as long (as Docker's).
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MOST: Duration = Duration::from_secs(60);
/// A container that has run for so long is not one that keeps failing.
const SETTLED: Duration = Duration::from_secs(10);

/// Waits for a container's end, again and again for as long as it is started again.
pub(crate) async fn attend(supervisor: Arc<Supervisor>, id: String) {
    let mut backoff = BACKOFF_FIRST;
    loop {
        let Ok(exit) = wait_for_end(&supervisor, &id).await else { break };
        let Ok(Some(stop)) = end_or_restart(&supervisor, &id, &exit).await else { break };
        supervisor.take_away(&id).await;
        let ran = supervisor.containers().get(&id).map_or(Duration::ZERO, |c| c.own.state.started.elapsed());
        backoff = if ran >= SETTLED { BACKOFF_FIRST } else { backoff };
        tokio::select! {
            () = sleep(backoff) => {}
            () = stop.notified() => {
                finish(&supervisor, &id, &exit).await;
                break;
            }
        }
        backoff = (backoff * 2).min(BACKOFF_MOST);
        if let Err(error) = supervisor.start_again(&id).await {
            tracing::warn!("cannot start the container again: {}", husk_base::chain::text(&error));
            finish(&supervisor, &id, &failure(&error)).await;
            break;
        }
    }
    supervisor.after_end(&id).await;
}

/// How a container's process ends. One whose VM ends was killed; its record says why.
async fn wait_for_end(supervisor: &Supervisor, id: &str) -> Result<Exit> {
    let pod = supervisor.pod()?;
    let exit = match pod.wait(id, "").await {
        Ok(exit) => exit,
        Err(error) => {
            let text = husk_base::chain::text(&error);
            supervisor.change(id, |entry| {
                if !entry.stopping {
                    entry.state.error = text;
                }
            })?;
            Exit { code: KILLED, oom_killed: false, at: SystemTime::now() }
        }
    };
    let hub = supervisor.hub(id, "")?;
    hub.finish().await;
    supervisor.finish_log(id);
    Ok(exit)
}

/// Notes the end, or that the container is to be started again: then what wakes the wait for that.
async fn end_or_restart(
    supervisor: &Supervisor,
    id: &str,
    exit: &Exit,
) -> Result<Option<Arc<tokio::sync::Notify>>> {
    // A client may have changed it.
    let restart = supervisor.store.config(id).map(|config| config.restart);
    let code = i32::try_from(exit.code).unwrap_or(i32::MAX);
    let again = {
        let containers = supervisor.containers();
        let entry = &containers.get(id).map_err(unknown)?.own;
        let policy = restart.unwrap_or(entry.config.restart);
        (!entry.stopping && policy.applies(code, entry.state.restarts)).then(|| entry.stop.clone())
    };
    if again.is_none() {
        finish(supervisor, id, exit).await;
        return Ok(None);
    }
    supervisor.change(id, |entry| {
        entry.state.ended(exit);
        entry.state.status = store::Status::Restarting;
        entry.state.pod = supervisor.dir.id().to_owned();
        entry.state.pid = std::process::id();
    })?;
    died(supervisor, id, exit);
    supervisor.containers().process_mut(id, "").map_err(unknown)?.exited(*exit);
    Ok(again)
}

/// Writes down that a container's process has ended.
fn died(supervisor: &Supervisor, id: &str, exit: &Exit) {
    if exit.oom_killed {
        supervisor.event(id, "oom", &[]);
    }
    supervisor.event(id, "die", &[("exitCode", exit.code.to_string())]);
}

/// Notes that a container has ended for good, and tells those that wait. Its name, certain addresses and ports are free then.
async fn finish(supervisor: &Supervisor, id: &str, exit: &Exit) {
    let wanted = supervisor.containers().get(id).is_ok_and(|c| c.own.config.network.is_wanted_by_others());
    if wanted
        && supervisor.is_first(id)
        && let Ok(pod) = supervisor.pod()
        && let Err(error) = pod.close_network().await
    {
        tracing::warn!("the network is not cleaned up: {}", husk_base::chain::text(&error));
    }
    if supervisor.is_first(id) && supervisor.wants_timeline(id) {
        supervisor.add_timeline(id).await;
    }
    let mut ran = false;
    let changed = supervisor.change(id, |entry| {
        ran = matches!(entry.state.status, store::Status::Running | store::Status::Paused);
        entry.state.ended(exit);
        entry.state.stopped_by_user = entry.stopping && !entry.starts_again;
        entry.removed = entry.config.auto_remove && !entry.starts_again;
    });
    let Ok(removed) = changed else { return };
    if ran {
        died(supervisor, id, exit);
    }
    if removed {
        supervisor.remove_record(id);
    }
    if let Ok(container) = supervisor.containers().get_mut(id) {
        container.init.exited(*exit);
        container.own.stopped.notify_waiters();
    }
}

/// How a container ended that could not be started again.
fn failure(error: &Error) -> Exit {
    Exit { code: error.exit_code().into(), oom_killed: false, at: SystemTime::now() }
}

impl Supervisor {
    /// Makes a container that has ended and starts it, without a client's asking.
    async fn start_again(self: &Arc<Self>, id: &str) -> Result<()> {
        {
            let mut containers = self.containers();
            let container = containers.get_mut(id).map_err(unknown)?;
            container.own.state.restarts += 1;
            container.init.renew();
            container.init.own.hub = Hub::new(container.own.config.options.stdin_once);
        }
        self.start_now(id).await
    }

    /// What follows the end that clients have been told of: the VM is taken apart, or the container taken out of the pod.
    async fn after_end(&self, id: &str) {
        if !self.is_first(id) {
            self.take_away(id).await;
            self.forget(id);
            return;
        }
        let members: Vec<String> =
            self.containers().ids().filter(|other| *other != id).map(str::to_owned).collect();
        self.flush(id, &members).await;
        self.end_vm().await;
        for member in members {
            let watch = self.containers().process(&member, "").map(|process| process.watch_exit());
            if let Ok(mut exit) = watch {
                // Each is told by the end of the VM.
                let _ = timeout(OBEY_WITHIN, exit.wait_for(Option::is_some)).await;
            }
        }
        self.finished.send_replace(true);
    }

    /// Has the guest write what it has kept of disks that are to be found again.
    async fn flush(&self, id: &str, members: &[String]) {
        let kept: Vec<String> = {
            let containers = self.containers();
            let all = members.iter().map(String::as_str).chain([id]);
            let kept = all.filter(|id| containers.get(id).is_ok_and(|c| !c.own.config.auto_remove));
            kept.map(str::to_owned).collect()
        };
        let Ok(pod) = self.pod() else { return };
        for id in kept {
            if !matches!(timeout(FLUSH_WITHIN, pod.delete(&id)).await, Ok(Ok(()))) {
                tracing::warn!("the guest did not write all that container {id} has written to its disk");
            }
        }
    }

    /// Has a container end, in the end by ending its VM.
    ///
    /// # Errors
    /// When it does not run.
    pub(crate) async fn stop(
        self: &Arc<Self>,
        id: &str,
        seconds: Option<i64>,
        signal: u32,
        starts_again: bool,
    ) -> Result<()> {
        let (mut exit, signal, seconds, paused, waiting) = {
            let mut containers = self.containers();
            let container = containers.get_mut(id).map_err(unknown)?;
            let entry = &mut container.own;
            entry.stopping = true;
            entry.starts_again = starts_again;
            let named = entry.config.options.stop_signal.as_deref();
            let named = named.or(entry.config.image_config.stop_signal.as_deref()).and_then(signals::parse);
            let stop_signal = named.unwrap_or(libc::SIGTERM).unsigned_abs();
            let default = entry.config.options.stop_timeout_s.unwrap_or(ContainerOptions::STOP_TIMEOUT_S);
            // Between two lives, or before its first.
            let not_yet = entry.state.status == store::Status::Restarting
                || (container.init.status == Status::Created && self.is_starting());
            let waiting = not_yet.then(|| (entry.stop.clone(), entry.stopped.clone()));
            let paused = container.init.status == Status::Paused;
            let signal = if signal == 0 { stop_signal } else { signal };
            (container.init.watch_exit(), signal, seconds.unwrap_or(default), paused, waiting)
        };
        if let Some((stop, stopped)) = waiting {
            let stopped = stopped.notified();
            stop.notify_one();
            if timeout(OBEY_WITHIN, stopped).await.is_err()
                && let Ok(pod) = self.pod()
            {
                let _ = pod.stop().await;
            }
            return Ok(());
        }
        if exit.borrow().is_some() {
            return Ok(());
        }
        if let Err(error) = self.allow(id, "", Action::Kill) {
            self.change(id, |entry| entry.stopping = false)?;
            return Err(error);
        }
        if paused {
            let _ = timeout(OBEY_WITHIN, self.resume(id)).await;
        }
        if signal == SIGKILL {
            self.kill_now(id).await;
            return Ok(());
        }
        let pod = self.pod()?;
        self.event(id, "kill", &[("signal", signal.to_string())]);
        // A guest that does not pass it on is given the same time.
        let _ = timeout(OBEY_WITHIN, pod.signal(id, "", signal, false)).await;
        match u64::try_from(seconds) {
            Ok(seconds) => {
                let _ = timeout(Duration::from_secs(seconds), exit.wait_for(Option::is_some)).await;
            }
            Err(_) => drop(exit.wait_for(Option::is_some).await),
        }
        if exit.borrow().is_none() {
            self.kill_now(id).await;
        }
        Ok(())
    }

    /// Has a container end by SIGKILL, or with its VM when the guest does not obey.
    pub(crate) async fn kill_now(self: &Arc<Self>, id: &str) {
        let Ok(mut exit) = self.containers().process(id, "").map(|process| process.watch_exit()) else {
            return;
        };
        self.event(id, "kill", &[("signal", SIGKILL.to_string())]);
        if let Ok(pod) = self.pod() {
            let _ = timeout(OBEY_WITHIN, pod.signal(id, "", SIGKILL, false)).await;
        }
        if timeout(OBEY_WITHIN, exit.wait_for(Option::is_some)).await.is_err() {
            tracing::warn!("container {id} does not end: its virtual machine is ended");
            if let Ok(pod) = self.pod() {
                let _ = pod.stop().await;
            }
            let _ = timeout(OBEY_WITHIN, exit.wait_for(Option::is_some)).await;
        }
    }

    /// Sends a signal that a user has chosen.
    ///
    /// # Errors
    /// When the container does not run, or the guest does not answer.
    pub(crate) async fn kill(self: &Arc<Self>, id: &str, signal: u32) -> Result<()> {
        self.allow(id, "", Action::Kill)?;
        if signal == SIGKILL {
            // As Docker: it is not started again.
            self.change(id, |entry| entry.stopping = true)?;
            self.kill_now(id).await;
            return Ok(());
        }
        self.event(id, "kill", &[("signal", signal.to_string())]);
        self.pod()?.signal(id, "", signal, false).await
    }

    /// Stops all processes of a container where they are.
    ///
    /// # Errors
    /// When it does not run.
    pub(crate) async fn pause(&self, id: &str) -> Result<()> {
        self.allow(id, "", Action::Pause)?;
        self.pod()?.pause(id).await?;
        self.set_status(id, Status::Paused, store::Status::Paused)?;
        self.event(id, "pause", &[]);
        Ok(())
    }

    /// Lets a paused container continue.
    ///
    /// # Errors
    /// When it is not paused.
    pub(crate) async fn resume(&self, id: &str) -> Result<()> {
        self.allow(id, "", Action::Resume)?;
        self.pod()?.resume(id).await?;
        self.set_status(id, Status::Running, store::Status::Running)?;
        self.event(id, "unpause", &[]);
        Ok(())
    }

    fn set_status(&self, id: &str, status: Status, recorded: store::Status) -> Result<()> {
        {
            let mut containers = self.containers();
            let process = containers.process_mut(id, "").map_err(unknown)?;
            if matches!(process.status, Status::Stopped(_)) {
                return Ok(());
            }
            process.status = status;
        }
        self.change(id, |entry| entry.state.status = recorded).map(drop)
    }

    /// Takes a container out of the table: another of its id may join.
    pub(crate) fn forget(&self, id: &str) {
        self.containers().remove(id);
        self.forgotten.send_replace(());
    }

    /// Removes the record of a container that was to be removed at its end.
    pub(crate) fn remove_record(&self, id: &str) {
        match self.store.remove(id) {
            Ok(()) => self.event(id, "destroy", &[]),
            Err(error) => tracing::warn!("cannot remove the container: {}", husk_base::chain::text(&error)),
        }
    }

    fn finish_log(&self, id: &str) {
        let log = self.containers().get(id).map(|container| container.own.log.clone());
        let writer = log.ok().and_then(|log| crate::supervisor::lock(&log).take());
        let Some(writer) = writer else { return };
        let lost = writer.finish(jiff::Timestamp::now());
        if lost.records > 0 {
            let _ = self.change(id, |entry| entry.state.lost_log_lines += lost.records);
        }
    }

    /// A process's streams.
    ///
    /// # Errors
    /// When there is no such process.
    pub(crate) fn hub(&self, id: &str, exec_id: &str) -> Result<Arc<Hub>> {
        Ok(self.containers().process(id, exec_id).map_err(unknown)?.own.hub.clone())
    }

    fn wants_timeline(&self, id: &str) -> bool {
        self.containers().get(id).is_ok_and(|container| container.own.wants_timeline)
    }

    async fn add_timeline(&self, id: &str) {
        let Ok(pod) = self.pod() else { return };
        let marks = pod.timeline().await;
        let marks = marks.into_iter().map(|(stage, at)| (stage.name(), at));
        let _ = self.change(id, |entry| entry.timeline.extend(marks));
    }

    /// The container could not be started, or was never asked to: what is known of that is kept.
    pub(crate) fn note_failure(&self, id: &str, error: &Error) {
        let text = husk_base::chain::text(error);
        let _ = self.change(id, |entry| {
            entry.state.error = text;
            entry.state.exit_code = error.exit_code().into();
            entry.state.finished = Timestamp::now();
        });
    }
}
