//! A guest's driver: requests in a queue, and the VMM's device.

use husk_vmm::{
    config::{FilesystemConfig, FilesystemSocket, MemoryConfig},
    memory,
    virtio::{Activation, ActiveQueue, Interrupt, VirtioDevice, fs::Fs},
};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

use crate::server::Server;

/// VIRTIO_F_VERSION_1, VIRTIO_RING_F_EVENT_IDX and VIRTIO_RING_F_INDIRECT_DESC: what Linux agrees to.
const FEATURES: u64 = 1 << 32 | 1 << 29 | 1 << 28;
/// Where each queue's rings are.
const RINGS: [u64; 2] = [0x1_0000, 0x2_0000];
/// Parts of a queue's rings.
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;
const SIZE: u16 = 16;
const REQUEST: u64 = 0x10_0000;
const ANSWER: u64 = 0x20_0000;
const NEXT: u16 = 1;
const WRITE: u16 = 2;

/// A guest with a file system.
pub(crate) struct Guest {
    device: Fs,
    mem: GuestMemoryMmap,
    irq: EventFd,
    interrupt: Interrupt,
    kicks: [EventFd; 2],
    /// Requests made since the device was started.
    made: u16,
    pub(crate) unique: u64,
    /// The user who asks.
    pub(crate) uid: u32,
}

impl Guest {
    pub(crate) fn connect(server: &Server) -> Self {
        let socket = FilesystemSocket::Path(server.socket.clone());
        let device = Fs::open(&FilesystemConfig { tag: "test".into(), socket }).unwrap();
        let config = MemoryConfig { shared: true, ..MemoryConfig::default() };
        let mem = memory::map(64, config, memory::create_file(64, config).unwrap().as_ref()).unwrap();
        let irq = EventFd::new(0).unwrap();
        let interrupt = Interrupt::new(irq.try_clone().unwrap());
        let kicks = [0, 0].map(|_| EventFd::new(0).unwrap());
        let mut guest = Self { device, mem, irq, interrupt, kicks, made: 0, unique: 0, uid: 0 };
        guest.start();
        guest
    }

    fn start(&mut self) {
        self.made = 0;
        let queues = RINGS.iter().zip(&self.kicks).map(|(rings, kick)| {
            self.mem.write_slice(&[0; 0x3000], GuestAddress(*rings)).unwrap();
            let mut queue = Queue::new(SIZE).unwrap();
            queue.try_set_desc_table_address(GuestAddress(*rings)).unwrap();
            queue.try_set_avail_ring_address(GuestAddress(rings + AVAILABLE)).unwrap();
            queue.try_set_used_ring_address(GuestAddress(rings + USED)).unwrap();
            queue.set_ready(true);
            Some(ActiveQueue { queue, kick: kick.try_clone().unwrap() })
        });
        let (mem, interrupt) = (self.mem.clone(), self.interrupt.clone());
        let queues = queues.collect();
        self.device.activate(Activation { mem, queues, interrupt, features: FEATURES }).unwrap();
    }

    /// Resets the device and starts it again.
    pub(crate) fn restart(&mut self) {
        self.device.reset();
        self.interrupt.reset();
        self.start();
    }

    /// Makes a request and waits for the answer, which has at most `room` bytes.
    pub(crate) fn ask(&mut self, request: &[u8], room: u32) -> Vec<u8> {
        let mem = &self.mem;
        let rings = RINGS[1];
        mem.write_slice(request, GuestAddress(REQUEST)).unwrap();
        let request_len = u32::try_from(request.len()).unwrap();
        let descriptors = [(REQUEST, request_len, NEXT, 1_u16), (ANSWER, room, WRITE, 0)];
        for (at, (address, len, flags, next)) in (0..).step_by(16).zip(descriptors) {
            let at = GuestAddress(rings + at);
            mem.write_obj(address, at).unwrap();
            mem.write_obj(len, GuestAddress(at.0 + 8)).unwrap();
            mem.write_obj(flags, GuestAddress(at.0 + 12)).unwrap();
            mem.write_obj(next, GuestAddress(at.0 + 14)).unwrap();
        }
        let slot = u64::from(self.made % SIZE);
        mem.write_obj(0_u16, GuestAddress(rings + AVAILABLE + 4 + 2 * slot)).unwrap();
        // Used buffers from this one on are to be told of (used_event).
        mem.write_obj(self.made, GuestAddress(rings + AVAILABLE + 4 + 2 * u64::from(SIZE))).unwrap();
        self.made += 1;
        mem.store(self.made, GuestAddress(rings + AVAILABLE + 2), std::sync::atomic::Ordering::Release)
            .unwrap();
        self.kicks[1].write(1).unwrap();
        let used = GuestAddress(rings + USED + 2);
        while mem.load::<u16>(used, std::sync::atomic::Ordering::Acquire).unwrap() != self.made {
            self.irq.read().unwrap();
            assert_eq!(self.interrupt.device_status(), 0, "the device failed");
        }
        let len: u32 = mem.read_obj(GuestAddress(rings + USED + 4 + 8 * slot + 4)).unwrap();
        let mut answer = vec![0; usize::try_from(len).unwrap()];
        mem.read_slice(&mut answer, GuestAddress(ANSWER)).unwrap();
        answer
    }

    pub(crate) fn wait_for_failure(&self) {
        while self.interrupt.device_status() == 0 {
            self.irq.read().unwrap();
        }
    }
}
