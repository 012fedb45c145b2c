//! A disk's queue, fed with anything. The requests are carried out in place, on a file in memory.

use std::{
    fs::File,
    os::{
        fd::{FromRawFd, OwnedFd},
        unix::fs::FileExt,
    },
    sync::{Arc, OnceLock},
};

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
    VIRTIO_BLK_T_WRITE_ZEROES,
};
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_queue::QueueT;

use super::{
    disk::{Disk, Source},
    engine::Engine,
    queue::BlockQueue,
    slot::Slot,
};
use crate::{
    config::WhenFull,
    fuzzing::guest::{Guest, INDIRECT, NEXT, Script, Step, WRITE, buffer},
    rate_limit::RateLimit,
    virtio::ActiveQueue,
};

const CONTENT: [u8; 16 << 10] = [0x5a; 16 << 10];
/// A bit of the features that has no meaning for disks says whether this one is read-only.
const READ_ONLY: u64 = 1 << 31;

/// The disk's file, one for the life of the process, with the same content each time.
fn file() -> Option<OwnedFd> {
    static FILE: OnceLock<Option<File>> = OnceLock::new();
    let make = || {
        // SAFETY: the name is a string that ends with zero.
        let fd = unsafe { libc::memfd_create(c"disk".as_ptr(), libc::MFD_CLOEXEC) };
        // SAFETY: a descriptor that is not negative is new and nobody else's.
        (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) }.into())
    };
    let file: &File = FILE.get_or_init(make).as_ref()?;
    file.write_all_at(&CONTENT, 0).ok()?;
    file.try_clone().ok().map(OwnedFd::from)
}

/// Achieves as much as there are chains given back. A disk keeps its length, and one that is read-only its content.
pub(crate) fn run(data: &[u8]) -> usize {
    let (Some(mut guest), Some(fd), Some(kept)) = (Guest::new(data, 1), file(), file()) else { return 0 };
    let read_only = guest.features() & READ_ONLY != 0;
    let Ok(disk) = Disk::open(Source::Open(fd), read_only) else { return 0 };
    let Ok(slot) = Slot::new("disk", Some(disk), RateLimit::default(), WhenFull::default()) else { return 0 };
    let Some(Ok([active])) = guest.activation().map(|activation| ActiveQueue::all(activation.queues)) else {
        return 0;
    };
    let engine = &mut Engine::InPlace;
    let mut queue = BlockQueue::new(Arc::new(guest.mem.clone()), active.queue, Arc::new(slot), engine, false);
    queue.queue.set_event_idx(guest.features() & (1 << VIRTIO_RING_F_EVENT_IDX) != 0);
    while let Some(step) = guest.next() {
        match step {
            Step::Host(what) => queue.durable = what & 1 != 0,
            Step::Serve if queue.pass(0).is_err() => break,
            Step::Serve => {}
        }
    }
    let file = File::from(kept);
    assert!(file.metadata().is_ok_and(|metadata| metadata.len() == CONTENT.len() as u64), "another length");
    if read_only {
        let mut content = [0; CONTENT.len()];
        assert!(
            file.read_exact_at(&mut content, 0).is_ok() && content == CONTENT,
            "a read-only disk has changed"
        );
    }
    guest.used()
}

/// Every request, in the usual form; one by an indirect table; one of many pieces; some beyond the end.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let header = |kind: u32, sector: u64| [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat();
    let usual = |kind, sector, flags, len| {
        Script::new(true)
            .store(buffer(0), &header(kind, sector))
            .describe(0, 0, buffer(0).into(), 16, NEXT, 1)
            .describe(0, 1, buffer(1).into(), len, flags | NEXT, 2)
            .describe(0, 2, buffer(3).into(), 1, WRITE, 0)
            .offer(0, 0)
            .serve()
    };
    let range = |kind, count: u32, flags: u32| {
        let range = [&1_u64.to_le_bytes()[..], &count.to_le_bytes(), &flags.to_le_bytes()].concat();
        Script::new(true)
            .store(buffer(0), &[header(kind, 0), range].concat())
            .describe(0, 0, buffer(0).into(), 32, NEXT, 1)
            .describe(0, 1, buffer(3).into(), 1, WRITE, 0)
            .host(1)
            .offer(0, 0)
            .serve()
    };
    let indirect = Script::new(false)
        .store(buffer(0), &header(VIRTIO_BLK_T_IN, 1))
        .describe(0, 7, 0x400, 48, INDIRECT, 0)
        .describe(1, 0, buffer(0).into(), 16, NEXT, 1)
        .describe(1, 1, 0x7f00, 512, WRITE | NEXT, 2)
        .describe(1, 2, buffer(3).into(), 1, WRITE, 0)
        .offer(0, 7)
        .serve();
    [
        usual(VIRTIO_BLK_T_IN, 3, WRITE, 512),
        usual(VIRTIO_BLK_T_IN, 31, WRITE, 1024),
        usual(VIRTIO_BLK_T_OUT, 0, 0, 4096),
        usual(VIRTIO_BLK_T_OUT, u64::MAX, 0, 512),
        usual(VIRTIO_BLK_T_FLUSH, 0, 0, 0),
        usual(VIRTIO_BLK_T_GET_ID, 0, WRITE, 20),
        usual(99, 0, WRITE, 512),
        range(VIRTIO_BLK_T_DISCARD, 8, 0),
        range(VIRTIO_BLK_T_WRITE_ZEROES, 8, 1),
        range(VIRTIO_BLK_T_WRITE_ZEROES, u32::MAX, 0),
        indirect,
    ]
    .map(Script::bytes)
    .to_vec()
}
