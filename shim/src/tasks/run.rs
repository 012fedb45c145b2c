//! What is done with containers and processes that are there.

use std::{sync::Arc, time::Duration};

use containerd_shim_protos::{
    events::task::{TaskExecStarted, TaskPaused, TaskResumed, TaskStart},
    topics,
};
use husk_sandbox::{
    Error as Sandbox,
    pod::state::{Action, Status},
};

use tokio::time::timeout;

use super::{Tasks, exits, lock};
use crate::{error::Error, stdio};

/// How long a container may take to end when its first process was killed. One that waits for a disk may need some of it.
const KILLED_WITHIN: Duration = Duration::from_secs(30);

impl Tasks {
    /// Lets a process run. Returns its number.
    ///
    /// # Errors
    /// When there is no such process, it can't be started now, or its program can't be run.
    pub(crate) async fn start(self: &Arc<Self>, id: &str, exec_id: &str) -> Result<u32, Error> {
        if exec_id.is_empty() { self.start_container(id).await } else { self.start_exec(id, exec_id).await }
    }

    async fn start_container(&self, id: &str) -> Result<u32, Error> {
        self.containers().allow(id, "", Action::Start)?;
        let host = lock(&self.hosts).get(id).map(|host| (host.starting.clone(), host.hooks.clone()));
        let (starting, hooks) =
            host.ok_or_else(|| Error::State(format!("container {id} is not made yet")))?;
        let _starting = starting.lock().await;
        self.containers().allow(id, "", Action::Start)?;
        if self.sandbox_pid(id)?.is_none() {
            self.pod()?.start_container(id).await?;
        }
        let (pid, stdin_closed) = {
            let mut containers = self.containers();
            let init = containers.process_mut(id, "")?;
            init.status = Status::Running;
            (init.own.pid, init.own.stdin_closed)
        };
        if let Some(copying) = lock(&self.copying).get_mut(&(id.to_owned(), String::new())) {
            copying.open_stdin(stdin_closed);
        }
        if let Some(hooks) = hooks
            && let Err(error) = hooks.started(pid).await
        {
            // As the specification has it: the container ends.
            if self.sandbox_pid(id)?.is_none() {
                let _ = self.pod()?.signal(id, "", libc::SIGKILL.unsigned_abs(), true).await;
            }
            return Err(error.into());
        }
        let event = TaskStart { container_id: id.to_owned(), pid, ..TaskStart::default() };
        self.publisher.publish(topics::TASK_START_EVENT_TOPIC, &event);
        Ok(pid)
    }

    async fn start_exec(self: &Arc<Self>, id: &str, exec_id: &str) -> Result<u32, Error> {
        let (spec, io) = {
            let mut containers = self.containers();
            containers.allow(id, exec_id, Action::Start)?;
            containers.allow(id, "", Action::Exec)?;
            let process = containers.process_mut(id, exec_id)?;
            // It is not started twice while this waits.
            process.status = Status::Running;
            (process.own.spec.take(), process.own.stdio.clone())
        };
        let started = async {
            let spec = spec.ok_or_else(|| Error::invalid("the process has no description"))?;
            let prepared = stdio::prepare(&io, id, &self.namespace).await?;
            let pod = self.pod()?;
            let created = pod.exec(id, exec_id, spec, stdio::flags(&io), None).await?;
            Ok((pod, created.pid, prepared.connect(created.streams)))
        };
        let (pod, pid, copying) = match started.await {
            Ok(started) => started,
            Err(error) => {
                if let Ok(process) = self.containers().process_mut(id, exec_id) {
                    process.exited(exits::never_ran(&error));
                }
                return Err(error);
            }
        };
        let key = (id.to_owned(), exec_id.to_owned());
        lock(&self.copying).insert(key.clone(), copying);
        let (stdin_closed, window) = {
            let mut containers = self.containers();
            let process = containers.process_mut(id, exec_id)?;
            process.own.pid = pid;
            (process.own.stdin_closed, process.own.window.take())
        };
        if let Some(copying) = lock(&self.copying).get_mut(&key) {
            copying.open_stdin(stdin_closed);
        }
        if let Some((rows, columns)) = window {
            // A process that has ended already has no window.
            let _ = pod.resize(id, exec_id, rows, columns).await;
        }
        let event = TaskExecStarted {
            container_id: id.to_owned(),
            exec_id: exec_id.to_owned(),
            pid,
            ..TaskExecStarted::default()
        };
        self.publisher.publish(topics::TASK_EXEC_STARTED_EVENT_TOPIC, &event);
        tokio::spawn(self.clone().attend_exec(pod, id.to_owned(), exec_id.to_owned()));
        Ok(pid)
    }

    /// Sends a signal to a process, or to all of a container. A guest that does not answer to SIGKILL is ended, and with it the pod.
    ///
    /// # Errors
    /// When there is no such process, it has ended, or does not run yet.
    pub(crate) async fn kill(
        self: &Arc<Self>,
        id: &str,
        exec_id: &str,
        signal: u32,
        all: bool,
    ) -> Result<(), Error> {
        if all
            && exec_id.is_empty()
            && matches!(self.containers().process(id, "")?.status, Status::Stopped(_))
        {
            // As runc's shim: all have ended.
            return Ok(());
        }
        self.containers().allow(id, exec_id, Action::Kill)?;
        if self.sandbox_pid(id)?.is_some() {
            if let Some(code) = exits::of_pause(signal) {
                self.ended(id, "", exits::now(code));
            }
            return Ok(());
        }
        // As runc's shim: all of a container are meant only with its first process.
        let signalled = self.pod()?.signal(id, exec_id, signal, all && exec_id.is_empty()).await;
        if signal != exits::SIGKILL || !exec_id.is_empty() {
            return Ok(signalled?);
        }
        if let Err(Sandbox::AgentTimeout { .. }) = signalled {
            tracing::error!(
                "the pod's virtual machine does not answer, and is killed in place of container {id}"
            );
            self.stop_pod().await;
            return Ok(());
        }
        signalled?;
        tokio::spawn(Arc::clone(self).see_to_the_end(id.to_owned()));
        Ok(())
    }

    /// Ends the VM when a container does not end whose first process was killed: the guest may say so and not do it.
    async fn see_to_the_end(self: Arc<Self>, id: String) {
        let Ok(mut exit) = self.containers().process(&id, "").map(|process| process.watch_exit()) else {
            return;
        };
        if timeout(KILLED_WITHIN, exit.wait_for(Option::is_some)).await.is_err() {
            tracing::error!("container {id} does not end by SIGKILL: its pod's virtual machine is killed");
            self.stop_pod().await;
        }
    }

    /// Stops all processes of a container where they are.
    ///
    /// # Errors
    /// When it does not run.
    pub(crate) async fn pause(&self, id: &str) -> Result<(), Error> {
        self.containers().allow(id, "", Action::Pause)?;
        if self.sandbox_pid(id)?.is_none() {
            self.pod()?.pause(id).await?;
        }
        self.set_status(id, Status::Paused)?;
        let event = TaskPaused { container_id: id.to_owned(), ..TaskPaused::default() };
        self.publisher.publish(topics::TASK_PAUSED_EVENT_TOPIC, &event);
        Ok(())
    }

    /// Lets a paused container go on.
    ///
    /// # Errors
    /// When it is not paused.
    pub(crate) async fn resume(&self, id: &str) -> Result<(), Error> {
        self.containers().allow(id, "", Action::Resume)?;
        if self.sandbox_pid(id)?.is_none() {
            self.pod()?.resume(id).await?;
        }
        self.set_status(id, Status::Running)?;
        let event = TaskResumed { container_id: id.to_owned(), ..TaskResumed::default() };
        self.publisher.publish(topics::TASK_RESUMED_EVENT_TOPIC, &event);
        Ok(())
    }

    /// A container that has ended meanwhile stays so.
    fn set_status(&self, id: &str, status: Status) -> Result<(), Error> {
        let mut containers = self.containers();
        let init = containers.process_mut(id, "")?;
        if !matches!(init.status, Status::Stopped(_)) {
            init.status = status;
        }
        Ok(())
    }

    /// Sets the size of a process's terminal, now or when it runs.
    ///
    /// # Errors
    /// When there is no such process, or it has ended.
    pub(crate) async fn resize(&self, id: &str, exec_id: &str, rows: u32, columns: u32) -> Result<(), Error> {
        {
            let mut containers = self.containers();
            let process = containers.process(id, exec_id)?;
            // As runc's shim: what has no terminal need not run either, unless it is an exec.
            if !exec_id.is_empty() || process.own.stdio.terminal {
                containers.allow(id, exec_id, Action::Resize)?;
            }
            let process = containers.process_mut(id, exec_id)?;
            // No size is what a client says whose own terminal has none.
            if !process.own.stdio.terminal || rows == 0 || columns == 0 {
                return Ok(());
            }
            if process.own.pid == 0 {
                process.own.window = Some((rows, columns));
                return Ok(());
            }
        }
        if self.sandbox_pid(id)?.is_some() {
            return Ok(());
        }
        Ok(self.pod()?.resize(id, exec_id, rows, columns).await?)
    }

    /// The shim's end of a process's input is closed, now or when the process runs.
    ///
    /// # Errors
    /// When there is no such process.
    pub(crate) fn close_stdin(&self, id: &str, exec_id: &str) -> Result<(), Error> {
        {
            let mut containers = self.containers();
            containers.get(id)?;
            // As runc's shim: this is not "not found".
            let process =
                containers.process_mut(id, exec_id).map_err(|error| Error::State(error.to_string()))?;
            process.own.stdin_closed = true;
        }
        if let Some(copying) = lock(&self.copying).get_mut(&(id.to_owned(), exec_id.to_owned())) {
            copying.close_stdin();
        }
        Ok(())
    }
}
