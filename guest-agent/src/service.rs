//! Serves the API of agent.proto.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use husk_protocol::{
    agent::{
        self, AdjustClockRequest, ContainerRef, CreateContainerRequest, Empty, EventResponse, ExecRequest,
        ListProcessesResponse, Names, Network, PlugInRequest, ProcessRef, ProcessResponse, ReadClockResponse,
        Reason, ResizeTtyRequest, SetupSandboxRequest, SignalRequest, StatsResponse, Sysctls,
        TimelineResponse, UnpackProgressResponse, UnpackRequest, UpdateRequest, WaitResponse,
    },
    agent_ttrpc::Agent,
};
use ttrpc::{Result, r#async::TtrpcContext};

use crate::{
    clock,
    container::{self, Container, Means, Process},
    events::Events,
    failure::Failure,
    network,
    plug::plug,
    resolver::Resolver,
    sandbox, timeline,
    unpacking::Unpacking,
};

/// The machine's state, as the API sees it.
pub(crate) struct Service {
    means: Means,
    containers: Mutex<HashMap<String, Slot>>,
    /// Containers are created one after the other: they share mounts.
    creating: tokio::sync::Mutex<()>,
    events: Events,
    unpacking: Unpacking,
    /// None: the sandbox is not set up. Inner None: it has no resolver.
    resolver: Mutex<Option<Option<Resolver>>>,
    /// An unpack has begun, on a thread of its own; from then on the agent may not fork.
    has_threads: AtomicBool,
}

/// A container's place in the list of containers.
enum Slot {
    Creating,
    Ready(Arc<Container>),
}

impl Service {
    /// A service without containers. Must be called in a Tokio runtime.
    pub(crate) fn new(means: Means) -> std::io::Result<Self> {
        Ok(Self {
            means,
            containers: Mutex::default(),
            creating: tokio::sync::Mutex::default(),
            events: Events::start()?,
            unpacking: Unpacking::default(),
            resolver: Mutex::default(),
            has_threads: AtomicBool::new(false),
        })
    }

    async fn create(&self, request: CreateContainerRequest) -> std::result::Result<u32, Failure> {
        if self.has_threads.load(Ordering::Relaxed) {
            return Err(Failure::state("no containers run in a machine that unpacks"));
        }
        let id = request.container_id.clone();
        {
            let mut containers = self.lock();
            if containers.contains_key(&id) {
                let message = format!("container {id:?} exists already");
                return Err(Failure::new(Reason::ALREADY_EXISTS, message));
            }
            containers.insert(id.clone(), Slot::Creating);
        }
        let created = async {
            let _turn = self.creating.lock().await;
            let container = Arc::new(Container::create(&self.means, request).await?);
            let watched = self.events.watch(&id, container.cgroup().clone());
            if watched.is_err() {
                container.delete().await?;
            }
            watched.map(|()| container)
        };
        match created.await {
            Ok(container) => {
                let pid = pid_of(&*container.process("")?);
                self.lock().insert(id, Slot::Ready(container));
                Ok(pid)
            }
            Err(failure) => {
                self.lock().remove(&id);
                Err(failure)
            }
        }
    }

    fn container(&self, id: &str) -> std::result::Result<Arc<Container>, Failure> {
        match self.lock().get(id) {
            Some(Slot::Ready(container)) => Ok(Arc::clone(container)),
            Some(Slot::Creating) => Err(Failure::state(format!("container {id:?} is still being created"))),
            None => Err(Failure::new(Reason::NO_SUCH_CONTAINER, format!("no container {id:?}"))),
        }
    }

    fn process(&self, container_id: &str, exec_id: &str) -> std::result::Result<Arc<Process>, Failure> {
        self.container(container_id)?.process(exec_id)
    }

    fn resolver(&self) -> MutexGuard<'_, Option<Option<Resolver>>> {
        self.resolver.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pid_of(process: &Process) -> u32 {
    process.pid().as_raw().unsigned_abs()
}

#[async_trait]
impl Agent for Service {
    async fn unpack(&self, _: &TtrpcContext, request: UnpackRequest) -> Result<Empty> {
        if !self.lock().is_empty() {
            return Err(Failure::state("nothing is unpacked in a machine that runs containers").into());
        }
        self.has_threads.store(true, Ordering::Relaxed);
        self.unpacking.run(request).await?;
        Ok(Empty::new())
    }

    async fn unpack_progress(&self, _: &TtrpcContext, _: Empty) -> Result<UnpackProgressResponse> {
        Ok(UnpackProgressResponse { read_bytes: self.unpacking.read_bytes(), ..Default::default() })
    }

    async fn setup_sandbox(&self, _: &TtrpcContext, request: SetupSandboxRequest) -> Result<Empty> {
        let mut resolver = self.resolver();
        if resolver.is_some() {
            return Err(Failure::state("the sandbox was set up before").into());
        }
        let token =
            request.stream_token.parse().map_err(|e| Failure::invalid(format!("stream_token: {e}")))?;
        *resolver = Some(sandbox::set_up(&request, self.means.forward, &self.means.dial)?);
        // Set once, as the sandbox is.
        let _ = self.means.token.set(token);
        Ok(Empty::new())
    }

    async fn set_sysctls(&self, _: &TtrpcContext, request: Sysctls) -> Result<Empty> {
        container::set_sysctls(request.values)?;
        Ok(Empty::new())
    }

    async fn update_network(&self, _: &TtrpcContext, request: Network) -> Result<Empty> {
        network::apply(&request)?;
        Ok(Empty::new())
    }

    async fn plug_in(&self, _: &TtrpcContext, request: PlugInRequest) -> Result<Empty> {
        plug(&request.devices)?;
        Ok(Empty::new())
    }

    async fn start_resolver(&self, _: &TtrpcContext, request: agent::Resolver) -> Result<Empty> {
        match &mut *self.resolver() {
            Some(resolver @ None) => *resolver = Some(Resolver::start(&request, &self.means.dial)?),
            Some(Some(_)) => return Err(Failure::state("the sandbox has a resolver").into()),
            None => return Err(Failure::state("the sandbox is not set up").into()),
        }
        Ok(Empty::new())
    }

    async fn update_names(&self, _: &TtrpcContext, request: Names) -> Result<Empty> {
        match &*self.resolver() {
            Some(Some(resolver)) => resolver.set_names(&request)?,
            _ => return Err(Failure::state("the sandbox was set up without a resolver").into()),
        }
        Ok(Empty::new())
    }

    async fn create_container(
        &self,
        _: &TtrpcContext,
        request: CreateContainerRequest,
    ) -> Result<ProcessResponse> {
        let pid = self.create(request).await?;
        Ok(ProcessResponse { pid, ..Default::default() })
    }

    async fn start_container(&self, _: &TtrpcContext, request: ContainerRef) -> Result<Empty> {
        self.container(&request.container_id)?.start()?;
        Ok(Empty::new())
    }

    async fn exec(&self, _: &TtrpcContext, request: ExecRequest) -> Result<ProcessResponse> {
        let container = self.container(&request.container_id)?;
        let process = container.exec(&self.means, request).await?;
        Ok(ProcessResponse { pid: pid_of(&process), ..Default::default() })
    }

    async fn wait(&self, _: &TtrpcContext, request: ProcessRef) -> Result<WaitResponse> {
        let process = self.process(&request.container_id, &request.exec_id)?;
        Ok(process.wait().await)
    }

    async fn signal(&self, _: &TtrpcContext, request: SignalRequest) -> Result<Empty> {
        if request.all {
            self.container(&request.container_id)?.signal_all(request.signal)?;
        } else {
            self.process(&request.container_id, &request.exec_id)?.signal(request.signal)?;
        }
        Ok(Empty::new())
    }

    async fn resize_tty(&self, _: &TtrpcContext, request: ResizeTtyRequest) -> Result<Empty> {
        self.process(&request.container_id, &request.exec_id)?.resize(request.rows, request.columns)?;
        Ok(Empty::new())
    }

    async fn list_processes(&self, _: &TtrpcContext, request: ContainerRef) -> Result<ListProcessesResponse> {
        Ok(self.container(&request.container_id)?.processes(&self.means.reaper).await?)
    }

    async fn delete_process(&self, _: &TtrpcContext, request: ProcessRef) -> Result<Empty> {
        self.container(&request.container_id)?.forget(&request.exec_id)?;
        Ok(Empty::new())
    }

    async fn pause(&self, _: &TtrpcContext, request: ContainerRef) -> Result<Empty> {
        self.container(&request.container_id)?.pause().await?;
        Ok(Empty::new())
    }

    async fn resume(&self, _: &TtrpcContext, request: ContainerRef) -> Result<Empty> {
        self.container(&request.container_id)?.resume()?;
        Ok(Empty::new())
    }

    async fn update(&self, _: &TtrpcContext, request: UpdateRequest) -> Result<Empty> {
        self.container(&request.container_id)?.update(&request.resources_json)?;
        Ok(Empty::new())
    }

    async fn stats(&self, _: &TtrpcContext, request: ContainerRef) -> Result<StatsResponse> {
        Ok(self.container(&request.container_id)?.stats()?)
    }

    async fn next_event(&self, _: &TtrpcContext, _: Empty) -> Result<EventResponse> {
        let container_id = self.events.next_oom().await?;
        Ok(EventResponse { container_id, ..Default::default() })
    }

    async fn delete_container(&self, _: &TtrpcContext, request: ContainerRef) -> Result<Empty> {
        let container = self.container(&request.container_id)?;
        self.events.unwatch(&request.container_id);
        container.delete().await?;
        self.lock().remove(&request.container_id);
        Ok(Empty::new())
    }

    async fn read_clock(&self, _: &TtrpcContext, _: Empty) -> Result<ReadClockResponse> {
        Ok(ReadClockResponse { wall_ns: clock::now_ns(), ..Default::default() })
    }

    async fn adjust_clock(&self, _: &TtrpcContext, request: AdjustClockRequest) -> Result<Empty> {
        clock::adjust(request.slow_by_ns)?;
        Ok(Empty::new())
    }

    async fn timeline(&self, _: &TtrpcContext, _: Empty) -> Result<TimelineResponse> {
        Ok(timeline::response())
    }
}
