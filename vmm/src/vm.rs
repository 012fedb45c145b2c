//! A VM: KVM, memory, vCPUs and devices, put together from a configuration.

use std::{
    fs::File,
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, channel},
    },
    thread,
};

use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_userspace_memory_region};
use kvm_ioctls::{IoEventAddress, Kvm, VcpuFd, VmFd};
use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::{
    boot::{self, BootError, Files, cmdline},
    bus::{Bus, DeviceSlot},
    config::{NetConfig, VmConfig},
    console::{Console, Output},
    control::Attached,
    counters::{Counters, VcpuCounters},
    cpu,
    devices::{Devices, Handles},
    error::VmError,
    jail::seccomp::{self, Role},
    layout, memory,
    socket_files::SocketFiles,
    vcpu::{Event, Reporter, Shared, VcpuHandle, install_kick_handler},
    virtio::{
        Interrupt, VirtioDevice,
        mmio::{MmioTransport, QUEUE_NOTIFY},
        net::NetsError,
        worker,
    },
};

fn kvm(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> VmError {
    move |source| VmError::Kvm { what, source }
}

fn os(what: &'static str) -> impl Fn(io::Error) -> VmError {
    move |source| VmError::Os { what, source }
}

/// All of a VM that has a path, open. Nothing of it has been looked at.
pub struct Parts {
    kvm: Kvm,
    memory: Option<File>,
    boot: Files,
    devices: Devices,
    counters: Counters,
    console: Option<Output>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("devices", &self.devices.all.len()).finish_non_exhaustive()
    }
}

impl Parts {
    /// Opens everything that a configuration names. What is to be removed later is added to `sockets`.
    ///
    /// # Errors
    /// Says what could not be had.
    pub fn open(config: &VmConfig, sockets: &mut SocketFiles) -> Result<Self, VmError> {
        let kvm = Kvm::new().map_err(VmError::OpenKvm)?;
        let memory = memory::create_file(config.mem_size_mib, config.memory)
            .map_err(|source| VmError::Memory { mem_size_mib: config.mem_size_mib, source })?;
        let boot = Files::open(config)?;
        let mut counters = Counters::default();
        let devices = Devices::open(config, &mut counters, sockets)?;
        let create = |path: &PathBuf| {
            Output::create(path).map_err(|source| VmError::Console { path: path.clone(), source })
        };
        let console = config.console.as_ref().map(create).transpose()?;
        Ok(Self { kvm, memory, boot, devices, counters, console })
    }
}

/// A VM. Dropping it ends it.
#[derive(Debug)]
pub struct Vm {
    // Dropped first: the threads use all the rest.
    vcpus: Vec<VcpuHandle>,
    shared: Arc<Shared>,
    counters: Counters,
    devices: Handles,
    events: Receiver<Event>,
    wakeup: EventFd,
    running: bool,
    unplugged: Vec<Unplugged>,
    fd: VmFd,
}

impl Vm {
    /// Makes a VM that is ready to run, paused.
    ///
    /// # Errors
    /// Says what could not be had.
    pub fn new(config: &VmConfig, parts: Parts) -> Result<Self, VmError> {
        let Parts { kvm: kvm_fd, memory, boot: files, devices, mut counters, console } = parts;
        let Devices { all: mut devices, named, handles } = devices;
        // Spare slots do without: what their device would prepare costs each start more than it is worth to most.
        devices.iter_mut().take(named).for_each(|device| device.prepare());
        let slots: Vec<_> = (0..).map(DeviceSlot::new).take(devices.len()).collect();
        let cmdline = cmdline::build(&slots[..named], config.console.is_some(), &config.cmdline)
            .map_err(BootError::from)?;
        let mem = memory::map(config.mem_size_mib, config.memory, memory.as_ref())
            .map_err(|source| VmError::Memory { mem_size_mib: config.mem_size_mib, source })?;
        if config.jail.is_some() {
            // It has time to bind itself while the VM is created.
            worker::start_spawner().map_err(os("start a thread"))?;
        }
        // The host's kernel takes milliseconds to create a VM, most of them waiting. The guest's is loaded meanwhile, by the
        // other thread, so that the waiting begins at once even on one CPU.
        let (fd, entry) = thread::scope(|scope| {
            let load = || {
                seccomp::apply(Role::Loader)?;
                Ok::<_, VmError>(boot::prepare(&mem, config, files, &cmdline)?)
            };
            let loading = thread::Builder::new().spawn_scoped(scope, load).map_err(os("start a thread"))?;
            let created = create_vm(&kvm_fd);
            let panicked = |_| os("load the guest's kernel")(io::Error::other("its thread panicked"));
            let loaded = loading.join().map_err(panicked)?;
            Ok::<_, VmError>((created?, loaded?))
        })?;
        add_memory(&fd, &mem)?;
        let (transports, unplugged) = attach(&fd, &mem, devices, &slots, named)?;
        let console = console.map(|output| create_console(&fd, output)).transpose()?;

        let shared = Arc::new(Shared {
            bus: Bus::new(mem, transports, console),
            first_instruction_ns: AtomicU64::new(0),
        });
        install_kick_handler().map_err(os("install a signal handler"))?;
        let (sender, events) = channel();
        let wakeup = EventFd::new(EFD_NONBLOCK).map_err(os("create an eventfd"))?;
        let mut cpuid = kvm_fd.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(kvm("tell its CPUID"))?;
        cpu::policy::apply(&mut cpuid);
        cpu::template::apply(&mut cpuid, config.cpu_template)?;
        cpu::xsave::make_consistent(&mut cpuid);
        cpu::cpuid::normalize(&mut cpuid, config.vcpus);
        let mut vcpus = Vec::with_capacity(config.vcpus.into());
        for id in 0..config.vcpus {
            let vcpu = fd.create_vcpu(id.into()).map_err(kvm("create a vCPU"))?;
            if id == 0
                && let Ok(tsc_khz) = vcpu.get_tsc_khz()
            {
                cpu::cpuid::set_frequencies(&mut cpuid, tsc_khz);
            }
            cpu::cpuid::for_vcpu(&mut cpuid, id);
            vcpu.set_cpuid2(&cpuid).map_err(kvm("set a vCPU's CPUID"))?;
            if let Some(xcr0) = cpu::xsave::offered_xcr0(&cpuid) {
                cpu::set_xcr0(&vcpu, xcr0).map_err(kvm("set a vCPU's XCR0"))?;
            }
            set_up_registers(&vcpu, (id == 0).then_some(entry)).map_err(kvm("set a vCPU's registers"))?;
            let wakeup = wakeup.try_clone().map_err(os("duplicate an eventfd"))?;
            let reporter = Reporter { events: sender.clone(), wakeup };
            let exits = Arc::<VcpuCounters>::default();
            counters.vcpus.push(exits.clone());
            let handle = VcpuHandle::spawn(id, vcpu, shared.clone(), exits, reporter);
            vcpus.push(handle.map_err(os("start a vCPU's thread"))?);
        }
        Ok(Self { vcpus, shared, counters, devices: handles, events, wakeup, running: false, unplugged, fd })
    }

    /// Lets all vCPUs run.
    pub fn resume(&mut self) {
        self.vcpus.iter().for_each(VcpuHandle::run);
        self.running = true;
    }

    /// Stops all vCPUs; returns when they have stopped.
    ///
    /// Time goes on: after a pause, all of the guest's clocks have advanced by it, as they do for a process that was
    /// stopped, whether the guest reads KVM's clock or the TSC. So its wall clock is right at once, and its timers are due
    /// that would have been. Its watchdogs are told to forgive the pause.
    pub fn pause(&mut self) {
        let stopping: Vec<_> = self.vcpus.iter().map(VcpuHandle::pause).collect();
        for stopped in stopping {
            // It never gets a message; its sender is dropped when the vCPU has stopped, or has ended.
            let _ = stopped.recv();
        }
        self.running = false;
    }

    /// Whether the vCPUs run.
    pub fn is_running(&self) -> bool {
        self.running
    }

    /// Becomes readable when there may be an event.
    pub fn wakeup(&self) -> &EventFd {
        &self.wakeup
    }

    /// The next thing that the vCPUs reported.
    pub fn next_event(&self) -> Option<Event> {
        // Fails when there is nothing to drain.
        let _ = self.wakeup.read();
        self.events.try_recv().ok()
    }

    /// When the guest's first instruction ran, in nanoseconds of `CLOCK_MONOTONIC`; 0 before that.
    pub fn first_instruction_ns(&self) -> u64 {
        self.shared.first_instruction_ns.load(Ordering::Relaxed)
    }

    /// What was counted so far.
    ///
    /// # Errors
    /// When it is not JSON: a bug.
    pub fn metrics(&self) -> serde_json::Result<serde_json::Value> {
        let mut counters = serde_json::to_value(&self.counters)?;
        for (id, vcpu) in self.vcpus.iter().enumerate() {
            counters["vcpus"][id]["cpu_ns"] = vcpu.cpu_time_ns().into();
        }
        Ok(counters)
    }

    /// Puts a network interface into a free spare slot, where it stays; it counts under its id.
    ///
    /// # Errors
    /// As of [`NetsError`]; nothing has changed then.
    pub fn attach_net(&mut self, config: &NetConfig) -> Result<Attached, NetsError> {
        let (attached, counters) = self.devices.nets().attach(config)?;
        self.counters.nets.insert(config.id.clone(), counters);
        Ok(attached)
    }

    /// Tells KVM of a spare slot's device, the first time that something is attached there.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn plug(&mut self, attached: Attached) -> Result<Attached, VmError> {
        let is_it = |unplugged: &Unplugged| cmdline::device(unplugged.slot) == attached.device;
        if let Some(index) = self.unplugged.iter().position(is_it) {
            let Unplugged { slot, kicks, line } = self.unplugged.swap_remove(index);
            register_kicks(&self.fd, slot, &kicks)?;
            self.fd.register_irqfd(&line, slot.irq()).map_err(kvm("register an interrupt"))?;
        }
        Ok(attached)
    }

    /// What steers the devices.
    pub fn devices(&mut self) -> &mut Handles {
        &mut self.devices
    }

    /// Writes out what is held back of the console's output.
    pub fn flush_console(&self) {
        self.shared.bus.flush_console();
    }
}

/// Creates a VM with interrupt controllers.
fn create_vm(kvm_fd: &Kvm) -> Result<VmFd, VmError> {
    let fd = kvm_fd.create_vm().map_err(kvm("create a VM"))?;
    // First, since KVM waits for readers after each of these, and waits longest when it has just waited.
    cpu::deny_msrs(&fd).map_err(kvm("filter MSRs (it needs Linux 5.10)"))?;
    fd.set_tss_address(layout::KVM_TSS).map_err(kvm("place its TSS"))?;
    fd.set_identity_map_address(layout::KVM_IDENTITY_MAP).map_err(kvm("place its identity map"))?;
    fd.create_irq_chip().map_err(kvm("create interrupt controllers"))?;
    Ok(fd)
}

/// Tells KVM of the guest's memory.
fn add_memory(fd: &VmFd, mem: &GuestMemoryMmap) -> Result<(), VmError> {
    for (slot, region) in (0..).zip(mem.iter()) {
        let kvm_region = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: region.start_addr().0,
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
        };
        // SAFETY: the range is a mapping of this length that stays until the process ends.
        unsafe { fd.set_user_memory_region(kvm_region) }.map_err(kvm("add memory"))?;
    }
    Ok(())
}

/// Puts the devices behind their registers and connects those with KVM: a driver's notification becomes an eventfd's,
/// and an eventfd becomes an interrupt. Devices that share an interrupt line share its eventfd.
fn attach(
    fd: &VmFd,
    mem: &GuestMemoryMmap,
    devices: Vec<Box<dyn VirtioDevice>>,
    slots: &[DeviceSlot],
    named: usize,
) -> Result<(Vec<MmioTransport>, Vec<Unplugged>), VmError> {
    let mut lines: Vec<(u32, EventFd)> = Vec::with_capacity(devices.len());
    let mut transports = Vec::with_capacity(devices.len());
    let mut unplugged = Vec::new();
    for (index, (device, slot)) in devices.into_iter().zip(slots).enumerate() {
        if index >= named {
            let line = EventFd::new(EFD_NONBLOCK).map_err(os("create an eventfd"))?;
            let interrupt = Interrupt::new(line.try_clone().map_err(os("duplicate an eventfd"))?);
            let transport =
                MmioTransport::new(device, mem.clone(), interrupt).map_err(os("create an eventfd"))?;
            let kicks = transport.kicks().iter().map(EventFd::try_clone).collect::<io::Result<_>>();
            let kicks = kicks.map_err(os("duplicate an eventfd"))?;
            unplugged.push(Unplugged { slot: *slot, kicks, line });
            transports.push(transport);
            continue;
        }
        let known = lines.iter().position(|(irq, _)| *irq == slot.irq());
        let line = match known {
            Some(index) => &lines[index].1,
            None => {
                let line = create_irq(fd, slot.irq())?;
                &lines.push_mut((slot.irq(), line)).1
            }
        };
        let interrupt = Interrupt::new(line.try_clone().map_err(os("duplicate an eventfd"))?);
        let transport =
            MmioTransport::new(device, mem.clone(), interrupt).map_err(os("create an eventfd"))?;
        register_kicks(fd, *slot, transport.kicks())?;
        transports.push(transport);
    }
    Ok((transports, unplugged))
}

/// A device of a spare slot. KVM is told of it when it is used, not at every start.
#[derive(Debug)]
struct Unplugged {
    slot: DeviceSlot,
    kicks: Vec<EventFd>,
    line: EventFd,
}

/// Has a driver's notifications become eventfds'.
fn register_kicks(fd: &VmFd, slot: DeviceSlot, kicks: &[EventFd]) -> Result<(), VmError> {
    let notify = IoEventAddress::Mmio(slot.address() + QUEUE_NOTIFY);
    for (queue, kick) in (0_u32..).zip(kicks) {
        fd.register_ioevent(kick, &notify, queue).map_err(kvm("register a notification"))?;
    }
    Ok(())
}

fn create_irq(fd: &VmFd, irq: u32) -> Result<EventFd, VmError> {
    let line = EventFd::new(EFD_NONBLOCK).map_err(os("create an eventfd"))?;
    fd.register_irqfd(&line, irq).map_err(kvm("register an interrupt"))?;
    Ok(line)
}

fn create_console(fd: &VmFd, output: Output) -> Result<Console, VmError> {
    Ok(Console::new(output, create_irq(fd, layout::SERIAL_IRQ)?))
}

fn set_up_registers(vcpu: &VcpuFd, entry: Option<boot::Entry>) -> Result<(), kvm_ioctls::Error> {
    cpu::set_msrs(vcpu)?;
    if let Some(entry) = entry {
        cpu::set_entry(vcpu, entry)?;
        cpu::wire_lapic(vcpu)?;
    }
    Ok(())
}
