//! A container's life: it is started, ends, and is perhaps started again.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use husk_sandbox::{
    Error, Result,
    pod::{Exit, state::Action},
    store,
};
use tokio::time::sleep;

use crate::{
    end::KILLED,
    hub::Hub,
    supervisor::{Supervisor, unknown},
};

/// The first wait before a restart; each further one is twice as long (as Docker's).
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MOST: Duration = Duration::from_secs(60);
/// A container that has run for so long is not one that keeps failing.
const SETTLED: Duration = Duration::from_secs(10);

/// Waits for a container's end, again and again for as long as it is started again.
async fn attend(supervisor: Arc<Supervisor>, id: String) {
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
    // Who wants it to end does not wait for those who look at it.
    hub.finish(|| !supervisor.is_stopping(id)).await;
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
    /// Starts a container, and the VM with the first one. Returns when its process runs.
    ///
    /// # Errors
    /// When it is not in a state for that, or can't be started. Its record says so then.
    pub(crate) async fn start(self: &Arc<Self>, id: &str) -> Result<()> {
        let _starting = self.starting.lock().await;
        self.allow(id, "", Action::Start)?;
        self.start_now(id).await?;
        tokio::spawn(attend(self.clone(), id.to_owned()));
        Ok(())
    }

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
}
