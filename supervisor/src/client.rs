//! A connection with a pod's supervisor.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream as StdStream,
    path::{Path, PathBuf},
    process::Child,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use husk_base::socket;
use husk_protocol::{
    StdioKind,
    agent::{ListProcessesResponse, StatsResponse},
    attach::{self, Attach},
    failure,
    pod::{
        CloseOutputRequest, Condition, ContainerRequest, ExecRequest, InfoRequest, InfoResponse, KillRequest,
        Mark, ResizeRequest, StartRequest, StartResponse, StopRequest, UpdateRequest, WaitRequest,
    },
    pod_ttrpc::PodClient,
};
use husk_sandbox::{
    Error, Result,
    paths::Dirs,
    rundir::{self, RunDir, STREAMS_SOCKET, SUPERVISOR_LOG, SUPERVISOR_SOCKET},
    stalls::Stalls,
    store::Store,
};
use protobuf::Message;
use tokio::net::UnixStream;
use ttrpc::{
    asynchronous::{Client, transport::Socket},
    context::Context,
};

/// How long a supervisor may take to answer what it answers at once.
const SOON: Duration = Duration::from_secs(30);
/// How long the answer to a stream's first line may take.
const ATTACHED_WITHIN: Duration = Duration::from_secs(10);

/// A pod, as its clients reach it.
#[derive(Clone)]
pub struct Pod {
    client: PodClient,
    dir: PathBuf,
    /// Held for a supervisor that has just been started, until it has answered.
    held: Arc<Mutex<Option<RunDir>>>,
    /// The process that was started, which ends after all that it has of the host.
    child: Arc<Mutex<Option<Child>>>,
}

impl std::fmt::Debug for Pod {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The generated client has no `Debug` of its own.
        f.debug_struct("Pod").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// Which of a process's streams a client wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "their names say it")]
pub struct Streams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// A process's streams. Outputs end when it has ended and all is delivered.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "their names say it")]
pub struct Attached {
    pub stdin: Option<StdStream>,
    pub stdout: Option<StdStream>,
    pub stderr: Option<StdStream>,
}

/// How a process ended.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ended {
    /// Its exit code; 128 + n when it was ended by signal n.
    pub code: u8,
    /// Why it ended, if that was not its own doing; empty else.
    pub error: String,
    /// When stages on the way were reached, if they were wanted.
    pub timeline: Vec<Mark>,
}

/// What a supervisor said that ended before it answered.
fn died(dir: &Path) -> Error {
    let said = std::fs::read_to_string(dir.join(SUPERVISOR_LOG)).unwrap_or_default();
    Error::SupervisorDied { said: said.trim().to_owned() }
}

impl Pod {
    /// Connects to the supervisor of the pod that a container is in. `None`: it has none, since it does not run.
    ///
    /// # Errors
    /// When its record can't be read, or its supervisor not reached.
    pub fn of(dirs: &Dirs, store: &Store, id: &str) -> Result<Option<Self>> {
        let pod = store.state(id)?.pod;
        if !rundir::is_alive(dirs, &pod) {
            return Ok(None);
        }
        let dir = dirs.run.join(&pod);
        match Self::connect(&dir) {
            // It has ended between the two looks.
            Err(_) if !rundir::is_alive(dirs, &pod) => Ok(None),
            other => other.map(Some),
        }
    }

    /// Connects to the supervisor whose run directory this is.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn connect(dir: &Path) -> Result<Self> {
        let path = dir.join(SUPERVISOR_SOCKET);
        let stream = socket::connect(&path)?;
        let failed = |source| Error::Io { what: "connect to", path: path.clone(), source };
        stream.set_nonblocking(true).map_err(failed)?;
        let stream = UnixStream::from_std(stream).map_err(failed)?;
        let client = PodClient::new(Client::new(Socket::new(stream)));
        Ok(Self { client, dir: dir.to_owned(), held: Arc::default(), child: Arc::default() })
    }

    /// Holds the run directory until the supervisor has answered, and what was started with it.
    pub(crate) fn hold(&mut self, dir: RunDir, child: Child) {
        self.held = Arc::new(Mutex::new(Some(dir)));
        self.child = Arc::new(Mutex::new(Some(child)));
    }

    /// What the pod's disks wait for from now on, when the host's file system is full.
    pub fn stalls(&self) -> Stalls {
        Stalls::of(&self.dir)
    }

    /// Returns when a pod that has ended is gone from the host: for those whose ports are a process's.
    ///
    /// # Errors
    /// When its lock can't be taken.
    pub async fn gone(&self) -> Result<()> {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner).take();
        let dir = self.dir.clone();
        let waiting = tokio::task::spawn_blocking(move || match child {
            Some(mut child) => {
                let failed = |source| Error::Io { what: "wait for", path: dir, source };
                child.wait().map(drop).map_err(failed)
            }
            None => rundir::wait_for_lock(&dir),
        });
        waiting.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    /// What the supervisor is.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn info(&self) -> Result<InfoResponse> {
        self.client.info(soon(), &InfoRequest::default()).await.map_err(answer)
    }

    /// Takes a container into the pod, by its record.
    ///
    /// # Errors
    /// When it is there already.
    pub async fn create(&self, id: &str) -> Result<()> {
        done(self.client.create(soon(), &container(id)).await)
    }

    /// Starts a container, or an exec of it.
    ///
    /// # Errors
    /// When it can't be started. What the supervisor's end means is left to the caller to find out.
    pub async fn start(&self, id: &str, exec_id: &str, timeline: bool) -> Result<StartResponse> {
        let request =
            StartRequest { container_id: id.into(), exec_id: exec_id.into(), timeline, ..Default::default() };
        let started = self.client.start(Context::default(), &request).await;
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (&started, held) {
            // It has the directory now.
            (Ok(_) | Err(ttrpc::Error::RpcStatus(_)), Some(dir)) => dir.hand_over(),
            (Err(_), Some(dir)) => return Err(died(dir.path())),
            (_, None) => {}
        }
        started.map_err(answer)
    }

    /// Adds an exec, which does not run yet.
    ///
    /// # Errors
    /// When the container does not run.
    pub async fn exec(&self, request: &ExecRequest) -> Result<()> {
        done(self.client.exec(soon(), request).await)
    }

    /// Attaches to a process's streams; from now on, nothing that it writes is missed. Blocks for as long as the supervisor takes.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn attach(&self, id: &str, exec_id: &str, wanted: Streams) -> Result<Attached> {
        let all = [
            (wanted.stdin, StdioKind::Stdin),
            (wanted.stdout, StdioKind::Stdout),
            (wanted.stderr, StdioKind::Stderr),
        ];
        let mut dialled = Vec::with_capacity(all.len());
        for (_, kind) in all.into_iter().filter(|(wanted, _)| *wanted) {
            let hello = Attach { container_id: id.into(), exec_id: exec_id.into(), kind };
            let mut stream = socket::connect(&self.dir.join(STREAMS_SOCKET))?;
            stream.write_all(hello.to_string().as_bytes()).map_err(|error| self.failed(error))?;
            dialled.push((kind, stream));
        }
        let mut attached = Attached::default();
        for (kind, mut stream) in dialled {
            self.expect_accepted(&mut stream)?;
            match kind {
                StdioKind::Stdin => attached.stdin = Some(stream),
                StdioKind::Stdout => attached.stdout = Some(stream),
                StdioKind::Stderr => attached.stderr = Some(stream),
            }
        }
        Ok(attached)
    }

    fn expect_accepted(&self, stream: &mut StdStream) -> Result<()> {
        stream.set_read_timeout(Some(ATTACHED_WITHIN)).map_err(|error| self.failed(error))?;
        let mut line = Vec::new();
        // One byte at a time: what follows is the process's.
        while line.last() != Some(&b'\n') && line.len() < attach::MAX_LEN {
            let mut byte = [0];
            stream.read_exact(&mut byte).map_err(|error| self.failed(error))?;
            line.push(byte[0]);
        }
        stream.set_read_timeout(None).map_err(|error| self.failed(error))?;
        if line == attach::ACCEPTED.as_bytes() {
            return Ok(());
        }
        Err(Error::NotFound(String::from_utf8_lossy(&line).trim_end().to_owned()))
    }

    fn failed(&self, source: std::io::Error) -> Error {
        if self.held.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            return died(&self.dir);
        }
        Error::Io { what: "attach to a stream of", path: self.dir.clone(), source }
    }

    /// Returns when a process has ended. `next`: only its next end counts, not that it does not run.
    ///
    /// # Errors
    /// When there is no such process, or the supervisor was killed.
    pub async fn wait(&self, id: &str, exec_id: &str, next: bool) -> Result<Ended> {
        let condition = if next { Condition::NEXT_EXIT } else { Condition::NOT_RUNNING };
        let request = WaitRequest {
            container_id: id.into(),
            exec_id: exec_id.into(),
            condition: condition.into(),
            ..Default::default()
        };
        let response = self.client.wait(Context::default(), &request).await.map_err(answer)?;
        Ok(Ended {
            code: u8::try_from(response.exit_code).unwrap_or(u8::MAX),
            error: response.error,
            timeline: response.timeline,
        })
    }

    /// Sets the size of a process's terminal.
    ///
    /// # Errors
    /// When there is no such process, or it has no terminal.
    pub async fn resize(&self, id: &str, exec_id: &str, rows: u32, columns: u32) -> Result<()> {
        let (container_id, exec_id) = (id.into(), exec_id.into());
        let request = ResizeRequest { container_id, exec_id, rows, columns, ..Default::default() };
        done(self.client.resize(soon(), &request).await)
    }

    /// Sends a signal to a container's first process.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&self, id: &str, signal: u32) -> Result<()> {
        let request = KillRequest { container_id: id.into(), signal, ..Default::default() };
        done(self.client.kill(soon(), &request).await)
    }

    /// Has a container end. Returns when it has.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn stop(
        &self,
        id: &str,
        timeout_s: Option<i64>,
        signal: Option<u32>,
        restarting: bool,
    ) -> Result<()> {
        let request = StopRequest {
            container_id: id.into(),
            timeout_s,
            signal: signal.unwrap_or_default(),
            restarting,
            ..Default::default()
        };
        done(self.client.stop(Context::default(), &request).await)
    }

    /// Closes an output of a process at the guest's end.
    ///
    /// # Errors
    /// When there is no such process.
    pub async fn close_output(&self, id: &str, exec_id: &str, stdout: bool) -> Result<()> {
        let (container_id, exec_id) = (id.into(), exec_id.into());
        let request = CloseOutputRequest { container_id, exec_id, stdout, ..Default::default() };
        done(self.client.close_output(soon(), &request).await)
    }

    /// Stops all processes of a container where they are.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn pause(&self, id: &str) -> Result<()> {
        done(self.client.pause(soon(), &container(id)).await)
    }

    /// Lets a paused container continue.
    ///
    /// # Errors
    /// When it is not paused.
    pub async fn resume(&self, id: &str) -> Result<()> {
        done(self.client.resume(soon(), &container(id)).await)
    }

    /// Has a changed record read again, and limits changed: an OCI spec's `linux.resources` as JSON.
    ///
    /// # Errors
    /// When the guest refuses a limit.
    pub async fn update(&self, id: &str, resources_json: Vec<u8>) -> Result<()> {
        let request = UpdateRequest { container_id: id.into(), resources_json, ..Default::default() };
        done(self.client.update(soon(), &request).await)
    }

    /// What a container uses.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn stats(&self, id: &str) -> Result<StatsResponse> {
        let message = self.client.stats(soon(), &container(id)).await.map_err(answer)?;
        StatsResponse::parse_from_bytes(&message.value).map_err(|error| Error::Agent(error.to_string()))
    }

    /// A container's processes.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn top(&self, id: &str) -> Result<ListProcessesResponse> {
        let message = self.client.top(soon(), &container(id)).await.map_err(answer)?;
        let processes = ListProcessesResponse::parse_from_bytes(&message.value);
        processes.map_err(|error| Error::Agent(error.to_string()))
    }
}

/// What a failed request means: the supervisor's own error, or that it is gone.
fn answer(error: ttrpc::Error) -> Error {
    let reason = failure::reason(&error);
    match error {
        ttrpc::Error::RpcStatus(status) => Error::of_reason(reason, status.message),
        _ => Error::SupervisorDied { said: String::new() },
    }
}

fn soon() -> Context {
    ttrpc::context::with_duration(SOON)
}

/// The answer of a call that returns nothing.
fn done<T>(answered: ttrpc::Result<T>) -> Result<()> {
    answered.map(drop).map_err(answer)
}

fn container(id: &str) -> ContainerRequest {
    ContainerRequest { container_id: id.into(), ..Default::default() }
}
