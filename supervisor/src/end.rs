//! What ends a container, or has it stand still, at a client's wish; and what is taken away after its end.

use std::{fs, pin::pin, sync::Arc, time::Duration};

use husk_sandbox::{
    Error, Result,
    container::ContainerOptions,
    pod::{
        Pod,
        state::{Action, Status},
    },
    signals, stalls,
    store::{self, Timestamp},
};
use tokio::time::timeout;

use crate::{
    hub::Hub,
    supervisor::{Supervisor, unknown},
};

const SIGKILL: u32 = libc::SIGKILL.unsigned_abs();
/// Exit code of what was killed.
pub(crate) const KILLED: u32 = 128 + SIGKILL;
/// How long a guest may take to pass a signal on, and a container to end by SIGKILL; then its VM is ended.
const OBEY_WITHIN: Duration = Duration::from_secs(3);
/// How long a guest that writes what it has kept of a container's disk may do nothing of the kind.
const PROGRESS_WITHIN: Duration = Duration::from_secs(10);
/// How long it may take in all, and wait for room on the host.
const FLUSH_WITHIN: Duration = Duration::from_mins(10);

impl Supervisor {
    /// What follows the end that clients have been told of: the VM is taken apart, or the container taken out of the pod.
    pub(crate) async fn after_end(&self, id: &str) {
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
            if !self.is_flushed(&pod, &id).await {
                tracing::warn!("the guest did not write to the disk all that container {id} has written");
                // It has just been there.
                let _ = self.change(&id, |entry| entry.state.unwritten = true);
            }
        }
    }

    /// Whether the guest has written all of a container's disk. One that gets on with it, or waits for room on the host, is waited for.
    async fn is_flushed(&self, pod: &Pod, id: &str) -> bool {
        let disk = self.store.scratch(id);
        let written = || fs::metadata(&disk).and_then(|metadata| metadata.modified()).ok();
        let mut deleted = pin!(pod.delete_within(id, FLUSH_WITHIN));
        let mut last = written();
        loop {
            if let Ok(done) = timeout(PROGRESS_WITHIN, &mut deleted).await {
                return done.is_ok();
            }
            let now = written();
            if now == last && stalls::of(&self.dirs, self.dir.id()).is_none() {
                return false;
            }
            last = now;
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

    pub(crate) fn finish_log(&self, id: &str) {
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

    pub(crate) fn wants_timeline(&self, id: &str) -> bool {
        self.containers().get(id).is_ok_and(|container| container.own.wants_timeline)
    }

    pub(crate) async fn add_timeline(&self, id: &str) {
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
