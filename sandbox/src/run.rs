//! Runs one container in a VM of its own, from a prepared plan to nothing left.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use husk_image::{Defaults, Image};
use husk_protocol::{
    StdioKind,
    agent::{
        ContainerRef, CreateContainerRequest, Empty, ProcessRef, ResizeTtyRequest, RootFs,
        SetupSandboxRequest, SignalRequest, WaitResponse,
    },
};
use husk_vmm::config::DiskConfig;
use tokio::time::Instant;

use crate::{
    Error, Result, disk,
    paths::{Assets, Dirs},
    rundir::RunDir,
    signals::{self, Signals},
    spec::{self, ContainerOptions},
    stdio,
    terminal::{self, RawMode},
    timeline::{Stage, Timeline, now_ns},
    unpack,
    vm::{Plan, Vm},
};

const BASE: &str = "base";
const SCRATCH: &str = "scratch";

/// What the guest itself needs beside a container with a memory limit, in MiB: kernel, agent, page tables, page cache.
const GUEST_OVERHEAD_MIB: u64 = 96;
/// Memory of a VM whose container has no limit, in MiB.
const DEFAULT_MEM_SIZE_MIB: u64 = 512;
/// How long a container may go on after husk was asked to end by SIGTERM or a closed terminal.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// This many interrupts end a container that ignores them.
const INTERRUPTS_TO_KILL: u32 = 3;
const MAX_RESOLV_CONF: u64 = 64 * 1024;

/// What to run, and how.
#[derive(Debug)]
pub struct RunRequest {
    /// The image.
    pub image: Image,
    /// The container.
    pub container: ContainerOptions,
    /// A name that no other running container has.
    pub name: Option<String>,
    /// Keep the container's standard input open and feed it husk's.
    pub interactive: bool,
    /// Limit of the unpacked image and of the container's writable space, in MiB.
    pub storage_mib: u64,
    /// How long VM and agent may take to answer.
    pub timeout: Duration,
    /// Ask VMM and guest for their part of the timeline.
    pub timings: bool,
}

/// Runs a container to its end and returns its exit code.
///
/// `progress` is told how many bytes of the layers have been unpacked, if that needs doing.
///
/// # Errors
/// When anything but the container's process fails. Whatever the outcome, VM, disks and directories are gone.
pub async fn run(
    dirs: &Dirs,
    assets: &Assets,
    request: &RunRequest,
    timeline: &mut Timeline,
    progress: impl Fn(u64),
) -> Result<u8> {
    let mut signals = Signals::catch()?;
    let base = tokio::select! {
        base = unpack::ensure(dirs, assets, &request.image, request.storage_mib, request.timeout, progress) => base?,
        signal = signals.fatal() => return Ok(signal.exit_code()),
    };
    let dir = RunDir::create(dirs, request.name.as_deref())?;
    let sandbox = tokio::select! {
        sandbox = Sandbox::start(dirs, assets, request, &dir, base, timeline) => sandbox?,
        signal = signals.fatal() => return Ok(signal.exit_code()),
    };
    let exit_code = sandbox.attend(&mut signals, request, timeline).await?;
    drop(dir);
    timeline.mark(Stage::CleanedUp);
    Ok(exit_code)
}

/// A VM with one created container.
struct Sandbox {
    vm: Vm,
    id: String,
    streams: stdio::Streams,
}

impl Sandbox {
    async fn start(
        dirs: &Dirs,
        assets: &Assets,
        request: &RunRequest,
        dir: &RunDir,
        base: std::path::PathBuf,
        timeline: &mut Timeline,
    ) -> Result<Self> {
        let id = dir.id().to_owned();
        let defaults = request.image.defaults();
        let spec = spec::build(&unpack::name(&request.image), &defaults, &request.container, &id)?;
        disk::create(dirs, dir.scratch(), request.storage_mib)?;
        let disks = vec![DiskConfig::new(BASE, base, true), DiskConfig::new(SCRATCH, dir.scratch(), false)];
        let plan = Plan {
            vcpus: vcpus(&request.container)?,
            mem_size_mib: mem_size_mib(&request.container)?,
            disks,
            timeout: request.timeout,
        };
        timeline.mark(Stage::Planned);
        let mut vm = Vm::start(assets, dir, plan).await?;

        let hostname = spec.hostname().clone().unwrap_or_default();
        let setup = SetupSandboxRequest {
            hosts: hosts(&hostname),
            resolv_conf: resolv_conf(),
            hostname,
            ..Default::default()
        };
        let create = create_request(&id, &spec, defaults, request)?;
        let wanted = wanted_streams(request);
        let created = async {
            let agent = vm.agent();
            agent.setup_sandbox(vm.soon(), &setup).await?;
            // The agent dials the streams while it creates the container.
            let accept = stdio::accept(vm.stdio(), &id, &wanted);
            let (process, streams) = tokio::join!(agent.create_container(vm.soon(), &create), async {
                tokio::time::timeout(request.timeout, accept).await
            });
            process.map(|_| streams)
        };
        let streams = match created.await {
            Ok(Ok(Ok(streams))) => streams,
            Ok(Ok(Err(error))) => return Err(Error::io("accept on", dir.join("vsock_1025"))(error)),
            Ok(Err(_)) => {
                return Err(Error::AgentTimeout {
                    seconds: request.timeout.as_secs(),
                    console: String::new(),
                });
            }
            Err(error) => return Err(vm.explain(error).await),
        };
        Ok(Self { vm, id, streams })
    }

    /// Lets the container run, passes its stdio and signals, and ends the VM when it ends.
    async fn attend(
        mut self,
        signals: &mut Signals,
        request: &RunRequest,
        timeline: &mut Timeline,
    ) -> Result<u8> {
        let raw_mode =
            if request.container.terminal && request.interactive { RawMode::enter()? } else { None };
        let streams = std::mem::take(&mut self.streams);
        let copiers =
            start_copying(streams).map_err(Error::io("copy", "the container's standard streams"))?;
        let container = ContainerRef { container_id: self.id.clone(), ..Default::default() };
        let started = self.vm.agent().start_container(self.vm.soon(), &container).await;
        if let Err(error) = started {
            return Err(self.vm.explain(error).await);
        }
        let result = self.wait(signals, request).await;
        // All output is in the streams when the agent says that the process has ended.
        if result.is_ok() {
            for copier in copiers {
                // A failed copy means that husk's own reader has left; the exit code is still the container's.
                let _ = tokio::task::spawn_blocking(move || copier.join()).await;
            }
        }
        drop(raw_mode);
        let exit_code = result?;
        if request.timings {
            self.add_timings(timeline).await;
        }
        self.vm.kill().await?;
        Ok(exit_code)
    }

    async fn wait(&mut self, signals: &mut Signals, request: &RunRequest) -> Result<u8> {
        match self.wait_and_pass_signals(signals, request).await {
            Ok(response) => Ok(u8::try_from(response.exit_code).unwrap_or(u8::MAX)),
            Err(error) => Err(self.vm.explain(error).await),
        }
    }

    async fn wait_and_pass_signals(
        &self,
        signals: &mut Signals,
        request: &RunRequest,
    ) -> ttrpc::Result<WaitResponse> {
        let process = ProcessRef { container_id: self.id.clone(), ..Default::default() };
        let ended = self.vm.agent().wait(ttrpc::context::Context::default(), &process);
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
        let _ = self.vm.agent().signal(self.vm.soon(), &request).await;
    }

    async fn resize(&self, request: &RunRequest) {
        if !request.container.terminal {
            return;
        }
        if let Some((rows, columns)) = terminal::window_size() {
            let request =
                ResizeTtyRequest { container_id: self.id.clone(), rows, columns, ..Default::default() };
            let _ = self.vm.agent().resize_tty(self.vm.soon(), &request).await;
        }
    }

    /// Adds what VMM and guest recorded. Timings are an extra: a missing part is left out.
    async fn add_timings(&self, timeline: &mut Timeline) {
        if let Ok(guest) = self.vm.agent().timeline(self.vm.soon(), &Empty::default()).await {
            timeline.add_guest(&guest, now_ns());
        }
        if let Ok(state) =
            husk_vmm::client::Client::connect(self.vm.control_socket()).and_then(|mut c| c.state())
        {
            timeline.mark_at(Stage::VmmConfigured, state.configured_ns);
            timeline.mark_at(Stage::FirstInstruction, state.first_instruction_ns);
        }
    }
}

fn create_request(
    id: &str,
    spec: &oci_spec::runtime::Spec,
    defaults: Defaults,
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
        ..Default::default()
    };
    let rootfs = RootFs { base_disk: BASE.into(), scratch_disk: SCRATCH.into(), ..Default::default() };
    let user = request.container.user.clone().or(defaults.user).unwrap_or_default();
    let spec_json = serde_json::to_vec(spec)
        .map_err(|error| Error::InvalidOption(format!("cannot describe the container: {error}")))?;
    Ok(CreateContainerRequest {
        container_id: id.into(),
        spec_json,
        rootfs: Some(rootfs).into(),
        stdio: Some(stdio).into(),
        user,
        volumes: defaults.volumes,
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

fn vcpus(options: &ContainerOptions) -> Result<u8> {
    let wanted = options.milli_cpus.unwrap_or(1000).div_ceil(1000);
    u8::try_from(wanted)
        .ok()
        .filter(|count| (1..=32).contains(count))
        .ok_or_else(|| Error::InvalidOption(format!("{wanted} CPUs are not possible: choose 0.01 to 32")))
}

fn mem_size_mib(options: &ContainerOptions) -> Result<u32> {
    let wanted = options
        .memory_bytes
        .map_or(DEFAULT_MEM_SIZE_MIB, |bytes| bytes.div_ceil(1 << 20) + GUEST_OVERHEAD_MIB);
    u32::try_from(wanted).map_err(|_| Error::InvalidOption(format!("{wanted} MiB of memory are too much")))
}

fn hosts(hostname: &str) -> String {
    format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback {hostname}\n")
}

fn resolv_conf() -> String {
    use io::Read;
    let mut text = String::new();
    if let Ok(file) = File::open("/etc/resolv.conf") {
        // A host without name resolution gives a container without it.
        let _ = file.take(MAX_RESOLV_CONF).read_to_string(&mut text);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_of_cpus_are_rounded_up_and_bounded() {
        let with = |milli_cpus| vcpus(&ContainerOptions { milli_cpus, ..Default::default() });
        assert_eq!(with(None).unwrap(), 1);
        assert_eq!(with(Some(10)).unwrap(), 1);
        assert_eq!(with(Some(1500)).unwrap(), 2);
        assert_eq!(with(Some(32_000)).unwrap(), 32);
        assert!(with(Some(33_000)).is_err() && with(Some(0)).is_err());
    }

    #[test]
    fn a_memory_limit_is_the_containers_not_the_machines() {
        let with = |memory_bytes| mem_size_mib(&ContainerOptions { memory_bytes, ..Default::default() });
        assert_eq!(u64::from(with(None).unwrap()), DEFAULT_MEM_SIZE_MIB);
        assert_eq!(u64::from(with(Some(64 << 20)).unwrap()), 64 + GUEST_OVERHEAD_MIB);
        assert!(with(Some(u64::MAX)).is_err());
    }
}
