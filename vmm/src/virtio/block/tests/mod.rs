//! Requests on plain memory, each in all ways in which a device may carry it out, and devices with their threads.

use std::{io::Write, sync::Arc};

use virtio_bindings::virtio_blk::{VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::{
    disk::{Closed, Disk, DiskError, Source},
    engine::Engine,
    queue::{BlockQueue, Next, Pass},
    ring::MAX_IN_FLIGHT,
    slot::Slot,
    *,
};
use crate::{
    config::WhenFull,
    rate_limit::{BucketConfig, RateLimit},
    virtio::serve::ServeError,
};

mod driver;
mod hot_plug;
mod model;
mod queues;
mod ranges;
mod requests;
mod room;
mod threads;

use driver::{Chain, DATA, Driver, HEADER, STATUS, WRITE};

/// A way to carry out requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// On a host without io_uring.
    InPlace,
    /// With a ring, but as the only request at a time.
    Alone,
    /// With a ring, and others at hand.
    InFlight,
}

/// All ways that this host has.
fn ways() -> Vec<Way> {
    match Engine::new() {
        Engine::Ring(_) => vec![Way::InPlace, Way::Alone, Way::InFlight],
        Engine::InPlace => {
            eprintln!("this host has no io_uring: only tested in place");
            vec![Way::InPlace]
        }
    }
}

/// A slot with a disk, memory, and a driver that puts requests into a queue.
struct Bench {
    way: Way,
    engine: Engine,
    slot: Arc<Slot>,
    driver: Driver,
    durable: bool,
}

impl Bench {
    fn new(way: Way, disk: (Disk, Closed)) -> Self {
        Self::when_full(WhenFull::Wait, way, disk)
    }

    fn when_full(when_full: WhenFull, way: Way, disk: (Disk, Closed)) -> Self {
        let slot = Arc::new(Slot::new("disk-id", Some(disk), RateLimit::default(), when_full).unwrap());
        let engine = if way == Way::InPlace { Engine::InPlace } else { Engine::new() };
        Self { way, engine, slot, driver: Driver::new(), durable: false }
    }

    fn queue(&mut self) -> BlockQueue<'_> {
        let mem = self.driver.mem.clone();
        BlockQueue::new(mem, self.driver.queue(), self.slot.clone(), &mut self.engine, self.durable)
    }

    /// Carries out requests, given by their descriptors, all at once. Returns how many bytes the device says that it has
    /// written for each.
    fn run_all(&mut self, chains: &[&[Chain]]) -> Result<Vec<u32>, ServeError> {
        let heads: Vec<_> = chains.iter().map(|chain| self.driver.add(chain)).collect();
        let mut expected = heads.len();
        if self.way == Way::InFlight {
            // A request that is none, behind the others: the first is not alone.
            self.driver.mem.write_slice(&[0xff; 16], GuestAddress(HEADER + 0xff0)).unwrap();
            self.driver.add(&[(HEADER + 0xff0, 16, 0), (STATUS + 0xff0, 1, WRITE)]);
            expected += 1;
        }
        let mut queue = self.queue();
        let result = finish(&mut queue);
        let next_avail = virtio_queue::QueueT::next_avail(&queue.queue);
        drop(queue);
        self.driver.forget_up_to(next_avail);
        let used = self.driver.take_used();
        result?;
        assert_eq!(used.len(), expected);
        let written = |head: &u16| used.iter().find(|(id, _)| id == head).map(|(_, written)| *written);
        Ok(heads.iter().map(|head| written(head).unwrap()).collect())
    }

    fn run(&mut self, chain: &[Chain]) -> Result<u32, ServeError> {
        self.run_all(&[chain]).map(|written| written[0])
    }

    /// A request of the usual form; returns its status.
    fn usual(&mut self, kind: u32, sector: u64, len: u32) -> u32 {
        self.driver.put_header(0, kind, sector);
        let data_flags = if matches!(kind, VIRTIO_BLK_T_IN | VIRTIO_BLK_T_GET_ID) { WRITE } else { 0 };
        let written = self.run(&[(HEADER, 16, 0), (DATA, len, data_flags), (STATUS, 1, WRITE)]).unwrap();
        assert_eq!(written, if data_flags == WRITE { len + 1 } else { 1 });
        self.driver.status(0)
    }

    fn data(&self, len: usize) -> Vec<u8> {
        self.driver.bytes(DATA, len)
    }
}

/// Lets a queue go on until there is nothing to do.
fn finish(queue: &mut BlockQueue<'_>) -> Result<(), ServeError> {
    loop {
        let Pass { next, .. } = queue.pass(0)?;
        match next {
            Next::GoOn | Next::Retry => {}
            Next::Throttled(_) | Next::NoRoom(_) => return Ok(()),
            Next::Wait if queue.engine.in_flight() == 0 => return Ok(()),
            Next::Wait => wait_for(queue.engine),
        }
    }
}

/// Waits until a request in flight has ended.
fn wait_for(engine: &Engine) {
    let mut poll = libc::pollfd { fd: engine.fd().unwrap(), events: libc::POLLIN, revents: 0 };
    // SAFETY: the pointer is to one entry, which lives on.
    unsafe { libc::poll(&raw mut poll, 1, -1) };
}

fn disk(content: &[u8], read_only: bool) -> (tempfile::NamedTempFile, (Disk, Closed)) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content).unwrap();
    let disk = Disk::open(Source::Path(file.path().into()), read_only).unwrap();
    (file, disk)
}

fn config(file: &tempfile::NamedTempFile, read_only: bool) -> DiskConfig {
    DiskConfig::new("disk-id", file.path(), read_only)
}

fn numbered(len: usize) -> Vec<u8> {
    (0..len).map(|index| u8::try_from(index % 251).unwrap()).collect()
}

fn ops(size: u64, refill_ms: u64) -> RateLimit {
    RateLimit { bytes: None, ops: Some(BucketConfig { size, burst: 0, refill_ms }) }
}
