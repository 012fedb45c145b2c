//! The life of the VMM process: makes the VM, then waits for its end, for its owner's, or for being told to end.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    path::{Path, PathBuf},
};

use husk_base::chain;
use vmm_sys_util::{
    epoll::{ControlOperation, Epoll, EpollEvent, EventSet},
    signal::create_sigset,
};

use crate::{
    bus::GuestEnd,
    config::{NetConfig, TapConfig, VmConfig},
    control::{MetricsFormat, Nothing, Request, Response, Server, State, Status, to_line},
    error::VmError,
    jail::{
        JailError,
        seccomp::{self, Role},
    },
    metrics::prometheus,
    socket_files::SocketFiles,
    time::monotonic_ns,
    vcpu::{Event, VcpuError},
    virtio::block::Source,
    vm::{Parts, Vm},
};

const VM: u64 = 0;
const SIGNAL: u64 = 1;
const LIFELINE: u64 = 2;
const LISTENER: u64 = 3;
/// Connections have their descriptor added to this.
const FIRST_CONNECTION: u64 = 4;
/// Descriptors that a VM with many disks, interfaces and connections may need at once.
const RESERVED_FDS: RawFd = 512;

/// The VMM failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The VM can't be made.
    #[error("cannot start the VM")]
    Vm(#[from] VmError),
    /// The VM can't go on.
    #[error("the VM failed")]
    Vcpu(#[from] VcpuError),
    /// The control socket can't be made.
    #[error("cannot listen on the control socket {path}")]
    Control {
        /// Where it should be.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The main thread can't be bound to its system calls.
    #[error("cannot bind the VMM to its system calls")]
    Filter(#[from] JailError),
    /// The host's kernel refused something.
    #[error("the event loop failed")]
    Loop(#[from] io::Error),
}

/// Why the VM ended, when nothing failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The guest ended itself.
    Guest(GuestEnd),
    /// Control socket, lifeline or signal.
    Told,
}

/// What the owner of the VM watches and steers it by.
#[derive(Debug)]
pub struct Owner {
    /// Where requests come in.
    pub control: Option<Server>,
    /// The VM ends when the other end of this is closed.
    pub lifeline: Option<OwnedFd>,
}

/// Listens for requests at `path`; what is to be removed later is added to `sockets`.
///
/// # Errors
/// When the socket can't be made.
pub fn listen(path: &Path, sockets: &mut SocketFiles) -> Result<Server, RunError> {
    let server = Server::bind(path).map_err(|source| RunError::Control { path: path.into(), source })?;
    sockets.add(path.into());
    Ok(server)
}

/// Runs a VM until it ends; `started_ns` is when the process began.
///
/// # Errors
/// When the VM can't be made, or can't go on for another reason than the guest's own.
pub fn run(config: &VmConfig, parts: Parts, owner: Owner, started_ns: u64) -> Result<End, RunError> {
    // Before any other thread exists, which would inherit another mask.
    let signals = watch_signals()?;
    husk_jail::inherited::reserve(&signals, RESERVED_FDS);
    let epoll = Epoll::new()?;
    let watch =
        |fd: RawFd, events, token| epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(events, token));
    watch(signals.as_raw_fd(), EventSet::IN, SIGNAL)?;
    if let Some(lifeline) = &owner.lifeline {
        // A pipe that hangs up is always reported; a socket only on demand.
        watch(lifeline.as_raw_fd(), EventSet::READ_HANG_UP, LIFELINE)?;
    }
    let mut server = owner.control;
    if let Some(server) = &server {
        watch(server.listener(), EventSet::IN, LISTENER)?;
    }
    let mut vm = Vm::new(config, parts)?;
    seccomp::apply(Role::Main)?;
    watch(vm.wakeup().as_raw_fd(), EventSet::IN, VM)?;
    let configured_ns = monotonic_ns();
    vm.resume();

    let end = loop {
        let mut events = [EpollEvent::default(); 8];
        let count = match epoll.wait(-1, &mut events) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result?,
        };
        let mut end = None;
        for event in &events[..count] {
            match (event.data(), &mut server) {
                (VM, _) => match vm.next_event() {
                    Some(Event::Ended(guest_end)) => end = Some(Ok(End::Guest(guest_end))),
                    Some(Event::Failed(error)) => end = Some(Err(error.into())),
                    None => {}
                },
                (SIGNAL | LIFELINE, _) => end = end.or(Some(Ok(End::Told))),
                (LISTENER, Some(server)) => {
                    if let Some(fd) = server.accept() {
                        let token = FIRST_CONNECTION + u64::try_from(fd).unwrap_or(0);
                        watch(fd, EventSet::IN, token)?;
                    }
                }
                (token, Some(server)) => {
                    let fd = RawFd::try_from(token - FIRST_CONNECTION).unwrap_or(-1);
                    let mut told = false;
                    let stamps = Stamps { started_ns, configured_ns };
                    // epoll forgets a connection that this closes.
                    server.serve(fd, |request, passed| {
                        told |= request == Request::Shutdown {};
                        answer(&mut vm, config, stamps, request, passed)
                    });
                    if told {
                        end = end.or(Some(Ok(End::Told)));
                    }
                }
                (_, None) => {}
            }
        }
        if let Some(end) = end {
            break end;
        }
    };
    vm.flush_console();
    end
}

#[derive(Debug, Clone, Copy)]
struct Stamps {
    started_ns: u64,
    configured_ns: u64,
}

fn answer(
    vm: &mut Vm,
    config: &VmConfig,
    stamps: Stamps,
    request: Request,
    passed: Option<OwnedFd>,
) -> String {
    match request {
        Request::State {} => to_line(&Response::Ok(State {
            status: if vm.is_running() { Status::Running } else { Status::Paused },
            vcpus: config.vcpus,
            mem_size_mib: config.mem_size_mib,
            started_ns: stamps.started_ns,
            configured_ns: stamps.configured_ns,
            first_instruction_ns: vm.first_instruction_ns(),
            stalled_disks: vm.devices().disks().stalled(),
        })),
        Request::Metrics { format } => match (vm.metrics(), format) {
            (Ok(metrics), MetricsFormat::Json) => to_line(&Response::Ok(metrics)),
            (Ok(metrics), MetricsFormat::Prometheus) => to_line(&Response::Ok(prometheus::render(&metrics))),
            (Err(error), _) => to_line(&Response::<Nothing>::Error(format!("no metrics: {error}"))),
        },
        Request::Pause {} => {
            vm.pause();
            to_line(&Response::Ok(Nothing {}))
        }
        Request::Resume {} => {
            vm.resume();
            to_line(&Response::Ok(Nothing {}))
        }
        Request::Balloon {} => match vm.devices().balloon() {
            Some(balloon) => to_line(&Response::Ok(balloon.state())),
            None => no_balloon(),
        },
        Request::SetBalloon { target_mib } => {
            match (vm.devices().balloon(), config.validate_balloon_target(target_mib)) {
                (None, _) => no_balloon(),
                (_, Err(error)) => to_line(&Response::<Nothing>::Error(error.to_string())),
                (Some(balloon), Ok(())) => {
                    balloon.set_target_mib(target_mib);
                    to_line(&Response::Ok(Nothing {}))
                }
            }
        }
        Request::SetNetLimit { id, rx, tx } => {
            answer_result(vm.devices().nets().set_limits(&id, rx, tx).map(|()| Nothing {}))
        }
        Request::AttachNet { id, mac, mtu, limit_rx, limit_tx } => match passed {
            Some(passed) => {
                let tap = TapConfig::Fds(vec![passed.as_raw_fd()]);
                let net = NetConfig { id, tap, mac, mtu, queue_pairs: 1, limit_rx, limit_tx };
                match vm.attach_net(&net) {
                    Ok(attached) => answer_result(vm.plug(attached)),
                    Err(error) => answer_result(Err::<Nothing, _>(error)),
                }
            }
            None => to_line(&Response::<Nothing>::Error(format!(
                "the network interface {id} has no descriptor of a tap passed along"
            ))),
        },
        Request::AttachDisk { id, path, read_only, limit } => {
            // A path means nothing in a jail.
            let path = path.filter(|_| config.jail.is_none());
            match path.map(Source::Path).or(passed.map(Source::Open)) {
                Some(source) => match vm.devices().disks().attach(&id, source, read_only, limit) {
                    Ok(attached) => answer_result(vm.plug(attached)),
                    Err(error) => answer_result(Err::<Nothing, _>(error)),
                },
                None => to_line(&Response::<Nothing>::Error(format!(
                    "the disk {id} has neither a path that this VMM can reach nor a descriptor passed along"
                ))),
            }
        }
        Request::DetachDisk { id } => answer_result(vm.devices().disks().detach(&id).map(|()| Nothing {})),
        Request::SetDiskLimit { id, limit } => {
            answer_result(vm.devices().disks().set_limit(&id, limit).map(|()| Nothing {}))
        }
        Request::RetryDisks {} => {
            vm.devices().disks().retry();
            to_line(&Response::Ok(Nothing {}))
        }
        Request::Shutdown {} => to_line(&Response::Ok(Nothing {})),
    }
}

fn no_balloon() -> String {
    to_line(&Response::<Nothing>::Error("the VM has no balloon: its configuration must have one".into()))
}

/// An error with all its causes.
fn answer_result<T: serde::Serialize>(result: Result<T, impl std::error::Error>) -> String {
    match result {
        Ok(value) => to_line(&Response::Ok(value)),
        Err(error) => to_line(&Response::<Nothing>::Error(chain::text(&error))),
    }
}

/// Turns the signals that ask for an end into a readable descriptor.
fn watch_signals() -> io::Result<OwnedFd> {
    let set = create_sigset(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP]).map_err(io::Error::from)?;
    // SAFETY: the set is valid and lives on; the old mask is not asked for.
    let failed = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    if failed != 0 {
        return Err(io::Error::from_raw_os_error(failed));
    }
    // SAFETY: as above; the result is checked.
    let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
