//! Runs one container in a VM of its own, from a prepared plan to nothing left.

use std::{path::PathBuf, time::Duration};

use husk_image::Image;
use husk_protocol::agent::{Empty, ImageRoot, RootFs, SetupSandboxRequest, root_fs::Root};
use husk_vmm::config::DiskConfig;
use oci_spec::runtime::Spec;

use crate::{
    Error, Result,
    container::{Container, Trouble},
    disk, join,
    network::{Connection, NetworkOptions, NetworkPlan},
    paths::{Assets, Dirs},
    rundir::RunDir,
    signals::Signals,
    spec::{self, ContainerOptions},
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
/// Two disks for each of so many containers may join a VM.
const SPARE_DISKS: u8 = 8;

/// What to run, and how.
#[derive(Debug)]
pub struct RunRequest {
    /// The image.
    pub image: Image,
    /// The container.
    pub container: ContainerOptions,
    /// A name that no other running container has.
    pub name: Option<String>,
    /// Its network.
    pub network: NetworkOptions,
    /// Keep the container's standard input open and feed it husk's.
    pub interactive: bool,
    /// Limit of the unpacked image and of the container's writable space, in MiB.
    pub storage_mib: u64,
    /// How long VM and agent may take to answer.
    pub timeout: Duration,
    /// Is told what the user should know, and is no failure.
    pub note: fn(&str),
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
    let exit_code = match request.network.joined() {
        Some(owner) => join::run(dirs, &dir, owner, base, request, &mut signals, timeline).await?,
        None => run_in_own_vm(dirs, assets, request, &dir, base, &mut signals, timeline).await?,
    };
    drop(dir);
    timeline.mark(Stage::CleanedUp);
    Ok(exit_code)
}

async fn run_in_own_vm(
    dirs: &Dirs,
    assets: &Assets,
    request: &RunRequest,
    dir: &RunDir,
    base: PathBuf,
    signals: &mut Signals,
    timeline: &mut Timeline,
) -> Result<u8> {
    let spec =
        spec::build(&unpack::name(&request.image), &request.image.defaults(), &request.container, dir.id())?;
    disk::create(dirs, dir.scratch(), request.storage_mib)?;
    let network_plan = NetworkPlan {
        options: request.network.clone(),
        name: request.name.clone(),
        hostname: spec.hostname().clone().unwrap_or_default(),
        exposed_ports: request.image.defaults().exposed_ports.iter().map(ToString::to_string).collect(),
    };
    // Is not stopped half-way by a signal: what was made until then would be left behind.
    let mut network = Connection::make(dirs, dir, &network_plan, request.note).await?;
    let started = tokio::select! {
        started = Sandbox::start(assets, request, dir, base, spec, &mut network, timeline) => started,
        signal = signals.fatal() => {
            network.close().await?;
            return Ok(signal.exit_code());
        }
    };
    let mut sandbox = match started {
        Ok(sandbox) => sandbox,
        Err(error) => {
            // The reason counts; what can't be undone now is found by the next start.
            let _ = network.close().await;
            return Err(error);
        }
    };
    let result = sandbox.run(request, signals, timeline).await;
    // Both wait for the host's kernel: at the same time.
    let (killed, closed) = tokio::join!(sandbox.vm.kill(), network.close());
    let exit_code = result?;
    killed.and(closed)?;
    Ok(exit_code)
}

/// A VM that is set up for one container.
struct Sandbox {
    vm: Vm,
    id: String,
    spec: Spec,
    _join: join::Host,
}

impl Sandbox {
    async fn start(
        assets: &Assets,
        request: &RunRequest,
        dir: &RunDir,
        base: PathBuf,
        spec: Spec,
        network: &mut Connection,
        timeline: &mut Timeline,
    ) -> Result<Self> {
        let hostname = spec.hostname().clone().unwrap_or_default();
        let disks = vec![DiskConfig::new(BASE, base, true), DiskConfig::new(SCRATCH, dir.scratch(), false)];
        let plan = Plan {
            vcpus: vcpus(&request.container)?,
            mem_size_mib: mem_size_mib(&request.container)?,
            disks,
            spare_disks: SPARE_DISKS,
            nets: network.take_nets(),
            spare_nets: network.spare_nets(),
            filesystem: None,
            cgroup: None,
            timeout: request.timeout,
        };
        timeline.mark(Stage::Planned);
        let mut vm = Vm::start(assets, dir, plan).await?;
        let join = join::Host::start(dir, vm.guest().clone(), hostname.clone())?;
        let setup = SetupSandboxRequest { hostname, ..network.set_up() };
        let guest = vm.guest().clone();
        if let Err(error) = guest.set_up(setup).await {
            return Err(vm.explain(error).await);
        }
        network.serve(&guest, dir, request.note)?;
        Ok(Self { vm, id: dir.id().to_owned(), spec, _join: join })
    }

    async fn run(
        &mut self,
        request: &RunRequest,
        signals: &mut Signals,
        timeline: &mut Timeline,
    ) -> Result<u8> {
        let guest = self.vm.guest().clone();
        let image = ImageRoot { base_disk: BASE.into(), scratch_disk: SCRATCH.into(), ..Default::default() };
        let rootfs = RootFs { root: Some(Root::Image(image)), ..Default::default() };
        let ran = async {
            let creating = Container::create(&guest, &self.id, &self.spec, rootfs, request);
            let container = tokio::select! {
                container = creating => container?,
                signal = signals.fatal() => return Ok(signal.exit_code()),
            };
            container.attend(signals, request).await
        };
        let exit_code = match ran.await {
            Ok(code) => code,
            Err(Trouble::Host(error)) => return Err(error),
            Err(Trouble::Rpc(error)) => return Err(self.vm.explain(error).await),
        };
        if request.timings {
            self.add_timings(timeline).await;
        }
        Ok(exit_code)
    }

    /// Adds what VMM and guest recorded. Timings are an extra: a missing part is left out.
    async fn add_timings(&self, timeline: &mut Timeline) {
        if let Ok(guest) = self.vm.guest().agent().timeline(self.vm.guest().soon(), &Empty::default()).await {
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
