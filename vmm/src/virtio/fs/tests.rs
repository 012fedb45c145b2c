//! The device against servers in threads of the test: one that works, and some that don't.

use std::{
    io::Read,
    os::{fd::IntoRawFd, unix::net::UnixListener},
    thread::{self, JoinHandle},
};

use tempfile::TempDir;
use vhost::vhost_user::{Listener, VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost_user_backend::{VhostUserBackendMut, VhostUserDaemon, VringRwLock, VringT};
use virtio_queue::{
    Queue, QueueOwnedT,
    desc::{RawDescriptor, split::Descriptor},
    mock::MockSplitQueue,
};
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::event::{EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier};

use super::*;
use crate::{
    config::MemoryConfig,
    memory,
    virtio::{
        ActiveQueue, Interrupt,
        device::{INTERRUPT_CONFIG, INTERRUPT_USED_RING, STATUS_NEEDS_RESET},
    },
};

const FEATURES: u64 = 1 << VIRTIO_RING_F_EVENT_IDX | 1 << VIRTIO_RING_F_INDIRECT_DESC;
const ANSWER: [u8; 8] = *b"answered";
const RINGS: GuestAddress = GuestAddress(0x1_0000);
const BUFFER: GuestAddress = GuestAddress(0x8_0000);

/// Answers each request with [`ANSWER`].
struct Server {
    features: u64,
    mem: Option<GuestMemoryAtomic<GuestMemoryMmap>>,
}

impl VhostUserBackendMut for Server {
    type Bitmap = ();
    type Vring = VringRwLock;

    fn num_queues(&self) -> usize {
        QUEUE_SIZES.len()
    }

    fn max_queue_size(&self) -> usize {
        1024
    }

    fn features(&self) -> u64 {
        self.features | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::REPLY_ACK | VhostUserProtocolFeatures::RESET_DEVICE
    }

    fn set_event_idx(&mut self, _enabled: bool) {}

    fn update_memory(&mut self, mem: GuestMemoryAtomic<GuestMemoryMmap>) -> io::Result<()> {
        self.mem = Some(mem);
        Ok(())
    }

    fn exit_event(&self, _thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        new_event_consumer_and_notifier(EventFlag::NONBLOCK).ok()
    }

    fn handle_event(
        &mut self,
        queue: u16,
        _events: EventSet,
        vrings: &[VringRwLock],
        _thread: usize,
    ) -> io::Result<()> {
        let mem = self.mem.as_ref().unwrap().memory();
        let vring = &vrings[usize::from(queue)];
        let chains: Vec<_> = match vring.get_mut().get_queue_mut().iter(mem.clone()) {
            Ok(chains) => chains.collect(),
            // It has just been taken back.
            Err(_) => return Ok(()),
        };
        for chain in chains {
            let head = chain.head_index();
            let room = chain.writable().next().unwrap();
            mem.write_slice(&ANSWER, room.addr()).unwrap();
            vring.add_used(head, 8).unwrap();
        }
        vring.signal_used_queue()
    }
}

/// A server's socket, and the server, which ends with its client. What it says of that is not of interest.
fn serve(features: u64) -> (TempDir, UnixStream, JoinHandle<()>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let mut listener = Listener::from(UnixListener::bind(&path).unwrap());
    let socket = UnixStream::connect(&path).unwrap();
    let server = thread::spawn(move || {
        let server = Arc::new(Mutex::new(Server { features, mem: None }));
        let mem = GuestMemoryAtomic::new(GuestMemoryMmap::new());
        let mut daemon = VhostUserDaemon::new("server".into(), server, mem).unwrap();
        daemon.start(&mut listener).unwrap();
        let _ = daemon.wait();
    });
    (dir, socket, server)
}

fn shared_memory() -> GuestMemoryMmap {
    let config = MemoryConfig { shared: true, ..MemoryConfig::default() };
    memory::map(64, config, memory::create_file(64, config).unwrap().as_ref()).unwrap()
}

/// A driver with one request in its second queue; the first is left alone.
struct Driver<'m> {
    mem: &'m GuestMemoryMmap,
    rings: MockSplitQueue<'m, GuestMemoryMmap>,
    /// Reads of it wait.
    irq: EventFd,
    interrupt: Interrupt,
    kick: EventFd,
}

impl<'m> Driver<'m> {
    fn new(mem: &'m GuestMemoryMmap) -> Self {
        let rings = MockSplitQueue::create(mem, RINGS, 16);
        mem.write_slice(&[0; 0x1000], RINGS).unwrap();
        mem.write_slice(&[0; 8], BUFFER).unwrap();
        let irq = EventFd::new(0).unwrap();
        let interrupt = Interrupt::new(irq.try_clone().unwrap());
        Self { mem, rings, irq, interrupt, kick: EventFd::new(0).unwrap() }
    }

    fn activation(&self) -> Activation {
        let queue: Queue = self.rings.create_queue().unwrap();
        let kick = self.kick.try_clone().unwrap();
        Activation {
            mem: self.mem.clone(),
            queues: vec![None, Some(ActiveQueue { queue, kick })],
            interrupt: self.interrupt.clone(),
            features: FEATURES,
        }
    }

    /// Makes a request, waits for the interrupt, and returns the answer.
    fn ask(&self) -> [u8; 8] {
        let write = 2;
        let request = RawDescriptor::from(Descriptor::new(BUFFER.0, 8, write, 0));
        self.rings.build_desc_chain(&[request]).unwrap();
        self.kick.write(1).unwrap();
        // An interrupt may come for nothing.
        while self.rings.used().idx().load() == 0 {
            self.irq.read().unwrap();
        }
        self.mem.read_obj(BUFFER).unwrap()
    }

    /// Waits until the device has failed.
    fn wait_for_failure(&self) {
        while self.interrupt.device_status() == 0 {
            self.irq.read().unwrap();
        }
        assert_eq!(self.interrupt.device_status(), STATUS_NEEDS_RESET);
        assert_ne!(self.interrupt.status() & INTERRUPT_CONFIG, 0);
    }
}

/// Starts, stops and failures.
fn counted(fs: &Fs) -> [u64; 3] {
    let counters = fs.counters();
    [counters.starts.get(), counters.stops.get(), counters.failures.get()]
}

#[test]
fn a_server_answers_and_may_be_given_the_queues_again() {
    let (_dir, socket, server) = serve(FEATURES);
    let mut fs = Fs::new("tag", socket).unwrap();
    let mem = shared_memory();
    for round in 1..=3 {
        let driver = Driver::new(&mem);
        assert_eq!(driver.interrupt.status(), 0);
        fs.activate(driver.activation()).unwrap();
        assert_eq!(driver.ask(), ANSWER);
        driver.interrupt.acknowledge(INTERRUPT_USED_RING);
        assert_eq!(driver.interrupt.status(), INTERRUPT_USED_RING, "there may always be more");
        assert_eq!(driver.rings.used().idx().load(), 1);
        fs.reset();
        driver.interrupt.reset();
        assert_eq!((driver.interrupt.status(), driver.interrupt.device_status()), (0, 0));
        assert_eq!(counted(&fs), [round, round, 0]);
    }
    // The server notices, or this waits for ever.
    drop(fs);
    server.join().unwrap();
}

#[test]
fn a_server_that_hangs_up_fails_the_device() {
    let (here, there) = UnixStream::pair().unwrap();
    let mut fs = Fs::new("tag", here).unwrap();
    let mem = shared_memory();
    let driver = Driver::new(&mem);
    fs.activate(driver.activation()).unwrap();
    // It has been greeted, and has nothing to say.
    let mut first = [0];
    (&there).read_exact(&mut first).unwrap();
    drop(there);
    driver.wait_for_failure();
    fs.reset();
    assert_eq!(counted(&fs), [1, 0, 1]);
    fs.activate(driver.activation()).unwrap();
    driver.wait_for_failure();
    fs.reset();
    assert_eq!(counted(&fs), [2, 0, 2], "and stays so");
}

#[test]
fn a_server_at_work_that_hangs_up_fails_the_device() {
    let (_dir, socket, server) = serve(FEATURES);
    let mut fs = Fs::new("tag", socket.try_clone().unwrap()).unwrap();
    let mem = shared_memory();
    let driver = Driver::new(&mem);
    fs.activate(driver.activation()).unwrap();
    assert_eq!(driver.ask(), ANSWER);
    // Both sides see the end.
    socket.shutdown(Shutdown::Both).unwrap();
    driver.wait_for_failure();
    server.join().unwrap();
    fs.reset();
    assert_eq!(counted(&fs), [1, 0, 1]);
}

#[test]
fn a_server_that_lacks_a_feature_fails_the_device() {
    let (_dir, socket, server) = serve(1 << VIRTIO_RING_F_INDIRECT_DESC);
    let mut fs = Fs::new("tag", socket).unwrap();
    let mem = shared_memory();
    let driver = Driver::new(&mem);
    fs.activate(driver.activation()).unwrap();
    driver.wait_for_failure();
    drop(fs);
    server.join().unwrap();
}

#[test]
fn private_memory_is_not_served() {
    let (_dir, socket, server) = serve(FEATURES);
    let mut fs = Fs::new("tag", socket).unwrap();
    let mem = memory::map(64, MemoryConfig::default(), None).unwrap();
    let driver = Driver::new(&mem);
    fs.activate(driver.activation()).unwrap();
    driver.wait_for_failure();
    drop(fs);
    server.join().unwrap();
}

#[test]
fn a_reset_does_not_wait_for_ever() {
    let (here, there) = UnixStream::pair().unwrap();
    let mut fs = Fs::new("tag", here).unwrap();
    fs.patience = Duration::from_millis(1);
    let mem = shared_memory();
    let driver = Driver::new(&mem);
    fs.activate(driver.activation()).unwrap();
    fs.reset();
    assert_eq!(counted(&fs), [1, 0, 1]);
    drop(there);
}

#[test]
fn the_configuration_has_tag_and_queues() {
    let (here, _there) = UnixStream::pair().unwrap();
    let fs = Fs::new("root", here).unwrap();
    let mut bytes = [0xff; 44];
    fs.read_config(0, &mut bytes);
    let mut expected = [0; 44];
    expected[..4].copy_from_slice(b"root");
    expected[36] = 1;
    assert_eq!(bytes, expected);
    for beyond in [40, u64::MAX] {
        let mut bytes = [0xff; 4];
        fs.read_config(beyond, &mut bytes);
        assert_eq!(bytes, [0; 4]);
    }
    let full = "x".repeat(MAX_TAG_LEN);
    let (here, _there) = UnixStream::pair().unwrap();
    Fs::new(&full, here).unwrap().read_config(0, &mut bytes);
    assert_eq!(bytes[..36], *full.as_bytes());
}

#[test]
fn only_a_connected_unix_socket_is_taken() {
    let open = |socket| Fs::open(&FilesystemConfig { tag: "tag".into(), socket });
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let error = open(FilesystemSocket::Path(path.clone())).unwrap_err();
    assert!(error.to_string().contains("is it running?"), "{error}");
    let listener = UnixListener::bind(&path).unwrap();
    open(FilesystemSocket::Path(path)).unwrap();
    let (here, _there) = UnixStream::pair().unwrap();
    open(FilesystemSocket::Fd(here.into_raw_fd())).unwrap();
    let file = tempfile::tempfile().unwrap();
    for wrong in [listener.as_raw_fd(), file.as_raw_fd(), 1 << 20] {
        let error = open(FilesystemSocket::Fd(wrong)).unwrap_err();
        assert!(matches!(error, FsError::Descriptor { .. }), "{error:?}");
    }
}
