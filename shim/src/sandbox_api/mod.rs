//! The Sandbox API (containerd's `runtime/sandbox/v1/sandbox.proto`), by which containerd 2.x makes a pod without a pause container
//! (`sandboxer = "shim"`): requests in, answers out. What is done is in [`Tasks`].

pub(crate) mod files;
pub(crate) mod spec;

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use containerd_shim_protos::{
    sandbox_api::{
        CreateSandboxRequest, CreateSandboxResponse, PingRequest, PingResponse, PlatformRequest,
        PlatformResponse, SandboxMetricsRequest, SandboxMetricsResponse, SandboxStatusRequest,
        SandboxStatusResponse, ShutdownSandboxRequest, ShutdownSandboxResponse, StartSandboxRequest,
        StartSandboxResponse, StopSandboxRequest, StopSandboxResponse, WaitSandboxRequest,
        WaitSandboxResponse,
    },
    sandbox_async::Sandbox,
    types::platform::Platform,
};
use ttrpc::asynchronous::TtrpcContext;

use crate::{
    bundle,
    error::Error,
    message,
    service::{Answer, told, whole},
    state::Status,
    tasks::Tasks,
};

/// What Kubernetes calls a pod that runs (`PodSandboxState`), ...
const READY: &str = "SANDBOX_READY";
/// ... and one that does not.
const NOT_READY: &str = "SANDBOX_NOTREADY";

/// The API.
#[derive(Debug)]
pub(crate) struct Service {
    tasks: Arc<Tasks>,
}

impl Service {
    /// The API of the pod that these tasks are in.
    pub(crate) fn new(tasks: Arc<Tasks>) -> Self {
        Self { tasks }
    }

    fn create(&self, request: &CreateSandboxRequest) -> Result<(), Error> {
        let bundle = Path::new(&request.bundle_path);
        let spec = match request.options.as_ref() {
            Some(options) => {
                let config = spec::config(options, &request.sandbox_id)?;
                files::write(bundle, &config)?;
                spec::of_sandbox(&request.sandbox_id, &config, &request.netns_path)?
            }
            // As `ctr sandboxes run` has it.
            None => bundle::spec(bundle)?,
        };
        self.tasks.create_sandbox(&request.sandbox_id, bundle, spec)
    }

    fn status(&self, id: &str) -> Result<SandboxStatusResponse, Error> {
        let sandbox = self.tasks.sandbox_status(id)?;
        let (state, exited_at) = match sandbox.status {
            Status::Running | Status::Paused => (READY, None),
            Status::Created => (NOT_READY, None),
            Status::Stopped(exit) => (NOT_READY, Some(message::timestamp(exit.at))),
        };
        Ok(SandboxStatusResponse {
            sandbox_id: id.to_owned(),
            pid: sandbox.pid,
            state: state.to_owned(),
            created_at: Some(message::timestamp(sandbox.created_at)).into(),
            exited_at: exited_at.into(),
            ..SandboxStatusResponse::default()
        })
    }
}

#[async_trait]
impl Sandbox for Service {
    async fn create_sandbox(
        &self,
        _: &TtrpcContext,
        request: CreateSandboxRequest,
    ) -> Answer<CreateSandboxResponse> {
        told("create sandbox", &request.sandbox_id, self.create(&request))?;
        Ok(CreateSandboxResponse::default())
    }

    async fn start_sandbox(
        &self,
        _: &TtrpcContext,
        request: StartSandboxRequest,
    ) -> Answer<StartSandboxResponse> {
        let (id, tasks) = (request.sandbox_id.clone(), self.tasks.clone());
        let started = whole(async move { tasks.start_sandbox(&id).await }).await;
        let sandbox = told("start sandbox", &request.sandbox_id, started)?;
        Ok(StartSandboxResponse {
            pid: sandbox.pid,
            created_at: Some(message::timestamp(sandbox.created_at)).into(),
            ..StartSandboxResponse::default()
        })
    }

    async fn platform(&self, _: &TtrpcContext, request: PlatformRequest) -> Answer<PlatformResponse> {
        told("platform of sandbox", &request.sandbox_id, self.tasks.sandbox_status(&request.sandbox_id))?;
        // As image specifications name it.
        let platform = Platform { os: "linux".into(), architecture: "amd64".into(), ..Platform::default() };
        Ok(PlatformResponse { platform: Some(platform).into(), ..PlatformResponse::default() })
    }

    async fn stop_sandbox(
        &self,
        _: &TtrpcContext,
        request: StopSandboxRequest,
    ) -> Answer<StopSandboxResponse> {
        let (id, tasks) = (request.sandbox_id.clone(), self.tasks.clone());
        let stopped = whole(async move { tasks.stop_sandbox(&id).await }).await;
        told("stop sandbox", &request.sandbox_id, stopped).map(|()| StopSandboxResponse::default())
    }

    async fn wait_sandbox(
        &self,
        _: &TtrpcContext,
        request: WaitSandboxRequest,
    ) -> Answer<WaitSandboxResponse> {
        let exit =
            told("wait for sandbox", &request.sandbox_id, self.tasks.wait(&request.sandbox_id, "").await)?;
        Ok(WaitSandboxResponse {
            exit_status: exit.code,
            exited_at: Some(message::timestamp(exit.at)).into(),
            ..WaitSandboxResponse::default()
        })
    }

    async fn sandbox_status(
        &self,
        _: &TtrpcContext,
        request: SandboxStatusRequest,
    ) -> Answer<SandboxStatusResponse> {
        told("status of sandbox", &request.sandbox_id, self.status(&request.sandbox_id))
    }

    async fn ping_sandbox(&self, _: &TtrpcContext, request: PingRequest) -> Answer<PingResponse> {
        told("ping sandbox", &request.sandbox_id, self.tasks.ping_sandbox(&request.sandbox_id))?;
        Ok(PingResponse::default())
    }

    async fn shutdown_sandbox(
        &self,
        _: &TtrpcContext,
        request: ShutdownSandboxRequest,
    ) -> Answer<ShutdownSandboxResponse> {
        let (id, tasks) = (request.sandbox_id.clone(), self.tasks.clone());
        let ended = whole(async move { tasks.shut_sandbox_down(&id).await }).await;
        told("shut sandbox down", &request.sandbox_id, ended).map(|()| ShutdownSandboxResponse::default())
    }

    async fn sandbox_metrics(
        &self,
        _: &TtrpcContext,
        _: SandboxMetricsRequest,
    ) -> Answer<SandboxMetricsResponse> {
        let text = "io.containerd.husk.v2 has metrics of containers (the task API's Stats), not of sandboxes: not implemented";
        Err(Error::Unimplemented(text.into()).into())
    }
}
