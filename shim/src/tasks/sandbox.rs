//! The pod as containerd's Sandbox API has it: it is there before its first container, and ends when it is told to.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use husk_sandbox::{
    oci::{host_namespaces, plan},
    pod::{StatsResponse, state::Status},
};
use oci_spec::runtime::Spec;
use tokio::time::sleep;

use super::{Tasks, exits, lock};
use crate::{
    entry::{Entry, Role, Stdio},
    error::Error,
};

/// How long containerd may take to read that a sandbox is shut down. Its client takes an answer for lost that comes together with the
/// connection's end, at times, and then keeps the sandbox.
const ANSWER_READ: Duration = Duration::from_millis(500);

/// A pod that was made by the Sandbox API.
#[derive(Debug, Clone)]
pub(super) struct Sandbox {
    id: String,
    /// Where the files lie that its containers share.
    bundle: PathBuf,
    spec: Spec,
    created_at: SystemTime,
}

/// What is known of it.
#[derive(Debug)]
pub(crate) struct SandboxStatus {
    pub(crate) status: Status,
    /// A number of this host, in the pod's network namespace; 0 before its start.
    pub(crate) pid: u32,
    pub(crate) created_at: SystemTime,
}

impl Tasks {
    /// Notes what kind of pod is to be started.
    ///
    /// # Errors
    /// When there is one, or the spec asks for something impossible. Nothing on the host is touched.
    pub(crate) fn create_sandbox(&self, id: &str, bundle: &Path, spec: Spec) -> Result<(), Error> {
        host_namespaces::refuse(&spec)?;
        plan::plan(id, &spec, &self.config.pod)?;
        let mut sandbox = lock(&self.sandbox);
        if sandbox.is_some() {
            return Err(Error::AlreadyExists(format!("sandbox {id}: this shim has a sandbox already")));
        }
        let container = Entry::container(bundle.display().to_string(), Role::Sandbox, Stdio::default());
        self.containers().add(id, container)?;
        let (id, bundle, created_at) = (id.to_owned(), bundle.to_owned(), SystemTime::now());
        *sandbox = Some(Sandbox { id, bundle, spec, created_at });
        Ok(())
    }

    /// Starts the pod.
    ///
    /// # Errors
    /// When there is none, it has been started before, or can't be.
    pub(crate) async fn start_sandbox(self: &Arc<Self>, id: &str) -> Result<SandboxStatus, Error> {
        let sandbox = self.sandbox(id)?;
        if self.sandbox_status(id)?.status != Status::Created || self.pod().is_ok() {
            return Err(Error::FailedPrecondition(format!("sandbox {id} has been started before")));
        }
        let (pod, _) = self.start_pod(id, &sandbox.spec, None).await?;
        self.set_sysctls(&pod, &sandbox.spec).await?;
        self.containers().process_mut(id, "")?.status = Status::Running;
        tokio::spawn(self.clone().attend_sandbox(pod, id.to_owned()));
        self.sandbox_status(id)
    }

    /// How far the pod is.
    ///
    /// # Errors
    /// When there is none of this id.
    pub(crate) fn sandbox_status(&self, id: &str) -> Result<SandboxStatus, Error> {
        let created_at = self.sandbox(id)?.created_at;
        let containers = self.containers();
        let init = containers.process(id, "")?;
        Ok(SandboxStatus { status: init.status, pid: init.own.pid, created_at })
    }

    /// Asks the pod whether it lives.
    ///
    /// # Errors
    /// When it does not.
    pub(crate) fn ping_sandbox(&self, id: &str) -> Result<(), Error> {
        match self.sandbox_status(id)?.status {
            Status::Running | Status::Paused => Ok(()),
            _ => Err(Error::FailedPrecondition(format!("sandbox {id} does not run"))),
        }
    }

    /// What the pod uses of the host.
    ///
    /// # Errors
    /// When there is none of this id, or it does not run.
    pub(crate) async fn sandbox_stats(&self, id: &str) -> Result<StatsResponse, Error> {
        self.sandbox(id)?;
        self.stats(id).await
    }

    /// Ends the pod, and what runs in it.
    ///
    /// # Errors
    /// When there is none of this id.
    pub(crate) async fn stop_sandbox(&self, id: &str) -> Result<(), Error> {
        self.sandbox(id)?;
        self.ended(id, "", exits::now(0));
        self.stop_pod().await;
        Ok(())
    }

    /// Ends the pod, if that has not been done, and then the shim.
    ///
    /// # Errors
    /// When there is none of this id. The shim ends all the same: it has no other.
    pub(crate) async fn shut_sandbox_down(self: &Arc<Self>, id: &str) -> Result<(), Error> {
        let stopped = self.stop_sandbox(id).await;
        let tasks = self.clone();
        tokio::spawn(async move {
            sleep(ANSWER_READ).await;
            tasks.finished.send_replace(true);
        });
        stopped
    }

    /// Where the files lie that the containers of such a pod share.
    pub(super) fn sandbox_bundle(&self) -> Option<PathBuf> {
        lock(&self.sandbox).as_ref().map(|sandbox| sandbox.bundle.clone())
    }

    fn sandbox(&self, id: &str) -> Result<Sandbox, Error> {
        let sandbox = lock(&self.sandbox).clone().filter(|sandbox| sandbox.id == id);
        sandbox.ok_or_else(|| Error::NotFound(format!("there is no sandbox {id}")))
    }
}
