//! A vCPU: a thread with a small state machine, driven over a channel and a signal.
//!
//! It starts paused. [`Command`]s change its state; a signal makes it look at the channel when it is inside KVM. A guest
//! that ends, or a KVM that fails, is reported as an [`Event`].

use std::{
    cell::Cell,
    io,
    os::unix::thread::JoinHandleExt,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::JoinHandle,
};

use kvm_bindings::{KVM_SYSTEM_EVENT_CRASH, KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_SHUTDOWN};
use kvm_ioctls::{VcpuExit, VcpuFd};
use vmm_sys_util::{
    eventfd::EventFd,
    signal::{SIGRTMIN, register_signal_handler},
};

use crate::{
    bus::{Bus, GuestEnd},
    counters::VcpuCounters,
    jail::{
        JailError,
        seccomp::{self, Role},
    },
    time::{clock_ns, monotonic_ns},
};

/// What the VM's vCPUs report.
#[derive(Debug)]
pub enum Event {
    /// The guest ended itself.
    Ended(GuestEnd),
    /// A vCPU can't go on.
    Failed(VcpuError),
}

/// A vCPU can't go on.
#[derive(Debug, thiserror::Error)]
pub enum VcpuError {
    /// KVM_RUN failed.
    #[error("vCPU {vcpu} cannot run")]
    Run {
        /// The vCPU.
        vcpu: u8,
        /// Why.
        #[source]
        source: kvm_ioctls::Error,
    },
    /// KVM gave up on the guest's code.
    #[error(
        "vCPU {vcpu} met something that KVM cannot handle (suberror {suberror}): `husk check` tells whether this KVM \
         can run ordinary guests"
    )]
    Internal {
        /// The vCPU.
        vcpu: u8,
        /// KVM's number.
        suberror: u32,
    },
    /// It can't be bound to its system calls.
    #[error("cannot bind the thread of vCPU {vcpu} to its system calls")]
    Filter {
        /// The vCPU.
        vcpu: u8,
        /// Why.
        #[source]
        source: JailError,
    },
    /// Another reason to stop that can't be handled.
    #[error("vCPU {vcpu} stopped: {reason}")]
    Stopped {
        /// The vCPU.
        vcpu: u8,
        /// What KVM said.
        reason: String,
    },
    /// A bug.
    #[error("the thread of vCPU {vcpu} panicked")]
    Panicked {
        /// The vCPU.
        vcpu: u8,
    },
}

/// Where vCPUs report to.
#[derive(Debug)]
pub struct Reporter {
    /// Their reports.
    pub events: Sender<Event>,
    /// Becomes readable when there is one.
    pub wakeup: EventFd,
}

impl Reporter {
    fn report(&self, event: Event) {
        // When nobody listens any more, the VM is ending.
        let _ = self.events.send(event);
        let _ = self.wakeup.write(1);
    }
}

/// What all vCPUs of a VM share.
#[derive(Debug)]
pub struct Shared {
    /// The devices.
    pub bus: Bus,
    /// When the guest's first instruction ran, as [`monotonic_ns`]; 0 before that.
    pub first_instruction_ns: AtomicU64,
}

#[derive(Debug)]
enum Command {
    Run,
    /// Pause, and drop the sender to say that it is done.
    Pause(Sender<()>),
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Paused,
    Running,
    Ended,
}

/// A vCPU's thread, seen from outside. Dropping it ends the thread.
#[derive(Debug)]
pub struct VcpuHandle {
    commands: Sender<Command>,
    thread: Option<JoinHandle<()>>,
}

impl VcpuHandle {
    /// Starts the thread of vCPU number `id`, paused.
    ///
    /// # Errors
    /// When the thread can't be made.
    pub fn spawn(
        id: u8,
        fd: VcpuFd,
        shared: Arc<Shared>,
        exits: Arc<VcpuCounters>,
        reporter: Reporter,
    ) -> io::Result<Self> {
        let (commands, receiver) = channel();
        let vcpu = Vcpu { id, fd, shared, exits, commands: receiver, state: State::Paused };
        let thread = std::thread::Builder::new().name(format!("vcpu{id}")).spawn(move || {
            if let Err(source) = seccomp::apply(Role::Vcpu) {
                return reporter.report(Event::Failed(VcpuError::Filter { vcpu: id, source }));
            }
            match catch_unwind(AssertUnwindSafe(|| vcpu.main())) {
                Ok(Some(event)) => reporter.report(event),
                Ok(None) => {}
                Err(_) => reporter.report(Event::Failed(VcpuError::Panicked { vcpu: id })),
            }
        })?;
        Ok(Self { commands, thread: Some(thread) })
    }

    /// Lets it run.
    pub fn run(&self) {
        self.send(Command::Run);
    }

    /// Asks it to pause. The receiver's other end is gone when it has.
    #[must_use]
    pub fn pause(&self) -> Receiver<()> {
        let (done, receiver) = channel();
        self.send(Command::Pause(done));
        receiver
    }

    /// Processor time that it has used, the guest's and KVM's, in nanoseconds; 0 when its thread has ended.
    pub fn cpu_time_ns(&self) -> u64 {
        let Some(thread) = &self.thread else { return 0 };
        let mut clock = 0;
        // SAFETY: the thread has not been joined, so its pthread_t is valid; the pointer is to a number that lives on.
        match unsafe { libc::pthread_getcpuclockid(thread.as_pthread_t(), &raw mut clock) } {
            0 => clock_ns(clock),
            _ => 0,
        }
    }

    fn send(&self, command: Command) {
        // Fails when the thread has ended: then there is nothing to tell it.
        if self.commands.send(command).is_ok()
            && let Some(thread) = &self.thread
        {
            // SAFETY: the thread has not been joined, so its pthread_t is valid; the signal has a handler.
            unsafe { libc::pthread_kill(thread.as_pthread_t(), kick_signal()) };
        }
    }
}

impl Drop for VcpuHandle {
    fn drop(&mut self) {
        self.send(Command::End);
        if let Some(thread) = self.thread.take() {
            // A panic was caught and reported inside.
            let _ = thread.join();
        }
    }
}

/// The signal that gets a vCPU out of KVM.
fn kick_signal() -> i32 {
    SIGRTMIN()
}

thread_local! {
    /// The `immediate_exit` byte of the vCPU that this thread runs; null for other threads.
    static IMMEDIATE_EXIT: Cell<*const AtomicU8> = const { Cell::new(ptr::null()) };
}

/// Makes a signal that arrives just before KVM_RUN end that call, too.
extern "C" fn on_kick(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    IMMEDIATE_EXIT.with(|flag| {
        // SAFETY: the pointer is null, or to a byte of the kvm_run structure of the vCPU that this very thread owns,
        // which it resets before it lets go of it. All accesses to the byte are atomic.
        if let Some(flag) = unsafe { flag.get().as_ref() } {
            flag.store(1, Ordering::SeqCst);
        }
    });
}

/// Installs the handler of the signal, once per process.
///
/// # Errors
/// When the kernel refuses.
pub fn install_kick_handler() -> io::Result<()> {
    register_signal_handler(kick_signal(), on_kick).map_err(io::Error::from)
}

/// A vCPU on its own thread.
struct Vcpu {
    id: u8,
    fd: VcpuFd,
    shared: Arc<Shared>,
    exits: Arc<VcpuCounters>,
    commands: Receiver<Command>,
    state: State,
}

impl Vcpu {
    fn main(mut self) -> Option<Event> {
        let flag: *const AtomicU8 = ptr::from_mut(&mut self.fd.get_kvm_run().immediate_exit).cast();
        IMMEDIATE_EXIT.set(flag);
        let event = self.run_states(flag);
        IMMEDIATE_EXIT.set(ptr::null());
        event
    }

    fn run_states(&mut self, flag: *const AtomicU8) -> Option<Event> {
        let mut has_run = false;
        loop {
            match self.state {
                State::Paused => match self.commands.recv() {
                    Ok(command) => self.obey(command),
                    // Nobody is left to say more.
                    Err(_) => return None,
                },
                State::Running => {
                    // In this order: a kick after the first line ends the next KVM_RUN, and the command of one before it
                    // is in the channel by now.
                    // SAFETY: the pointer is to a byte of `self.fd`'s kvm_run structure, mapped as long as `self` lives.
                    unsafe { (*flag).store(0, Ordering::SeqCst) };
                    if let Ok(command) = self.commands.try_recv() {
                        self.obey(command);
                        continue;
                    }
                    if self.id == 0 && !has_run {
                        has_run = true;
                        self.shared.first_instruction_ns.store(monotonic_ns(), Ordering::Relaxed);
                    }
                    if let Some(event) = self.enter_guest() {
                        return Some(event);
                    }
                }
                State::Ended => return None,
            }
        }
    }

    fn obey(&mut self, command: Command) {
        self.state = match command {
            Command::End => State::Ended,
            _ if self.state == State::Ended => State::Ended,
            Command::Run => State::Running,
            Command::Pause(done) => {
                if self.state == State::Running {
                    // Tells the guest's watchdogs that the time until it runs again does not count. A guest that does
                    // not use the paravirtual clock has none: EINVAL.
                    let _ = self.fd.kvmclock_ctrl();
                }
                drop(done);
                State::Paused
            }
        };
    }

    /// Runs guest code until it needs something. Returns an event if that was the end.
    fn enter_guest(&mut self) -> Option<Event> {
        let (bus, exits) = (&self.shared.bus, &self.exits);
        let stopped = |reason: String| Some(Event::Failed(VcpuError::Stopped { vcpu: self.id, reason }));
        match self.fd.run() {
            Ok(VcpuExit::MmioRead(address, data)) => {
                exits.mmio_read_exits.add(1);
                bus.mmio_read(address, data);
                None
            }
            Ok(VcpuExit::MmioWrite(address, data)) => {
                exits.mmio_write_exits.add(1);
                bus.mmio_write(address, data);
                None
            }
            Ok(VcpuExit::IoIn(port, data)) => {
                exits.pio_read_exits.add(1);
                bus.pio_read(port, data);
                None
            }
            Ok(VcpuExit::IoOut(port, data)) => {
                exits.pio_write_exits.add(1);
                bus.pio_write(port, data).map(Event::Ended)
            }
            Ok(VcpuExit::Shutdown) => Some(Event::Ended(GuestEnd::TripleFault)),
            Ok(VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_SHUTDOWN | KVM_SYSTEM_EVENT_RESET, _)) => {
                Some(Event::Ended(GuestEnd::Clean))
            }
            Ok(VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_CRASH, _)) => Some(Event::Ended(GuestEnd::Panic)),
            Ok(VcpuExit::Intr | VcpuExit::IrqWindowOpen) => {
                exits.other_exits.add(1);
                None
            }
            Ok(VcpuExit::InternalError) => {
                let run = self.fd.get_kvm_run();
                // SAFETY: the exit reason says that this member of the union is valid; any bits are a valid number.
                let suberror = unsafe { run.__bindgen_anon_1.internal.suberror };
                Some(Event::Failed(VcpuError::Internal { vcpu: self.id, suberror }))
            }
            Ok(VcpuExit::FailEntry(reason, _)) => {
                stopped(format!("the processor refused to enter the guest (reason {reason:#x})"))
            }
            Ok(other) => stopped(format!("unexpected exit {other:?}")),
            Err(error) if error.errno() == libc::EINTR => {
                exits.kick_exits.add(1);
                None
            }
            Err(error) if error.errno() == libc::EAGAIN => {
                exits.other_exits.add(1);
                None
            }
            Err(source) => Some(Event::Failed(VcpuError::Run { vcpu: self.id, source })),
        }
    }
}
