//! virtio-fs (virtio 1.2, section 5.11): a directory of the host, served by a process of its own. The VMM only hands that
//! process, over vhost-user, the guest's memory, the queues and the interrupt; from then on requests go past it.
//!
//! | threat | answer |
//! |---|---|
//! | requests that make no sense, paths that lead out of the directory | the server's to answer; what it could be made to do, its jail limits |
//! | the guest takes over the server | it has the guest's memory and the descriptors of its queues, all the guest's own, and the interrupt line, which it can raise for nothing |
//! | a server that ends, refuses or answers nothing | the device stops until it is reset; a reset waits for it for a limited time |

use std::{
    io,
    net::Shutdown,
    os::{
        fd::{AsRawFd, BorrowedFd, RawFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    time::Duration,
};

use virtio_bindings::{
    virtio_ids::VIRTIO_ID_FS,
    virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC},
};
use vmm_sys_util::{
    epoll::{ControlOperation, Epoll, EpollEvent, EventSet},
    eventfd::EventFd,
};

use super::{ActivateError, Activation, VirtioDevice, Worker};
use crate::{
    config::{FilesystemConfig, FilesystemSocket, MAX_TAG_LEN},
    jail::seccomp::Role,
};

mod metrics;
mod session;
#[cfg(test)]
mod tests;

pub use metrics::FsCounters;
use session::{Session, SessionError};

/// The queue for what must not wait, FORGET and INTERRUPT, and one for all else. Linux makes requests as large as the
/// latter has room for, and up to 1 MiB.
const QUEUE_SIZES: [u16; 2] = [128, 1024];
/// So many queues are for ordinary requests.
const REQUEST_QUEUES: u32 = 1;
/// How long a reset waits for a server that may be waiting for a disk itself.
const PATIENCE: Duration = Duration::from_secs(10);

const SOCKET: u64 = 0;
const STOP: u64 = 1;

/// A file system's server can't be reached.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    /// Nobody listens.
    #[error("cannot connect to {path}, the server of the file system {tag}: is it running?")]
    Connect {
        /// The file system.
        tag: String,
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An inherited descriptor is something else.
    #[error("the descriptor {fd} of the file system {tag} is not a connected unix socket")]
    Descriptor {
        /// The file system.
        tag: String,
        /// The descriptor.
        fd: RawFd,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A file system.
#[derive(Debug)]
pub struct Fs {
    /// Tag and number of queues (section 5.11.4).
    config: [u8; MAX_TAG_LEN + size_of::<u32>()],
    /// The same socket as the session's, to hang up.
    socket: UnixStream,
    /// The worker has it for as long as it lives.
    session: Arc<Mutex<Session>>,
    counters: Arc<FsCounters>,
    running: Option<Running>,
    /// How long a reset waits for the server.
    patience: Duration,
}

/// A thread at work.
#[derive(Debug)]
struct Running {
    worker: Worker,
    /// Hangs up when the thread is done.
    done: Receiver<()>,
}

impl Fs {
    /// Connects to a server. Nothing is said yet, so it need not even have accepted.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn open(config: &FilesystemConfig) -> Result<Self, FsError> {
        let tag = &config.tag;
        match &config.socket {
            FilesystemSocket::Path(path) => UnixStream::connect(path)
                .and_then(|socket| Self::new(tag, socket))
                .map_err(|source| FsError::Connect { tag: tag.clone(), path: path.clone(), source }),
            FilesystemSocket::Fd(fd) => inherit(*fd)
                .and_then(|socket| Self::new(tag, socket))
                .map_err(|source| FsError::Descriptor { tag: tag.clone(), fd: *fd, source }),
        }
    }

    /// A file system whose server is at the other end of `socket`.
    fn new(tag: &str, socket: UnixStream) -> io::Result<Self> {
        let mut config = [0; MAX_TAG_LEN + size_of::<u32>()];
        let (tag_bytes, queues) = config.split_at_mut(MAX_TAG_LEN);
        // Its length has been checked.
        tag_bytes.iter_mut().zip(tag.bytes()).for_each(|(to, from)| *to = from);
        queues.copy_from_slice(&REQUEST_QUEUES.to_le_bytes());
        let session = Session::new(socket.try_clone()?, QUEUE_SIZES.len() as u64);
        Ok(Self {
            config,
            socket,
            session: Arc::new(Mutex::new(session)),
            counters: Arc::default(),
            running: None,
            patience: PATIENCE,
        })
    }

    /// What it counts.
    pub fn counters(&self) -> Arc<FsCounters> {
        self.counters.clone()
    }
}

/// A duplicate of an inherited socket.
fn inherit(fd: RawFd) -> io::Result<UnixStream> {
    // SAFETY: the number was named for this by whoever started the process. Should nothing be open under it, then it
    // can't be duplicated; should it be anything else than a connected unix socket, then nothing is done with it.
    let inherited = unsafe { BorrowedFd::borrow_raw(fd) };
    let socket = UnixStream::from(inherited.try_clone_to_owned()?);
    socket.peer_addr()?;
    socket.set_nonblocking(false)?;
    Ok(socket)
}

impl VirtioDevice for Fs {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_FS
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_RING_F_EVENT_IDX | 1 << VIRTIO_RING_F_INDIRECT_DESC
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = self.config.get(offset..).unwrap_or_default().iter().copied();
        data.iter_mut().zip(rest.chain(std::iter::repeat(0))).for_each(|(to, from)| *to = from);
    }

    /// Returns at once: the server may still be starting, and the vCPU has better to do than to wait for it. Until the
    /// server has the queues, what the driver puts into them waits there.
    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let failed = |what| move |source| ActivateError::Os { what, source };
        let call = activation.interrupt.lend().try_clone().map_err(failed("cannot duplicate an eventfd"))?;
        let socket = self.socket.as_raw_fd();
        let (session, counters) = (self.session.clone(), self.counters.clone());
        let (working, done) = channel();
        let interrupt = activation.interrupt.clone();
        let run = move |stop: EventFd| {
            let _working = working;
            let mut session = session.lock().unwrap_or_else(PoisonError::into_inner);
            counters.starts.add(1);
            let result = run(&mut session, &activation, &call, socket, &stop);
            if result.is_ok() {
                counters.stops.add(1)
            } else {
                counters.failures.add(1)
            }
            result
        };
        let worker =
            Worker::spawn("fs", Role::Fs, interrupt, run).map_err(failed("cannot start the fs thread"))?;
        self.running = Some(Running { worker, done });
        Ok(())
    }

    fn reset(&mut self) {
        let Some(Running { worker, done }) = self.running.take() else { return };
        worker.ask_to_stop();
        if done.recv_timeout(self.patience) == Err(RecvTimeoutError::Timeout) {
            // The thread waits for an answer. Now it gets none, and the device is lost.
            let _ = self.socket.shutdown(Shutdown::Both);
        }
        drop(worker);
    }
}

/// Has the server work until `stop` becomes readable, or the server is gone.
fn run(
    session: &mut Session,
    activation: &Activation,
    call: &EventFd,
    socket: RawFd,
    stop: &EventFd,
) -> Result<(), SessionError> {
    let Activation { mem, queues, features, .. } = activation;
    let epoll = Epoll::new()?;
    for (fd, events, token) in
        [(socket, EventSet::IN | EventSet::READ_HANG_UP, SOCKET), (stop.as_raw_fd(), EventSet::IN, STOP)]
    {
        epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(events, token))?;
    }
    session.start(mem, *features, queues, call)?;
    loop {
        let mut events = [EpollEvent::default(); 2];
        let count = match epoll.wait(-1, &mut events) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result?,
        };
        let happened = &events[..count];
        if happened.iter().any(|event| event.data() == STOP) {
            return session.stop(queues);
        }
        let gone = EventSet::READ_HANG_UP | EventSet::HANG_UP | EventSet::ERROR;
        return Err(if happened.iter().any(|event| event.event_set().intersects(gone)) {
            SessionError::HungUp
        } else {
            SessionError::Unasked
        });
    }
}
