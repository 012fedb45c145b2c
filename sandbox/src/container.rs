//! One container of a guest, in the foreground: made, fed and listened to, and waited for.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use husk_image::Defaults;
use husk_protocol::{
    StdioKind,
    agent::{
        ContainerRef, CreateContainerRequest, ProcessRef, ResizeTtyRequest, RootFs, SignalRequest,
        WaitResponse,
    },
};
use oci_spec::runtime::Spec;
use tokio::time::Instant;

use crate::{
    Error, Result,
    guest::Guest,
    run::RunRequest,
    signals::{self, Signals},
    stdio,
    terminal::{self, RawMode},
};

/// How long a container may go on after husk was asked to end by SIGTERM or a closed terminal.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// This many interrupts end a container that ignores them.
const INTERRUPTS_TO_KILL: u32 = 3;

/// Why a container could not be made or waited for.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The agent said no, or does not answer any more.
    Rpc(ttrpc::Error),
    /// Something on the host failed.
    Host(Error),
}

impl From<ttrpc::Error> for Trouble {
    fn from(error: ttrpc::Error) -> Self {
        Self::Rpc(error)
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Host(error)
    }
}

/// A container that was created.
#[derive(Debug)]
pub(crate) struct Container<'g> {
    guest: &'g Guest,
    id: String,
    streams: stdio::Streams,
}

impl<'g> Container<'g> {
    /// Makes the container `id`, and accepts its streams, which the agent dials meanwhile.
    pub(crate) async fn create(
        guest: &'g Guest,
        id: &str,
        spec: &Spec,
        rootfs: RootFs,
        request: &RunRequest,
    ) -> std::result::Result<Self, Trouble> {
        let create = create_request(guest, id, spec, rootfs, request)?;
        let wanted = wanted_streams(request);
        let accept = stdio::accept(guest.stdio(), guest.token(), id, &wanted);
        let (created, streams) = tokio::join!(guest.agent().create_container(guest.soon(), &create), async {
            tokio::time::timeout(guest.timeout(), accept).await
        });
        created?;
        let streams = streams.map_err(|_| Error::AgentTimeout {
            seconds: guest.timeout().as_secs(),
            console: String::new(),
        })?;
        let streams = streams.map_err(Error::io("accept", "the container's standard streams"))?;
        Ok(Self { guest, id: id.to_owned(), streams })
    }

    /// Lets the container run, passes its stdio and signals, and returns its exit code.
    pub(crate) async fn attend(
        mut self,
        signals: &mut Signals,
        request: &RunRequest,
    ) -> std::result::Result<u8, Trouble> {
        let raw_mode =
            if request.container.terminal && request.interactive { RawMode::enter()? } else { None };
        let streams = std::mem::take(&mut self.streams);
        let copiers =
            start_copying(streams).map_err(Error::io("copy", "the container's standard streams"))?;
        let container = ContainerRef { container_id: self.id.clone(), ..Default::default() };
        self.guest.agent().start_container(self.guest.soon(), &container).await?;
        let ended = self.wait(signals, request).await?;
        // All output is in the streams when the agent says that the process has ended.
        for copier in copiers {
            // A failed copy means that husk's own reader has left; the exit code is still the container's.
            let _ = tokio::task::spawn_blocking(move || copier.join()).await;
        }
        drop(raw_mode);
        Ok(u8::try_from(ended.exit_code).unwrap_or(u8::MAX))
    }

    async fn wait(&self, signals: &mut Signals, request: &RunRequest) -> ttrpc::Result<WaitResponse> {
        let process = ProcessRef { container_id: self.id.clone(), ..Default::default() };
        let ended = self.guest.agent().wait(ttrpc::context::Context::default(), &process);
        tokio::pin!(ended);
        let stop_signal = request.image.defaults().stop_signal.as_deref().and_then(signals::parse);
        let stop_signal = stop_signal.unwrap_or(libc::SIGTERM);
        let mut interrupts = 0;
        let mut deadline: Option<Instant> = None;
        loop {
            let expired = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                result = &mut ended => return result,
                () = expired => {
                    deadline = None;
                    self.send_signal(libc::SIGKILL).await;
                }
                signal = signals.next() => {
                    if signal.number() == libc::SIGWINCH {
                        self.resize(request).await;
                        continue;
                    }
                    interrupts += u32::from(signal.number() == libc::SIGINT);
                    if signal.asks_to_end() {
                        deadline = deadline.or_else(|| Some(Instant::now() + STOP_GRACE));
                    }
                    let number = match signal {
                        _ if interrupts >= INTERRUPTS_TO_KILL => libc::SIGKILL,
                        signal if signal.asks_to_end() => stop_signal,
                        signal => signal.number(),
                    };
                    self.send_signal(number).await;
                }
            }
        }
    }

    /// A signal that can't be delivered is no failure: the process has just ended.
    async fn send_signal(&self, number: i32) {
        let request = SignalRequest {
            container_id: self.id.clone(),
            signal: number.unsigned_abs(),
            ..Default::default()
        };
        let _ = self.guest.agent().signal(self.guest.soon(), &request).await;
    }

    async fn resize(&self, request: &RunRequest) {
        if !request.container.terminal {
            return;
        }
        if let Some((rows, columns)) = terminal::window_size() {
            let request =
                ResizeTtyRequest { container_id: self.id.clone(), rows, columns, ..Default::default() };
            let _ = self.guest.agent().resize_tty(self.guest.soon(), &request).await;
        }
    }
}

fn create_request(
    guest: &Guest,
    id: &str,
    spec: &Spec,
    rootfs: RootFs,
    request: &RunRequest,
) -> Result<CreateContainerRequest> {
    let (rows, columns) =
        if request.container.terminal { terminal::window_size().unwrap_or_default() } else { (0, 0) };
    let wanted = wanted_streams(request);
    let stdio = husk_protocol::agent::Stdio {
        stdin: wanted.contains(&StdioKind::Stdin),
        stdout: wanted.contains(&StdioKind::Stdout),
        stderr: wanted.contains(&StdioKind::Stderr),
        terminal: request.container.terminal,
        rows,
        columns,
        port: guest.stdio_port(),
        ..Default::default()
    };
    let Defaults { user, volumes, .. } = request.image.defaults();
    let user = request.container.user.clone().or(user).unwrap_or_default();
    let spec_json = serde_json::to_vec(spec)
        .map_err(|error| Error::InvalidOption(format!("cannot describe the container: {error}")))?;
    Ok(CreateContainerRequest {
        container_id: id.into(),
        spec_json,
        rootfs: Some(rootfs).into(),
        stdio: Some(stdio).into(),
        user,
        volumes,
        ..Default::default()
    })
}

fn wanted_streams(request: &RunRequest) -> Vec<StdioKind> {
    let mut wanted = vec![StdioKind::Stdout];
    if request.interactive {
        wanted.push(StdioKind::Stdin);
    }
    if !request.container.terminal {
        wanted.push(StdioKind::Stderr);
    }
    wanted
}

/// Starts a thread per stream; returns those that end with the process.
fn start_copying(streams: stdio::Streams) -> io::Result<Vec<std::thread::JoinHandle<io::Result<()>>>> {
    let mut copiers = Vec::new();
    if let Some(stream) = streams.stdout {
        copiers.push(stream.copy_to(duplicate(io::stdout().as_fd())?, "stdout")?);
    }
    if let Some(stream) = streams.stderr {
        copiers.push(stream.copy_to(duplicate(io::stderr().as_fd())?, "stderr")?);
    }
    if let Some(stream) = streams.stdin {
        // Not waited for: a read of husk's own input can't be interrupted, and ends with husk.
        stream.copy_from(duplicate(io::stdin().as_fd())?, "stdin")?;
    }
    Ok(copiers)
}

fn duplicate(fd: BorrowedFd<'_>) -> io::Result<File> {
    Ok(File::from(fd.try_clone_to_owned()?))
}
