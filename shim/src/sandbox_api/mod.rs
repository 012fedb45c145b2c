//! The Sandbox API (containerd's `runtime/sandbox/v1/sandbox.proto`), by which containerd 2.x makes a pod without a pause container
//! (`sandboxer = "shim"`): requests in, answers out. What is done is in [`Tasks`].

pub(crate) mod files;
pub(crate) mod spec;

use std::{path::Path, sync::Arc, time::SystemTime};

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
use husk_sandbox::{oci::bundle, pod::state::Status};
use ttrpc::asynchronous::TtrpcContext;

use crate::{
    error::Error,
    message, metrics,
    service::{Answer, Service, told},
    tasks::Tasks,
};

/// What Kubernetes calls a pod that runs (`PodSandboxState`), ...
const READY: &str = "SANDBOX_READY";
/// ... and one that does not.
const NOT_READY: &str = "SANDBOX_NOTREADY";

fn create(tasks: &Tasks, request: &CreateSandboxRequest) -> Result<(), Error> {
    let (id, bundle) = (&request.sandbox_id, Path::new(&request.bundle_path));
    let Some(options) = request.options.as_ref() else {
        // As `ctr sandboxes run` has it: what kind of pod it is to be, and what its containers share, is the caller's affair.
        return tasks.create_sandbox(id, bundle, bundle::spec(bundle)?);
    };
    let config = spec::config(options, id)?;
    tasks.create_sandbox(id, bundle, spec::of_sandbox(id, &config, &request.netns_path)?)?;
    files::write(bundle, &config)
}

fn status(tasks: &Tasks, id: &str) -> Result<SandboxStatusResponse, Error> {
    let sandbox = tasks.sandbox_status(id)?;
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

#[async_trait]
impl Sandbox for Service {
    async fn create_sandbox(
        &self,
        _: &TtrpcContext,
        request: CreateSandboxRequest,
    ) -> Answer<CreateSandboxResponse> {
        told("create sandbox", &request.sandbox_id, create(&self.tasks, &request))?;
        Ok(CreateSandboxResponse::default())
    }

    async fn start_sandbox(
        &self,
        _: &TtrpcContext,
        request: StartSandboxRequest,
    ) -> Answer<StartSandboxResponse> {
        let start = |tasks: Arc<Tasks>, id: String| async move { tasks.start_sandbox(&id).await };
        let sandbox = self.done("start sandbox", request.sandbox_id, start).await?;
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
        let stop = |tasks: Arc<Tasks>, id: String| async move { tasks.stop_sandbox(&id).await };
        self.done("stop sandbox", request.sandbox_id, stop).await.map(|()| StopSandboxResponse::default())
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
        told("status of sandbox", &request.sandbox_id, status(&self.tasks, &request.sandbox_id))
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
        let end = |tasks: Arc<Tasks>, id: String| async move { tasks.shut_sandbox_down(&id).await };
        let ended = self.done("shut sandbox down", request.sandbox_id, end);
        ended.await.map(|()| ShutdownSandboxResponse::default())
    }

    async fn sandbox_metrics(
        &self,
        _: &TtrpcContext,
        request: SandboxMetricsRequest,
    ) -> Answer<SandboxMetricsResponse> {
        let id = request.sandbox_id;
        let stats = told("metrics of sandbox", &id, self.tasks.sandbox_stats(&id).await)?;
        let mut response = SandboxMetricsResponse::default();
        let metric = response.metrics.mut_or_insert_default();
        metric.timestamp = Some(message::timestamp(SystemTime::now())).into();
        metric.id = id;
        metric.data = Some(metrics::message(&stats)?).into();
        Ok(response)
    }
}
