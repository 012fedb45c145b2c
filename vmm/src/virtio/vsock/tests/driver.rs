//! A guest in plain memory: its side of the queues and of the vsock protocol, and an engine to talk to.

use std::{
    collections::{HashMap, VecDeque},
    io::{self, Read},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
};

use tempfile::TempDir;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::super::{
    engine::Engine,
    header::{HEADER_LEN, HOST_CID, Header, Key, Op, TYPE_STREAM},
    host,
};
use crate::virtio::{ActiveQueue, Interrupt, device::INTERRUPT_USED_RING};

pub(super) const GUEST_CID: u32 = 3;
pub(super) const QUEUE_SIZE: u16 = 256;

const DESC_NEXT: u16 = 1;
const DESC_WRITE: u16 = 2;
const SLOT_LEN: u64 = 0x1_1000;

/// The driver's side of one queue. Descriptors 2n and 2n+1 belong to slot n, as does a piece of memory.
#[derive(Debug)]
struct DriverRing {
    desc: u64,
    avail: u64,
    used: u64,
    slots: u64,
    avail_idx: u16,
    /// `avail_idx` when the device was to be notified last.
    kicked_idx: u16,
    used_idx: u16,
    free: Vec<u16>,
    kick: EventFd,
    event_idx: bool,
}

impl DriverRing {
    fn new(at: u64, slots: u64, event_idx: bool) -> (Self, ActiveQueue) {
        // virtio-queue's own mock lays big rings out so that they overlap.
        let (desc, avail, used) = (at, at + 0x2000, at + 0x4000);
        let kick = EventFd::new(EFD_NONBLOCK).unwrap();
        let mut queue = queue(desc, avail, used);
        queue.set_event_idx(event_idx);
        let active = ActiveQueue { queue, kick: kick.try_clone().unwrap() };
        let free = (0..QUEUE_SIZE / 2).rev().collect();
        (
            Self {
                desc,
                avail,
                used,
                slots,
                avail_idx: 0,
                kicked_idx: 0,
                used_idx: 0,
                free,
                kick,
                event_idx,
            },
            active,
        )
    }

    /// Notifies the device, if it wants that (virtio 1.2, section 2.7.10).
    fn kick(&mut self, mem: &GuestMemoryMmap) {
        let wanted = if self.event_idx {
            let event: u16 = mem.read_obj(GuestAddress(self.used + 4 + 8 * u64::from(QUEUE_SIZE))).unwrap();
            let added = self.avail_idx.wrapping_sub(self.kicked_idx);
            self.avail_idx.wrapping_sub(event).wrapping_sub(1) < added
        } else {
            let flags: u16 = mem.read_obj(GuestAddress(self.used)).unwrap();
            flags & 1 == 0
        };
        self.kicked_idx = self.avail_idx;
        if wanted {
            self.kick.write(1).unwrap();
        }
    }

    /// Wants an interrupt for the next chain that the device gives back.
    fn want_interrupt(&self, mem: &GuestMemoryMmap) {
        let at = self.avail + 4 + 2 * u64::from(QUEUE_SIZE);
        mem.write_obj(self.used_idx, GuestAddress(at)).unwrap();
    }

    fn slot(&self, slot: u16) -> u64 {
        self.slots + u64::from(slot) * SLOT_LEN
    }

    fn describe(&self, mem: &GuestMemoryMmap, index: u16, addr: u64, len: usize, flags: u16) {
        let at = self.desc + u64::from(index) * 16;
        mem.write_obj(addr, GuestAddress(at)).unwrap();
        mem.write_obj(u32::try_from(len).unwrap(), GuestAddress(at + 8)).unwrap();
        mem.write_obj(flags, GuestAddress(at + 12)).unwrap();
        mem.write_obj(index + 1, GuestAddress(at + 14)).unwrap();
    }

    fn offer(&mut self, mem: &GuestMemoryMmap, head: u16) {
        let at = self.avail + 4 + 2 * u64::from(self.avail_idx % QUEUE_SIZE);
        mem.write_obj(head, GuestAddress(at)).unwrap();
        self.avail_idx = self.avail_idx.wrapping_add(1);
        mem.write_obj(self.avail_idx, GuestAddress(self.avail + 2)).unwrap();
    }

    /// The next slot that the device has used, and how much it wrote.
    fn reap(&mut self, mem: &GuestMemoryMmap) -> Option<(u16, usize)> {
        let idx: u16 = mem.read_obj(GuestAddress(self.used + 2)).unwrap();
        if idx == self.used_idx {
            return None;
        }
        let at = self.used + 4 + 8 * u64::from(self.used_idx % QUEUE_SIZE);
        self.used_idx = self.used_idx.wrapping_add(1);
        let head: u32 = mem.read_obj(GuestAddress(at)).unwrap();
        let len: u32 = mem.read_obj(GuestAddress(at + 4)).unwrap();
        Some((u16::try_from(head / 2).unwrap(), len as usize))
    }
}

/// A ready queue with its parts at these addresses.
pub(super) fn queue(desc: u64, avail: u64, used: u64) -> Queue {
    let mut queue = Queue::new(QUEUE_SIZE).unwrap();
    let low = |address: u64| Some(u32::try_from(address).unwrap());
    queue.set_desc_table_address(low(desc), Some(0));
    queue.set_avail_ring_address(low(avail), Some(0));
    queue.set_used_ring_address(low(used), Some(0));
    queue.set_ready(true);
    queue
}

/// What the guest knows of a connection.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// Room for data.
    pub(super) buf_alloc: u32,
    /// Everything received.
    pub(super) data: Vec<u8>,
    /// How much of `data` counts as read by the application; the device has been told `told`.
    pub(super) read: usize,
    told: usize,
    /// Bytes sent.
    pub(super) sent: u32,
    /// The device's credit.
    pub(super) device_alloc: u32,
    pub(super) device_fwd: u32,
    /// Operations other than data, in order.
    pub(super) ops: Vec<Op>,
    /// Shutdown flags of the device.
    pub(super) shutdown: u32,
    /// Credit updates received.
    pub(super) updates: usize,
}

impl Peer {
    /// What may be sent to the device now.
    pub(super) fn credit(&self) -> usize {
        self.device_alloc.saturating_sub(self.sent.wrapping_sub(self.device_fwd)) as usize
    }
}

/// A guest and the engine that serves it.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) mem: GuestMemoryMmap,
    pub(super) engine: Engine,
    pub(super) interrupt: Interrupt,
    dir: TempDir,
    rx: DriverRing,
    tx: DriverRing,
    /// Give buffers back as soon as they are used.
    pub(super) refill: bool,
    /// Size of buffers for packets.
    pub(super) rx_len: usize,
    waiting: VecDeque<Vec<u8>>,
    /// Connections by their ports, made as packets come.
    pub(super) peers: HashMap<Key, Peer>,
}

/// A guest with packet buffers and no connections.
pub(super) fn guest() -> Guest {
    let mut guest = bare_guest();
    guest.refill = true;
    guest.give_buffers(64);
    guest
}

/// A guest that gives no buffers by itself.
pub(super) fn bare_guest() -> Guest {
    guest_with(true)
}

/// A guest that gives no buffers by itself, and has agreed to EVENT_IDX or not.
pub(super) fn guest_with(event_idx: bool) -> Guest {
    let mem = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 32 << 20)]).unwrap();
    let (rx, rx_queue) = DriverRing::new(0, 1 << 20, event_idx);
    let (tx, tx_queue) = DriverRing::new(0x1_0000, 16 << 20, event_idx);
    let interrupt = Interrupt::new(EventFd::new(EFD_NONBLOCK).unwrap());
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("vsock");
    let listener = host::listen(&socket).unwrap();
    let host = (listener, socket);
    let engine = Engine::new(
        mem.clone(),
        rx_queue,
        tx_queue,
        interrupt.clone(),
        GUEST_CID,
        host,
        std::sync::Arc::default(),
    )
    .unwrap();
    Guest {
        mem,
        engine,
        interrupt,
        dir,
        rx,
        tx,
        refill: false,
        rx_len: 4096,
        waiting: VecDeque::new(),
        peers: HashMap::new(),
    }
}

impl Guest {
    /// A listening socket for a port of the host.
    pub(super) fn listen(&self, port: u32) -> UnixListener {
        UnixListener::bind(self.port_path(port)).unwrap()
    }

    pub(super) fn port_path(&self, port: u32) -> PathBuf {
        host::port_path(&self.dir.path().join("vsock"), port)
    }

    /// A host process that wants to connect.
    pub(super) fn dial(&self) -> UnixStream {
        let stream = UnixStream::connect(self.dir.path().join("vsock")).unwrap();
        stream.set_nonblocking(true).unwrap();
        stream
    }

    /// Offers `count` buffers for packets, each in two pieces with the header across both.
    pub(super) fn give_buffers(&mut self, count: usize) {
        for _ in 0..count {
            let slot = self.rx.free.pop().unwrap();
            self.offer_buffer(slot);
        }
        self.rx.kick(&self.mem);
    }

    /// Offers `count` buffers, or as many as there are left.
    pub(super) fn give_buffers_up_to(&mut self, count: usize) {
        self.give_buffers(count.min(self.rx.free.len()));
    }

    fn offer_buffer(&mut self, slot: u16) {
        let at = self.rx.slot(slot);
        self.rx.describe(&self.mem, 2 * slot, at, 30, DESC_NEXT | DESC_WRITE);
        self.rx.describe(&self.mem, 2 * slot + 1, at + 30, self.rx_len - 30, DESC_WRITE);
        self.rx.offer(&self.mem, 2 * slot);
    }

    /// Sends raw bytes as a packet, in two pieces.
    pub(super) fn send_raw(&mut self, bytes: Vec<u8>) {
        self.waiting.push_back(bytes);
        self.push_waiting();
    }

    fn push_waiting(&mut self) {
        if self.waiting.is_empty() || self.tx.free.is_empty() {
            return;
        }
        while !self.waiting.is_empty()
            && let Some(slot) = self.tx.free.pop()
        {
            let bytes = self.waiting.pop_front().unwrap();
            let at = self.tx.slot(slot);
            self.mem.write_slice(&bytes, GuestAddress(at)).unwrap();
            let first = bytes.len().min(HEADER_LEN);
            let rest = bytes.len() - first;
            self.tx.describe(&self.mem, 2 * slot, at, first, if rest > 0 { DESC_NEXT } else { 0 });
            self.tx.describe(&self.mem, 2 * slot + 1, at + first as u64, rest, 0);
            self.tx.offer(&self.mem, 2 * slot);
        }
        self.tx.kick(&self.mem);
    }

    /// Offers a chain head that does not exist.
    pub(super) fn break_tx(&mut self) {
        self.tx.offer(&self.mem, QUEUE_SIZE + 7);
        self.tx.kick(&self.mem);
    }

    /// A packet without payload.
    pub(super) fn header(&self, key: Key, op: Op) -> Header {
        let peer = self.peers.get(&key);
        Header {
            src_cid: GUEST_CID.into(),
            dst_cid: HOST_CID,
            src_port: key.guest_port,
            dst_port: key.host_port,
            len: 0,
            kind: TYPE_STREAM,
            op: op.to_raw(),
            flags: 0,
            buf_alloc: peer.map_or(0, |peer| peer.buf_alloc),
            fwd_cnt: peer.map_or(0, |peer| u32::try_from(peer.read).unwrap()),
        }
    }

    pub(super) fn send_header(&mut self, header: Header) {
        self.send_raw(header.to_bytes().to_vec());
    }

    pub(super) fn send(&mut self, key: Key, op: Op) {
        self.send_header(self.header(key, op));
    }

    pub(super) fn shut_down(&mut self, key: Key, flags: u32) {
        self.send_header(Header { flags, ..self.header(key, Op::Shutdown) });
    }

    /// Sends data, whatever the credit.
    pub(super) fn send_data(&mut self, key: Key, data: &[u8]) {
        let len = u32::try_from(data.len()).unwrap();
        let header = Header { len, ..self.header(key, Op::Data) };
        let peer = self.peers.get_mut(&key).unwrap();
        peer.sent = peer.sent.wrapping_add(len);
        self.send_raw([header.to_bytes().as_slice(), data].concat());
    }

    /// The application reads everything that has come, and the device is told.
    pub(super) fn read_all(&mut self, key: Key) {
        let peer = self.peers.get_mut(&key).unwrap();
        peer.read = peer.data.len();
        peer.told = peer.read;
        self.send(key, Op::CreditUpdate);
        self.settle();
    }

    /// Runs the engine until it would sleep. It must get there, and then sleep.
    pub(super) fn settle(&mut self) {
        for _ in 0..10_000 {
            self.turn();
            if self.waiting.is_empty() && self.engine.is_idle() {
                return;
            }
            if self.engine.is_idle() && self.tx.free.is_empty() {
                // It rightly does not look at more packets.
                return;
            }
        }
        panic!("the engine never sleeps");
    }

    fn turn(&mut self) {
        self.rx.want_interrupt(&self.mem);
        self.tx.want_interrupt(&self.mem);
        assert!(self.engine.turn(0).unwrap());
        let interrupted = self.interrupt.status() != 0;
        self.interrupt.acknowledge(INTERRUPT_USED_RING);
        let mut used = false;
        while let Some((slot, _)) = self.tx.reap(&self.mem) {
            used = true;
            self.tx.free.push(slot);
        }
        self.push_waiting();
        let mut refilled = false;
        while let Some((slot, len)) = self.rx.reap(&self.mem) {
            used = true;
            let mut bytes = vec![0; len];
            self.mem.read_slice(&mut bytes, GuestAddress(self.rx.slot(slot))).unwrap();
            self.receive(&bytes);
            if self.refill {
                self.offer_buffer(slot);
                refilled = true;
            } else {
                self.rx.free.push(slot);
            }
        }
        assert_eq!(interrupted, used, "interrupts are for used buffers");
        if refilled {
            self.rx.kick(&self.mem);
        }
    }

    fn receive(&mut self, bytes: &[u8]) {
        let Some((head, data)) = bytes.split_first_chunk::<HEADER_LEN>() else { return };
        let header = Header::from_bytes(head);
        assert_eq!((header.src_cid, header.dst_cid), (HOST_CID, u64::from(GUEST_CID)));
        assert_eq!(header.len as usize, data.len());
        let key = Key { guest_port: header.dst_port, host_port: header.src_port };
        let peer = self.peers.entry(key).or_insert_with(|| Peer { buf_alloc: 1 << 18, ..Peer::default() });
        peer.device_alloc = header.buf_alloc;
        peer.device_fwd = header.fwd_cnt;
        match Op::from_raw(header.op).unwrap() {
            Op::Data => {
                assert_eq!(peer.shutdown & 2, 0, "data after the end");
                peer.data.extend_from_slice(data);
                assert!(peer.data.len() - peer.told <= peer.buf_alloc as usize, "more than the credit");
            }
            Op::CreditUpdate => peer.updates += 1,
            op => {
                peer.shutdown |= header.flags;
                peer.ops.push(op);
            }
        }
    }

    /// Connects to a port of the host; it must be accepted or refused at once.
    pub(super) fn connect(&mut self, key: Key, buf_alloc: u32) -> Op {
        self.peers.insert(key, Peer { buf_alloc, ..Peer::default() });
        self.send(key, Op::Request);
        self.settle();
        *self.peers[&key].ops.last().unwrap()
    }

    /// The only connection that waits for the guest's answer.
    pub(super) fn requested(&self) -> Key {
        let mut keys = self.peers.iter().filter(|(_, peer)| peer.ops == [Op::Request]);
        let key = *keys.next().unwrap().0;
        assert!(keys.next().is_none());
        key
    }

    /// Accepts the only connection that waits for the guest's answer.
    pub(super) fn accept(&mut self) -> Key {
        let key = self.requested();
        self.send(key, Op::Response);
        self.settle();
        self.peers.get_mut(&key).unwrap().ops.clear();
        key
    }

    /// A connection from the guest, and the host's end of it.
    pub(super) fn connected(&mut self, key: Key, buf_alloc: u32) -> UnixStream {
        let listener = self.listen(key.host_port);
        assert_eq!(self.connect(key, buf_alloc), Op::Response);
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        std::fs::remove_file(self.port_path(key.host_port)).unwrap();
        stream
    }
}

/// What a socket has now, and whether the stream has ended, which it must do in order.
pub(super) fn read_now(stream: &UnixStream) -> (Vec<u8>, bool) {
    let (data, ended) = read_some(stream);
    (data, ended.unwrap())
}

/// What a socket has now, and whether the stream has ended.
pub(super) fn read_some(mut stream: &UnixStream) -> (Vec<u8>, io::Result<bool>) {
    let mut data = Vec::new();
    let mut chunk = [0; 8192];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return (data, Ok(true)),
            Ok(count) => data.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return (data, Ok(false)),
            Err(error) => return (data, Err(error)),
        }
    }
}

/// Bytes that don't repeat soon.
pub(super) fn pattern(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    })
    .take(len)
    .collect()
}

pub(super) fn key(guest_port: u32, host_port: u32) -> Key {
    Key { guest_port, host_port }
}
