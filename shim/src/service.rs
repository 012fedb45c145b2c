//! The task API (containerd's `runtime/task/v3/shim.proto`): requests in, answers and error codes out. What is done is in
//! [`Tasks`].

use std::{panic::resume_unwind, sync::Arc};

use async_trait::async_trait;
use containerd_shim_protos::{
    api::{
        CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest,
        CreateTaskResponse, DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest,
        PauseRequest, PidsRequest, PidsResponse, ResizePtyRequest, ResumeRequest, ShutdownRequest,
        StartRequest, StartResponse, StateRequest, StateResponse, StatsRequest, StatsResponse,
        UpdateTaskRequest, WaitRequest, WaitResponse,
    },
    shim_async::Task,
};
use tokio::task::JoinError;
use ttrpc::asynchronous::TtrpcContext;

use crate::{entry::Stdio, error::Error, message, metrics, tasks::Tasks};

/// The API; the Sandbox API, too (see [`crate::sandbox_api`]).
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) tasks: Arc<Tasks>,
}

impl Service {
    /// Does what changes something, to its end (see [`whole`]), and answers.
    pub(crate) async fn done<T: Send + 'static, F>(
        &self,
        what: &str,
        id: String,
        work: impl FnOnce(Arc<Tasks>, String) -> F,
    ) -> Answer<T>
    where
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let result = whole(work(self.tasks.clone(), id.clone())).await;
        told(what, &id, result)
    }
}

/// What a method answers.
pub(crate) type Answer<T> = ttrpc::Result<T>;

/// Logs what went wrong, for whoever looks into containerd's log.
pub(crate) fn told<T>(what: &str, id: &str, result: Result<T, Error>) -> Answer<T> {
    result.map_err(|error| {
        tracing::debug!("{what} {id}: {}", error.text());
        error.into()
    })
}

/// Does it to its end, also if the connection that it was asked by is lost meanwhile (containerd was killed): ttrpc then drops
/// whoever waits for the answer, and half of it would be done.
async fn whole<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    match tokio::spawn(work).await.map_err(JoinError::try_into_panic) {
        Ok(done) => done,
        Err(Ok(panic)) => resume_unwind(panic),
        Err(Err(_)) => Err(Error::FailedPrecondition("the shim has ended before it was done".into())),
    }
}

#[async_trait]
impl Task for Service {
    async fn state(&self, _: &TtrpcContext, request: StateRequest) -> Answer<StateResponse> {
        told("state", &request.id, self.tasks.state(&request.id, &request.exec_id))
    }

    async fn create(&self, _: &TtrpcContext, request: CreateTaskRequest) -> Answer<CreateTaskResponse> {
        let id = request.id.clone();
        let pid = self.done("create", id, |tasks, _| async move { tasks.create(request).await }).await?;
        Ok(CreateTaskResponse { pid, ..CreateTaskResponse::default() })
    }

    async fn start(&self, _: &TtrpcContext, request: StartRequest) -> Answer<StartResponse> {
        let StartRequest { id, exec_id, .. } = request;
        let started = self.done("start", id, |tasks, id| async move { tasks.start(&id, &exec_id).await });
        Ok(StartResponse { pid: started.await?, ..StartResponse::default() })
    }

    async fn delete(&self, _: &TtrpcContext, request: DeleteRequest) -> Answer<DeleteResponse> {
        let DeleteRequest { id, exec_id, .. } = request;
        self.done("delete", id, |tasks, id| async move { tasks.delete(&id, &exec_id).await }).await
    }

    async fn pids(&self, _: &TtrpcContext, request: PidsRequest) -> Answer<PidsResponse> {
        let processes = told("pids", &request.id, self.tasks.pids(&request.id).await)?;
        Ok(PidsResponse { processes, ..PidsResponse::default() })
    }

    async fn pause(&self, _: &TtrpcContext, request: PauseRequest) -> Answer<Empty> {
        let paused = self.done("pause", request.id, |tasks, id| async move { tasks.pause(&id).await });
        paused.await.map(|()| Empty::default())
    }

    async fn resume(&self, _: &TtrpcContext, request: ResumeRequest) -> Answer<Empty> {
        let resumed = self.done("resume", request.id, |tasks, id| async move { tasks.resume(&id).await });
        resumed.await.map(|()| Empty::default())
    }

    async fn checkpoint(&self, _: &TtrpcContext, request: CheckpointTaskRequest) -> Answer<Empty> {
        told("checkpoint", &request.id, self.tasks.state(&request.id, ""))?;
        let text = "io.containerd.husk.v2 can't checkpoint containers: not implemented";
        Err(Error::Unimplemented(text.into()).into())
    }

    async fn kill(&self, _: &TtrpcContext, request: KillRequest) -> Answer<Empty> {
        let KillRequest { id, exec_id, signal, all, .. } = request;
        let kill =
            |tasks: Arc<Tasks>, id: String| async move { tasks.kill(&id, &exec_id, signal, all).await };
        self.done("kill", id, kill).await.map(|()| Empty::default())
    }

    async fn exec(&self, _: &TtrpcContext, request: ExecProcessRequest) -> Answer<Empty> {
        let ExecProcessRequest { id, exec_id, terminal, stdin, stdout, stderr, spec, .. } = request;
        let stdio = Stdio { stdin, stdout, stderr, terminal };
        let added = message::json(spec.as_ref(), "process")
            .and_then(|process| self.tasks.exec(&id, &exec_id, stdio, process));
        told("exec", &id, added).map(|()| Empty::default())
    }

    async fn resize_pty(&self, _: &TtrpcContext, request: ResizePtyRequest) -> Answer<Empty> {
        let ResizePtyRequest { id, exec_id, width, height, .. } = request;
        told("resize", &id, self.tasks.resize(&id, &exec_id, height, width).await).map(|()| Empty::default())
    }

    async fn close_io(&self, _: &TtrpcContext, request: CloseIORequest) -> Answer<Empty> {
        if request.stdin {
            told("close", &request.id, self.tasks.close_stdin(&request.id, &request.exec_id))?;
        }
        Ok(Empty::default())
    }

    async fn update(&self, _: &TtrpcContext, request: UpdateTaskRequest) -> Answer<Empty> {
        let updated = match message::json(request.resources.as_ref(), "resources") {
            Ok(resources) => self.tasks.update(&request.id, resources).await,
            Err(error) => Err(error),
        };
        told("update", &request.id, updated).map(|()| Empty::default())
    }

    async fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> Answer<WaitResponse> {
        let exit = told("wait", &request.id, self.tasks.wait(&request.id, &request.exec_id).await)?;
        Ok(WaitResponse {
            exit_status: exit.code,
            exited_at: Some(message::timestamp(exit.at)).into(),
            ..WaitResponse::default()
        })
    }

    async fn stats(&self, _: &TtrpcContext, request: StatsRequest) -> Answer<StatsResponse> {
        let stats = told("stats", &request.id, self.tasks.stats(&request.id).await)?;
        let any = metrics::message(&stats)?;
        Ok(StatsResponse { stats: Some(any).into(), ..StatsResponse::default() })
    }

    async fn connect(&self, _: &TtrpcContext, request: ConnectRequest) -> Answer<ConnectResponse> {
        Ok(ConnectResponse {
            shim_pid: std::process::id(),
            // As runc's shim: none, if there is no such container.
            task_pid: self.tasks.state(&request.id, "").map_or(0, |state| state.pid),
            ..ConnectResponse::default()
        })
    }

    async fn shutdown(&self, _: &TtrpcContext, _: ShutdownRequest) -> Answer<Empty> {
        self.tasks.finish_if_empty();
        Ok(Empty::default())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{sync::oneshot, time::timeout};

    use super::*;

    #[tokio::test]
    async fn work_is_done_to_its_end_though_nobody_waits_for_it() {
        let ((go, wait), (say, hear)) = (oneshot::channel::<()>(), oneshot::channel());
        let work = async move {
            let _ = wait.await;
            let _ = say.send("done");
            Ok(())
        };
        assert!(timeout(Duration::ZERO, whole(work)).await.is_err());
        go.send(()).unwrap();
        assert_eq!(hear.await.unwrap(), "done");
        assert!(whole(async { Err::<(), _>(Error::invalid("x")) }).await.is_err());
    }
}
