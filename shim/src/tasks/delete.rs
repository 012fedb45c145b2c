//! Taking containers and processes away.

use std::sync::Arc;

use containerd_shim_protos::{api::DeleteResponse, events::task::TaskDelete, topics};
use husk_sandbox::pod::state::{Action, Status};

use super::{Tasks, lock};
use crate::{error::Error, message};

impl Tasks {
    /// Takes a container or a further process away that does not run. With the last container, or the one that stands for it,
    /// the pod goes: at once, since nothing in it is needed any more.
    ///
    /// # Errors
    /// When there is none, or it runs.
    pub(crate) async fn delete(self: &Arc<Self>, id: &str, exec_id: &str) -> Result<DeleteResponse, Error> {
        self.containers().allow(id, exec_id, Action::Delete)?;
        let copying = lock(&self.copying).remove(&(id.to_owned(), exec_id.to_owned()));
        if let Some(copying) = copying {
            copying.finish().await;
        }
        let response = self.last_words(id, exec_id)?;
        if exec_id.is_empty() {
            self.delete_container(id, &response).await?;
        } else {
            if let (true, Ok(pod)) = (response.pid != 0, self.pod()) {
                forgiving(pod.delete_exec(id, exec_id).await);
            }
            self.containers().remove_exec(id, exec_id);
        }
        Ok(response)
    }

    async fn delete_container(&self, id: &str, response: &DeleteResponse) -> Result<(), Error> {
        let (is_sandbox, is_last) = {
            let containers = self.containers();
            (containers.get(id)?.own.is_sandbox(), containers.ids().count() == 1)
        };
        if is_sandbox || is_last {
            self.stop_pod().await;
        } else if let Ok(pod) = self.pod() {
            forgiving(pod.delete(id).await);
        }
        self.containers().remove(id);
        let hooks = lock(&self.hosts).remove(id).and_then(|host| host.hooks);
        if let Some(hooks) = hooks {
            hooks.stopped().await;
        }
        lock(&self.told_oom).remove(id);
        let event = TaskDelete {
            container_id: id.to_owned(),
            pid: response.pid,
            exit_status: response.exit_status,
            exited_at: response.exited_at.clone(),
            ..TaskDelete::default()
        };
        self.publisher.publish(topics::TASK_DELETE_EVENT_TOPIC, &event);
        Ok(())
    }

    /// How a process ended, if it has ever run.
    fn last_words(&self, id: &str, exec_id: &str) -> Result<DeleteResponse, Error> {
        let containers = self.containers();
        let process = containers.process(id, exec_id)?;
        let mut response = DeleteResponse { pid: process.own.pid, ..DeleteResponse::default() };
        if let Status::Stopped(exit) = process.status {
            response.exit_status = exit.code;
            response.exited_at = Some(message::timestamp(exit.at)).into();
        }
        Ok(response)
    }
}

/// What can't be taken away now goes with the pod; containerd could do nothing about it.
fn forgiving(done: husk_sandbox::Result<()>) {
    if let Err(error) = done {
        tracing::warn!("not cleaned up completely: {}", Error::from(error).text());
    }
}
