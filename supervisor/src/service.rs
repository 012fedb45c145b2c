//! The supervisor's API (`husk.pod.v1`): requests in, answers out. What is done is in [`Supervisor`].

use std::{panic::resume_unwind, sync::Arc};

use async_trait::async_trait;
use husk_protocol::{
    agent::ListProcessesResponse,
    pod::{
        CloseOutputRequest, Condition, ContainerRequest, ExecRequest, InfoRequest, InfoResponse, KillRequest,
        Mark, Message, Nothing, ResizeRequest, StartRequest, StartResponse, StopRequest, UpdateRequest,
        WaitRequest, WaitResponse,
    },
    pod_ttrpc::Pod,
};
use husk_sandbox::{
    Error, Result,
    pod::state::{Action, Status},
};
use tokio::task::JoinError;
use ttrpc::asynchronous::TtrpcContext;

use crate::{
    notes,
    supervisor::{Supervisor, unknown},
};

/// The API.
#[derive(Debug, Clone)]
pub(crate) struct Service(pub(crate) Arc<Supervisor>);

/// What a method answers.
type Answer<T> = ttrpc::Result<T>;

impl Service {
    /// Does what changes something to its end, also if the connection that it was asked by is lost meanwhile: ttrpc then drops
    /// the method, and half of it would be done.
    async fn whole<T: Send + 'static, F>(&self, work: impl FnOnce(Arc<Supervisor>) -> F) -> Answer<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        match tokio::spawn(work(self.0.clone())).await.map_err(JoinError::try_into_panic) {
            Ok(done) => Ok(done?),
            Err(Ok(panic)) => resume_unwind(panic),
            Err(Err(_)) => Err(Error::WrongState("the pod has ended".into()).into()),
        }
    }
}

#[async_trait]
impl Pod for Service {
    async fn info(&self, _: &TtrpcContext, _: InfoRequest) -> Answer<InfoResponse> {
        let first = self.0.dir.id().to_owned();
        let others: Vec<String> =
            self.0.containers().ids().filter(|id| *id != first).map(str::to_owned).collect();
        let containers = std::iter::once(first).chain(others).collect();
        Ok(InfoResponse { version: env!("CARGO_PKG_VERSION").into(), containers, ..Default::default() })
    }

    async fn create(&self, _: &TtrpcContext, request: ContainerRequest) -> Answer<Nothing> {
        self.0.join(&request.container_id).await?;
        Ok(Nothing::default())
    }

    async fn start(&self, _: &TtrpcContext, request: StartRequest) -> Answer<StartResponse> {
        let StartRequest { container_id, exec_id, timeline, .. } = request;
        // What was noted before is not about this start.
        notes::take();
        let pid = self.whole(async move |this: Arc<Supervisor>| {
            if !exec_id.is_empty() {
                return this.start_exec(&container_id, &exec_id).await;
            }
            if let Ok(container) = this.containers().get_mut(&container_id) {
                container.own.wants_timeline = timeline;
            }
            let started = this.start(&container_id).await;
            if let Err(error) = &started {
                this.could_not_start(&container_id, error);
            }
            started.map(|()| 0)
        });
        let pid = pid.await?;
        Ok(StartResponse { notes: notes::take(), pid, ..Default::default() })
    }

    async fn exec(&self, _: &TtrpcContext, request: ExecRequest) -> Answer<Nothing> {
        self.0.add_exec(request)?;
        Ok(Nothing::default())
    }

    async fn resize(&self, _: &TtrpcContext, request: ResizeRequest) -> Answer<Nothing> {
        let ResizeRequest { container_id, exec_id, rows, columns, .. } = request;
        self.0.allow(&container_id, &exec_id, Action::Resize)?;
        self.0.pod()?.resize(&container_id, &exec_id, rows, columns).await?;
        Ok(Nothing::default())
    }

    async fn kill(&self, _: &TtrpcContext, request: KillRequest) -> Answer<Nothing> {
        let KillRequest { container_id, signal, .. } = request;
        self.whole(async move |this: Arc<Supervisor>| this.kill(&container_id, signal).await).await?;
        Ok(Nothing::default())
    }

    async fn stop(&self, _: &TtrpcContext, request: StopRequest) -> Answer<Nothing> {
        let StopRequest { container_id, timeout_s, signal, restarting, .. } = request;
        let stop =
            async move |this: Arc<Supervisor>| this.stop(&container_id, timeout_s, signal, restarting).await;
        self.whole(stop).await?;
        Ok(Nothing::default())
    }

    async fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> Answer<WaitResponse> {
        let WaitRequest { container_id, exec_id, condition, .. } = request;
        let (mut exit, runs) = {
            let containers = self.0.containers();
            let process = containers.process(&container_id, &exec_id).map_err(unknown)?;
            (process.watch_exit(), matches!(process.status, Status::Running | Status::Paused))
        };
        let never_ran = !runs && exit.borrow().is_none();
        if never_ran && condition.enum_value() == Ok(Condition::NOT_RUNNING) && exec_id.is_empty() {
            return Ok(WaitResponse::default());
        }
        let ended = exit.wait_for(Option::is_some).await.ok().and_then(|exit| *exit);
        let exit = ended.ok_or_else(|| Error::NotFound("the process is forgotten".into()))?;
        let mut response =
            WaitResponse { exit_code: exit.code, oom_killed: exit.oom_killed, ..WaitResponse::default() };
        if exec_id.is_empty()
            && let Ok(container) = self.0.containers().get(&container_id)
        {
            response.error.clone_from(&container.own.state.error);
            let mark = |(stage, at_ns): &(&'static str, u64)| Mark {
                stage: (*stage).into(),
                at_ns: *at_ns,
                ..Mark::default()
            };
            response.timeline = container.own.timeline.iter().map(mark).collect();
        }
        Ok(response)
    }

    async fn close_output(&self, _: &TtrpcContext, request: CloseOutputRequest) -> Answer<Nothing> {
        let CloseOutputRequest { container_id, exec_id, stdout, .. } = request;
        let kind = if stdout { husk_protocol::StdioKind::Stdout } else { husk_protocol::StdioKind::Stderr };
        self.0.hub(&container_id, &exec_id)?.close_output(kind);
        Ok(Nothing::default())
    }

    async fn pause(&self, _: &TtrpcContext, request: ContainerRequest) -> Answer<Nothing> {
        let pause = async move |this: Arc<Supervisor>| this.pause(&request.container_id).await;
        self.whole(pause).await?;
        Ok(Nothing::default())
    }

    async fn resume(&self, _: &TtrpcContext, request: ContainerRequest) -> Answer<Nothing> {
        let resume = async move |this: Arc<Supervisor>| this.resume(&request.container_id).await;
        self.whole(resume).await?;
        Ok(Nothing::default())
    }

    async fn update(&self, _: &TtrpcContext, request: UpdateRequest) -> Answer<Nothing> {
        let UpdateRequest { container_id, resources_json, .. } = request;
        let config = self.0.store.config(&container_id)?;
        if !resources_json.is_empty() {
            let resources = serde_json::from_slice(&resources_json)
                .map_err(|error| Error::InvalidOption(format!("the limits are malformed: {error}")))?;
            self.0.allow(&container_id, "", Action::Update)?;
            self.0.pod()?.update(&container_id, resources).await?;
        }
        self.0.change(&container_id, |entry| entry.config = config)?;
        Ok(Nothing::default())
    }

    async fn stats(&self, _: &TtrpcContext, request: ContainerRequest) -> Answer<Message> {
        let stats = self.0.pod()?.stats(&request.container_id).await?;
        message(&stats)
    }

    async fn top(&self, _: &TtrpcContext, request: ContainerRequest) -> Answer<Message> {
        let processes = self.0.pod()?.processes(&request.container_id).await?;
        message(&ListProcessesResponse { processes, ..Default::default() })
    }
}

fn message(value: &impl protobuf::Message) -> Answer<Message> {
    let value = value.write_to_bytes().map_err(|error| Error::Agent(error.to_string()))?;
    Ok(Message { value, ..Message::default() })
}

impl Supervisor {
    /// Notes that a container could not be started; with the first one, the supervisor ends.
    fn could_not_start(&self, id: &str, error: &Error) {
        if !matches!(self.containers().process(id, "").map(|process| process.status), Ok(Status::Created)) {
            // It runs: it was to be started twice.
            return;
        }
        self.note_failure(id, error);
        let auto_remove = self.containers().get(id).is_ok_and(|container| container.own.config.auto_remove);
        if auto_remove {
            self.remove_record(id);
        }
        if let Ok(container) = self.containers().get(id) {
            container.init.own.hub.end();
            container.own.stopped.notify_waiters();
        }
        if self.is_first(id) {
            self.finished.send_replace(true);
        } else {
            self.forget(id);
        }
    }
}
