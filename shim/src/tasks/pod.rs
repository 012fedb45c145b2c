//! The pod's own life: it starts with the first container, and ends with the last one or with the one that stands for it.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use containerd_shim_protos::{events::task::TaskOOM, topics};
use husk_sandbox::{
    oci::{
        bundle::{self, Annotations},
        cgroup,
        hooks::HostHooks,
        netns::{Anchor, Network},
        plan,
    },
    pod::{self, Event, Pod, PodAssets, PodNetwork, PodOptions},
    rundir::{self, RunDir},
};
use oci_spec::runtime::{LinuxNamespaceType, Spec};

use super::{HostPart, Tasks, lock};
use crate::{error::Error, join, pod_id::pod_id};

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

/// A container that is in the pod because it shares something of another's has its network, too.
fn check_network(spec: &Spec, network: &Network) -> Result<(), Error> {
    let empty = Annotations::new();
    let of_pod = bundle::sandbox_id(spec.annotations().as_ref().unwrap_or(&empty)).is_some();
    let wanted = join::path(spec, LinuxNamespaceType::Network);
    match (wanted, network) {
        _ if of_pod => Ok(()),
        (Some(wanted), Network::Namespace(own)) if join::same(&wanted, own) => Ok(()),
        _ => Err(Error::invalid(
            "a container that shares processes or IPC with another is in its virtual machine, which has one network: share that, too (--network container:ID)",
        )),
    }
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

    /// Starts the pod that the spec of its first container asks for, unless it runs. A container's hooks run before, when its
    /// network namespace is there, so that the VM starts with the interfaces that they make. Returns the container's number, too.
    ///
    /// # Errors
    /// When the spec asks for something impossible, which is found out before anything is touched, when a hook fails, or the VM
    /// can't be started.
    pub(super) async fn start_pod(
        self: &Arc<Self>,
        id: &str,
        spec: &Spec,
        hooks: Option<HostHooks>,
    ) -> Result<(Arc<Pod>, u32), Error> {
        let _starting = self.pod.starting.lock().await;
        if let Ok(pod) = self.pod() {
            let network = self.network()?;
            check_network(spec, &network)?;
            let pid = self.number(id, &network, hooks).await?;
            return Ok((pod, pid));
        }
        let defaults = &self.config.pod;
        let plan = plan::plan(id, spec, defaults)?;
        let assets = PodAssets::find(defaults.kernel.as_deref())?;
        let anchor = Anchor::new(&plan.network)?;
        let pid = self.number(id, &Network::Namespace(anchor.path()), hooks).await?;
        let cgroup = plan.cgroup.as_deref().and_then(cgroup::make);
        let options = PodOptions {
            give_up: Arc::default(),
            vcpus: plan.vcpus,
            mem_size_mib: plan.mem_size_mib,
            network: PodNetwork::Namespace {
                path: anchor.path(),
                // Of Docker's name server its hooks have written there.
                resolv_conf: bundle::resolv_conf(spec),
            },
            roots: Vec::new(),
            shares: true,
            hostname: plan.hostname,
            cgroup: cgroup.clone(),
            timeout: Duration::from_secs(defaults.timeout_s),
        };
        let name = format!("{}{}", pod::NAME_PREFIX, self.pod_id(id));
        let started = match RunDir::create(&self.dirs, Some(&name)) {
            Ok((dir, _)) => Pod::start(&self.dirs, &assets, Arc::new(dir), options).await,
            Err(error) => Err(error),
        };
        let pod = match started {
            Ok(pod) => Arc::new(pod),
            Err(error) => {
                cgroup::remove(cgroup.as_deref());
                return Err(error.into());
            }
        };
        *lock(&self.pod.pod) = Some(Living { pod: pod.clone(), anchor, cgroup });
        tokio::spawn(self.clone().follow_events(pod.clone()));
        Ok((pod, pid))
    }

    /// Applies the settings of the guest's kernel that a sandbox's spec has.
    ///
    /// # Errors
    /// When the guest refuses one.
    pub(super) async fn set_sysctls(&self, pod: &Pod, spec: &Spec) -> Result<(), Error> {
        let sysctls = spec.linux().as_ref().and_then(|linux| linux.sysctl().clone());
        match sysctls.filter(|all| !all.is_empty()) {
            Some(sysctls) => Ok(pod.set_sysctls(sysctls).await?),
            None => Ok(()),
        }
    }

    /// The pod's name: its first container's may still be another's, which that has left (see `start`).
    fn pod_id(&self, id: &str) -> String {
        let address = join::own_address().unwrap_or_default();
        let alone = pod_id(&self.namespace, id);
        let name = format!("{}{alone}", pod::NAME_PREFIX);
        if rundir::find(&self.dirs, &name).is_ok() { pod_id(&address, id) } else { alone }
    }

    /// Gives a container its number on the host, in the pod's network namespace, and runs the hooks that want to know it.
    async fn number(&self, id: &str, network: &Network, hooks: Option<HostHooks>) -> Result<u32, Error> {
        let anchor = Anchor::new(network)?;
        let pid = anchor.pid();
        let host = HostPart { _anchor: anchor, hooks: hooks.clone(), starting: Arc::default() };
        lock(&self.hosts).insert(id.to_owned(), host);
        self.containers().process_mut(id, "")?.own.pid = pid;
        if let Some(hooks) = hooks {
            hooks.created(pid).await?;
        }
        Ok(pid)
    }

    /// Ends the VM, if there is one. What can't be taken away is left to the next start.
    pub(crate) async fn stop_pod(&self) {
        let Some(Living { pod, anchor, cgroup }) = lock(&self.pod.pod).take() else { return };
        if let Err(error) = pod.stop().await {
            tracing::warn!("the pod is not cleaned up completely: {}", Error::from(error).text());
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

    /// Tells that a container lacks memory, once. The guest may say anything.
    pub(super) fn tell_oom(&self, id: &str) {
        if self.containers().get(id).is_err() {
            return;
        }
        if lock(&self.told_oom).insert(id.to_owned()) {
            let event = TaskOOM { container_id: id.to_owned(), ..TaskOOM::default() };
            self.publisher.publish(topics::TASK_OOM_EVENT_TOPIC, &event);
        }
    }
}
