//! The shim itself: serves the task API until its last container is deleted, and the Sandbox API until its sandbox is shut down.

use std::{
    env, fs, io,
    os::{fd::AsFd, unix::net::UnixListener},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use containerd_shim_protos::{
    sandbox_async::{Sandbox, create_sandbox},
    shim_async::{Task, create_task},
};
use husk_sandbox::{config::Config, paths::Dirs};
use nix::unistd::dup2_stdin;
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
    time::timeout,
};
use ttrpc::asynchronous::{Server, transport::Listener};

use crate::{error::Error, flags::Flags, log, publisher::Publisher, service::Service, start, tasks::Tasks};

/// The names of the two versions of the API, which have the same messages.
const TASK_V3: &str = "containerd.task.v3.Task";
const TASK_V2: &str = "containerd.task.v2.Task";

/// Enough for any of the shim's threads, and too little for a huge page, with which a thread would take 2 MiB.
const STACK: usize = 256 * 1024;

/// How long the last requests may take to be answered.
const LAST_ANSWER: Duration = Duration::from_secs(1);

/// Serves on the socket that is its standard input.
///
/// # Errors
/// When it can't begin to serve.
pub(crate) fn serve(flags: &Flags) -> Result<(), Error> {
    log::to_containerd(flags.debug, &flags.id);
    let listener = inherited_socket().map_err(Error::io("take the socket from", "standard input"))?;
    // One thread is enough for copying, and needs the least memory.
    let runtime = runtime::Builder::new_current_thread().thread_stack_size(STACK).enable_all().build();
    let runtime = runtime.map_err(Error::io("start", "the runtime"))?;
    let served = runtime.block_on(run(flags, listener));
    // Blocking reads and writes that are still under way would be waited for otherwise.
    runtime.shutdown_background();
    served
}

fn inherited_socket() -> io::Result<UnixListener> {
    let listener = UnixListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    listener.local_addr()?;
    dup2_stdin(fs::File::open("/dev/null")?)?;
    Ok(listener)
}

async fn run(flags: &Flags, listener: UnixListener) -> Result<(), Error> {
    let socket: Option<PathBuf> =
        listener.local_addr().ok().and_then(|address| address.as_pathname().map(Path::to_path_buf));
    let events = env::var("TTRPC_ADDRESS").map_err(|_| Error::invalid("TTRPC_ADDRESS is not set"))?;
    let (publisher, sending) = Publisher::start(&events, &flags.namespace);
    let config = env::var(start::CONFIG)
        .map_err(|_| Error::invalid(format!("{} is not set: the action `start` sets it", start::CONFIG)))?;
    let config: Config = serde_json::from_str(&config)
        .map_err(|error| Error::invalid(format!("{} is wrong: {error}", start::CONFIG)))?;
    let tasks = Tasks::new(&flags.namespace, config, Dirs::new(None), publisher);

    let mut server = Server::new()
        .add_listener(Listener::try_from(listener).map_err(Error::io("listen on", "the inherited socket"))?);
    let service = Arc::new(Service { tasks: tasks.clone() });
    for name in [TASK_V3, TASK_V2] {
        let service: Arc<dyn Task + Send + Sync> = service.clone();
        let made = create_task(service).into_values().map(|service| (name.to_owned(), service)).collect();
        server = server.register_service(made);
    }
    let service: Arc<dyn Sandbox + Send + Sync> = service;
    server = server.register_service(create_sandbox(service));
    server.start().await.map_err(|error| Error::invalid(format!("cannot serve: {error}")))?;
    tracing::debug!("serving");
    tasks.end_if_left_alone();

    let mut terminated = signal(SignalKind::terminate()).map_err(Error::io("catch", "SIGTERM"))?;
    tokio::select! {
        () = tasks.finished() => {}
        _ = terminated.recv() => tracing::warn!("asked to end by SIGTERM: the pod ends, too"),
    }
    if let Some(socket) = socket {
        let _ = fs::remove_file(socket);
    }
    tasks.stop_pod().await;
    let _ = timeout(LAST_ANSWER, server.shutdown()).await;
    drop((server, tasks));
    sending.finish().await;
    Ok(())
}
