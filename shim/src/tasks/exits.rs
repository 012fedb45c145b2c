//! How processes end, and that it is told: a container's further processes before its first one, each after its start.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use containerd_shim_protos::{events::task::TaskExit, topics};
use husk_sandbox::pod::{Exit, Pod, state::Status};
use tokio::time::timeout;

use super::{Tasks, lock};
use crate::{entry::Role, error::Error, message};

const SIGNALLED: u32 = 128;
const SIGINT: u32 = libc::SIGINT.unsigned_abs();
pub(super) const SIGKILL: u32 = libc::SIGKILL.unsigned_abs();
const SIGTERM: u32 = libc::SIGTERM.unsigned_abs();

/// How long further processes may take to end after their container's first one.
const EXECS_END_WITHIN: Duration = Duration::from_secs(10);

/// A process that ends now.
pub(super) fn now(code: u32) -> Exit {
    Exit { code, oom_killed: false, at: SystemTime::now() }
}

/// A process that could not be started: codes as a shell's.
pub(super) fn never_ran(error: &Error) -> Exit {
    now(match error {
        Error::Sandbox(error) if error.exit_code() != 125 => error.exit_code().into(),
        _ => 255,
    })
}

/// The code with which the pause container of Kubernetes ends by a signal, if it does: it is the first process of its
/// namespace, ends well by the signals that it waits for, and does not notice the others.
pub(super) fn of_pause(signal: u32) -> Option<u32> {
    match signal {
        SIGKILL => Some(SIGNALLED + SIGKILL),
        SIGINT | SIGTERM => Some(0),
        _ => None,
    }
}

impl Tasks {
    /// Waits for a container's first process.
    pub(super) async fn attend_container(self: Arc<Self>, pod: Arc<Pod>, id: String) {
        let exit = wait(&pod, &id, "").await;
        let starting = lock(&self.hosts).get(&id).map(|host| host.starting.clone());
        let Some(starting) = starting else { return };
        let _starting = starting.lock().await;
        let running = self.containers().get(&id).map(|container| container.watch_running_execs());
        let running = running.unwrap_or_default();
        if !running.is_empty() {
            // They may be gone already, with their PID namespace.
            let _ = pod.signal(&id, "", SIGKILL, true).await;
        }
        let all = async {
            for mut exec in running {
                let _ = exec.wait_for(Option::is_some).await;
            }
        };
        if timeout(EXECS_END_WITHIN, all).await.is_err() {
            tracing::warn!("further processes of container {id} outlive it");
        }
        if exit.oom_killed {
            self.tell_oom(&id);
        }
        self.ended(&id, "", exit);
    }

    /// Waits for a further process.
    pub(super) async fn attend_exec(self: Arc<Self>, pod: Arc<Pod>, id: String, exec_id: String) {
        let exit = wait(&pod, &id, &exec_id).await;
        self.ended(&id, &exec_id, exit);
    }

    /// The container that stands for the pod ends with it, unless it has been killed before.
    pub(super) async fn attend_sandbox(self: Arc<Self>, pod: Arc<Pod>, id: String) {
        let reason = pod.ended().await;
        let running = self
            .containers()
            .get(&id)
            .is_ok_and(|sandbox| !matches!(sandbox.init.status, Status::Stopped(_)));
        if running {
            tracing::error!("the pod's virtual machine has ended: {reason}");
            self.ended(&id, "", now(SIGNALLED + SIGKILL));
        }
    }

    /// Notes that a process has ended, and tells it.
    pub(super) fn ended(&self, id: &str, exec_id: &str, exit: Exit) {
        let pid = {
            let mut containers = self.containers();
            // Whoever has deleted it does not want to hear of it.
            let Ok(process) = containers.process_mut(id, exec_id) else { return };
            process.exited(exit);
            let pid = process.own.pid;
            if containers.get(id).is_ok_and(|container| container.own.role == Role::Sandbox) {
                return;
            }
            pid
        };
        let event = TaskExit {
            container_id: id.to_owned(),
            id: if exec_id.is_empty() { id } else { exec_id }.to_owned(),
            pid,
            exit_status: exit.code,
            exited_at: Some(message::timestamp(exit.at)).into(),
            ..TaskExit::default()
        };
        self.publisher.publish(topics::TASK_EXIT_EVENT_TOPIC, &event);
    }
}

/// How a process ends. One whose VM ends was killed.
async fn wait(pod: &Pod, id: &str, exec_id: &str) -> Exit {
    match pod.wait(id, exec_id).await {
        Ok(exit) => exit,
        Err(error) => {
            tracing::error!("container {id} is taken for killed: {}", Error::from(error).text());
            now(SIGNALLED + SIGKILL)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pause_ends_as_kubernetes_does() {
        assert_eq!(
            [of_pause(9), of_pause(15), of_pause(2), of_pause(1)],
            [Some(137), Some(0), Some(0), None]
        );
    }

    #[test]
    fn what_never_ran_has_a_shells_code() {
        let missing = Error::from(husk_sandbox::Error::ExecutableNotFound(String::new()));
        assert_eq!([never_ran(&missing).code, never_ran(&Error::invalid("x")).code], [127, 255]);
    }
}
