//! The pod's own life: it starts with the first container, and ends with the last one or with the one that stands for it.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use containerd_shim_protos::{events::task::TaskOOM, topics};
use husk_sandbox::pod::{Event, Pod, PodAssets, PodOptions};
use oci_spec::runtime::Spec;

use super::{Tasks, lock};
use crate::{
    cgroup,
    error::Error,
    netns::Anchor,
    plan::{self, Network},
    pod_id::pod_id,
};

/// The pod, once there is one.
#[derive(Debug, Default)]
pub(super) struct PodSlot {
    /// Held while it is started.
    starting: tokio::sync::Mutex<()>,
    pod: Mutex<Option<Living>>,
}

#[derive(Debug)]
struct Living {
    pod: Arc<Pod>,
    /// Keeps the network namespace.
    anchor: Anchor,
    /// The cgroup that was made for it.
    cgroup: Option<PathBuf>,
}

impl Tasks {
    /// The pod.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn pod(&self) -> Result<Arc<Pod>, Error> {
        let gone = || Error::FailedPrecondition("the pod has no virtual machine: it has been stopped".into());
        lock(&self.pod.pod).as_ref().map(|living| living.pod.clone()).ok_or_else(gone)
    }

    /// The pod's network namespace.
    pub(super) fn network(&self) -> Result<Network, Error> {
        let gone = || Error::FailedPrecondition("the pod has been stopped".into());
        let path = lock(&self.pod.pod).as_ref().map(|living| living.anchor.path()).ok_or_else(gone)?;
        Ok(Network::Namespace(path))
    }

    /// Starts the pod that the spec of its first container asks for, unless it runs.
    ///
    /// # Errors
    /// When the spec asks for something impossible, which is found out before anything is touched, or the VM can't be started.
    pub(super) async fn start_pod(self: &Arc<Self>, id: &str, spec: &Spec) -> Result<Arc<Pod>, Error> {
        let _starting = self.pod.starting.lock().await;
        if let Ok(pod) = self.pod() {
            return Ok(pod);
        }
        let defaults = &self.config.pod;
        let plan = plan::plan(id, spec, defaults)?;
        let assets = PodAssets::find(defaults.kernel.as_deref())?;
        let anchor = Anchor::new(&plan.network)?;
        let cgroup = plan.cgroup.as_deref().and_then(cgroup::make);
        let options = PodOptions {
            id: pod_id(&self.namespace, id),
            vcpus: plan.vcpus,
            mem_size_mib: plan.mem_size_mib,
            netns: Some(anchor.path()),
            hostname: plan.hostname,
            cgroup: cgroup.clone(),
            timeout: Duration::from_secs(defaults.timeout_s),
            note: |text| log::warn!("{text}"),
        };
        let started = Pod::start(&self.dirs, &assets, options).await;
        let pod = match started {
            Ok(pod) => Arc::new(pod),
            Err(error) => {
                cgroup::remove(cgroup.as_deref());
                return Err(error.into());
            }
        };
        *lock(&self.pod.pod) = Some(Living { pod: pod.clone(), anchor, cgroup });
        tokio::spawn(self.clone().follow_events(pod.clone()));
        Ok(pod)
    }

    /// Ends the VM, if there is one. What can't be taken away is left to the next start.
    pub(crate) async fn stop_pod(&self) {
        let Some(Living { pod, anchor, cgroup }) = lock(&self.pod.pod).take() else { return };
        if let Err(error) = pod.stop().await {
            log::warn!("the pod is not cleaned up completely: {}", Error::from(error).text());
        }
        drop(anchor);
        cgroup::remove(cgroup.as_deref());
    }

    /// Tells what happens in the VM, until it ends.
    async fn follow_events(self: Arc<Self>, pod: Arc<Pod>) {
        while let Ok(Event::Oom { container_id }) = pod.next_event().await {
            self.tell_oom(&container_id);
        }
    }

    /// Tells that a container lacks memory, once.
    pub(super) fn tell_oom(&self, id: &str) {
        if lock(&self.told_oom).insert(id.to_owned()) {
            let event = TaskOOM { container_id: id.to_owned(), ..TaskOOM::default() };
            self.publisher.publish(topics::TASK_OOM_EVENT_TOPIC, &event);
        }
    }
}
