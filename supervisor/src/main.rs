//! `husk-supervisor`: the process that owns one pod. It has no terminal and no parent, and lives as long as the pod's first
//! container does: clients come and go.

mod end;
mod entry;
mod exec;
mod hub;
mod life;
mod listen;
mod log;
mod notes;
mod service;
mod supervisor;

use std::{
    env, io,
    os::{fd::AsFd, unix::net::UnixListener as StdListener},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use husk_protocol::pod_ttrpc::create_pod;
use husk_sandbox::{Error, Result, paths::Dirs, pod::state::Status, rundir::RunDir};
use tokio::{
    net::UnixListener,
    runtime,
    signal::unix::{SignalKind, signal},
    time::{sleep, timeout},
};
use ttrpc::asynchronous::{Server, transport::Listener};

use crate::{service::Service, supervisor::Supervisor};

/// Enough for any of its threads, and too little for a huge page, with which a thread would take 2 MiB.
const STACK: usize = 256 * 1024;
/// A supervisor whose client was killed before it asked for the start does not wait for another.
const LEFT_ALONE: Duration = Duration::from_secs(60);
/// How long the last answers may take to be read.
const LAST_ANSWER: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    log::init();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", husk_base::chain::text(&error));
            ExitCode::FAILURE
        }
    }
}

/// `husk-supervisor DATA RUN ID`, with the socket of its API as standard input, and that of the streams as standard output.
fn run() -> Result<()> {
    let args: Vec<_> = env::args_os().skip(1).collect();
    let [data, run, id] = args.as_slice() else {
        return Err(Error::InvalidOption("husk starts this program: use `husk run`".into()));
    };
    let dirs = Dirs { data: PathBuf::from(data), run: PathBuf::from(run) };
    let id = id.to_str().unwrap_or_default();
    let dir = RunDir::adopt(&dirs, id)?;
    let (api, streams) = inherited_sockets()?;
    // One thread is enough for copying, and needs the least memory.
    let runtime = runtime::Builder::new_current_thread().thread_stack_size(STACK).enable_all().build();
    let runtime = runtime.map_err(failed("start", "the runtime"))?;
    let served = runtime.block_on(serve(dirs, dir, api, streams));
    runtime.shutdown_background();
    served
}

fn failed(what: &'static str, on: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { what, path: on.into(), source }
}

fn inherited_sockets() -> Result<(StdListener, StdListener)> {
    let api = io::stdin().as_fd().try_clone_to_owned().map(StdListener::from);
    let api = api.and_then(|listener| listener.local_addr().map(|_| listener));
    let api = api.map_err(failed("take the socket from", "standard input"))?;
    let streams = io::stdout().as_fd().try_clone_to_owned().map(StdListener::from);
    let streams = streams.and_then(|listener| listener.local_addr().map(|_| listener));
    let streams = streams.map_err(failed("take the socket from", "standard output"))?;
    Ok((api, streams))
}

async fn serve(dirs: Dirs, dir: RunDir, api: StdListener, streams: StdListener) -> Result<()> {
    let supervisor = Supervisor::new(dirs, dir)?;
    let streams = streams.set_nonblocking(true).and_then(|()| UnixListener::from_std(streams));
    let streams = streams.map_err(failed("listen on", "the socket of streams"))?;
    let accepting = tokio::spawn(listen::accept(streams, supervisor.clone()));
    let listener = Listener::try_from(api).map_err(failed("listen on", "the inherited socket"))?;
    let service = Arc::new(Service(supervisor.clone()));
    let mut server = Server::new().add_listener(listener).register_service(create_pod(service));
    server.start().await.map_err(|error| Error::Agent(format!("cannot serve: {error}")))?;
    tokio::spawn(end_if_left_alone(supervisor.clone()));

    let mut finished = supervisor.finished.subscribe();
    let mut terminated = signal(SignalKind::terminate()).map_err(failed("catch", "SIGTERM"))?;
    loop {
        tokio::select! {
            _ = finished.wait_for(|finished| *finished) => break,
            _ = terminated.recv() => supervisor.clone().stop_all(),
        }
    }
    accepting.abort();
    let _ = timeout(LAST_ANSWER, server.shutdown()).await;
    Ok(())
}

/// Ends the supervisor if no client has its first container started for a while.
async fn end_if_left_alone(supervisor: Arc<Supervisor>) {
    sleep(LEFT_ALONE).await;
    let id = supervisor.dir.id().to_owned();
    let status = supervisor.containers().process(&id, "").map(|process| process.status);
    if matches!(status, Ok(Status::Created)) && !supervisor.is_starting() {
        supervisor.finished.send_replace(true);
    }
}

impl Supervisor {
    /// The machine goes down, or somebody wants the pod gone: its first container is stopped, without being taken for stopped by its
    /// user.
    fn stop_all(self: Arc<Self>) {
        tokio::spawn(async move {
            let id = self.dir.id().to_owned();
            // As for one that is started again: it is, with the machine, if its policy says so.
            if self.stop(&id, None, 0, true).await.is_err() {
                self.finished.send_replace(true);
            }
        });
    }
}
