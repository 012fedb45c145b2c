//! A host's file system that is full: a small one in memory, of which a file of ballast takes what it has.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::PathBuf,
    time::Duration,
};

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
};

use virtio_queue::QueueT;

use super::{
    super::{kind::Kind, room::Room},
    driver::{DATA_LEN, NONE},
    threads::Running,
    *,
};
use crate::control::{StallReason, StalledDisk};

const S: u64 = 1_000_000_000;
const PAGE: usize = 4096;
/// Pages of the file system, of the disk, and what the ballast leaves of them.
const SIZE: &std::ffi::CStr = c"128k";
const DISK_LEN: usize = 16 * PAGE;
const LEFT: usize = 2 * PAGE;

/// A file system that is mounted nowhere, and is gone when this is dropped.
struct Small {
    root: OwnedFd,
}

impl Small {
    /// With a disk of holes, and ballast; `None` for a user who may make none.
    fn full() -> Option<Self> {
        let call = |result: libc::c_long| match libc::c_int::try_from(result).unwrap() {
            error if error < 0 => Err(io::Error::last_os_error()),
            value => Ok(value),
        };
        // SAFETY: all strings end with zero and live on.
        let made = unsafe {
            call(libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), 1)).and_then(|fd| {
                let context = OwnedFd::from_raw_fd(fd);
                let (fd, null) = (context.as_raw_fd(), std::ptr::null::<libc::c_char>());
                // FSCONFIG_SET_STRING and FSCONFIG_CMD_CREATE.
                call(libc::syscall(libc::SYS_fsconfig, fd, 1, c"size".as_ptr(), SIZE.as_ptr(), 0))?;
                call(libc::syscall(libc::SYS_fsconfig, fd, 6, null, null, 0))?;
                call(libc::syscall(libc::SYS_fsmount, fd, 1, 0))
            })
        };
        let root = match made {
            // SAFETY: the descriptor is new and nobody else's.
            Ok(fd) => unsafe { OwnedFd::from_raw_fd(fd) },
            Err(error) => {
                eprintln!("skipped: cannot make a file system: {error}");
                return None;
            }
        };
        let small = Self { root };
        File::create(small.path("disk")).unwrap().set_len(DISK_LEN as u64).unwrap();
        let mut ballast = File::create(small.path("ballast")).unwrap();
        while ballast.write_all(&[1; PAGE]).is_ok() {}
        ballast.set_len(ballast.metadata().unwrap().len() - LEFT as u64).unwrap();
        Some(small)
    }

    fn path(&self, name: &str) -> PathBuf {
        format!("/proc/self/fd/{}/{name}", self.root.as_raw_fd()).into()
    }

    fn disk(&self) -> (Disk, Closed) {
        Disk::open(Source::Path(self.path("disk")), false).unwrap()
    }

    fn content(&self) -> Vec<u8> {
        fs::read(self.path("disk")).unwrap()
    }

    fn make_room(&self) {
        fs::remove_file(self.path("ballast")).unwrap();
    }
}

/// The chain of the `index`th request, of `len` bytes that the device reads.
fn chain(index: u64, len: usize) -> [Chain; 3] {
    let len = u32::try_from(len).unwrap();
    [(HEADER + 16 * index, 16, 0), (DATA + DATA_LEN * index, len, 0), (STATUS + index, 1, WRITE)]
}

/// Offers writes of four pages each, one after the other on the disk.
fn offer_writes(driver: &mut Driver, count: u64) {
    for index in 0..count {
        driver.put_header(index, VIRTIO_BLK_T_OUT, index * 32);
        driver.put(DATA + DATA_LEN * index, &numbered(4 * PAGE));
        driver.add(&chain(index, 4 * PAGE));
    }
}

/// Passes until nothing is in flight.
fn settle(queue: &mut BlockQueue<'_>, now_ns: u64) -> Pass {
    loop {
        let pass = queue.pass(now_ns).unwrap();
        match pass.next {
            Next::GoOn | Next::Retry => {}
            _ if queue.engine.in_flight() == 0 => return pass,
            _ => wait_for(queue.engine),
        }
    }
}

#[test]
fn writes_wait_for_room_and_no_byte_is_lost() {
    for (way, durable, count) in
        ways().into_iter().flat_map(|way| [(way, false, 1), (way, true, 1), (way, false, 3), (way, true, 3)])
    {
        let Some(small) = Small::full() else { return };
        let mut bench = Bench::new(way, small.disk());
        bench.durable = durable;
        let slot = bench.slot.clone();
        offer_writes(&mut bench.driver, count);
        let mut queue = bench.queue();
        assert_eq!(settle(&mut queue, 0).next, Next::NoRoom(Duration::from_secs(1)));
        assert_eq!(slot.room.stalled(), Some(StallReason::NoSpace));
        // Half a second later it is not time yet, and later there is still no room.
        assert_eq!(settle(&mut queue, S / 2).next, Next::NoRoom(Duration::from_millis(500)));
        assert_eq!(settle(&mut queue, 2 * S).next, Next::NoRoom(Duration::from_secs(1)));
        small.make_room();
        assert_eq!(settle(&mut queue, 3 * S - 1).next, Next::NoRoom(Duration::from_nanos(1)));
        assert_eq!(settle(&mut queue, 3 * S).next, Next::Wait);
        assert_eq!(slot.room.stalled(), None);
        drop(queue);
        assert_eq!(bench.driver.take_used().len() as u64, count);
        for index in 0..count {
            assert_eq!(bench.driver.status(index), VIRTIO_BLK_S_OK);
            let start = usize::try_from(index).unwrap() * 4 * PAGE;
            assert!(small.content()[start..start + 4 * PAGE] == numbered(4 * PAGE), "{way:?} {index}");
        }
        let counters = &bench.slot.counters;
        assert_eq!((counters.writes.get(), counters.errors.get()), (count, 0));
    }
}

#[test]
fn a_queue_that_waits_takes_no_other_requests() {
    for way in ways() {
        let Some(small) = Small::full() else { return };
        let mut bench = Bench::new(way, small.disk());
        offer_writes(&mut bench.driver, 1);
        let (mem, rings) = (bench.driver.mem.clone(), bench.driver.queue());
        let mut queue = BlockQueue::new(mem, rings, bench.slot.clone(), &mut bench.engine, false);
        settle(&mut queue, 0);
        let next_avail = queue.queue.next_avail();
        bench.driver.put_header(1, VIRTIO_BLK_T_IN, 0);
        bench.driver.add(&[(HEADER + 16, 16, 0), (DATA + DATA_LEN, 512, WRITE), (STATUS + 1, 1, WRITE)]);
        settle(&mut queue, S / 2);
        assert_eq!(queue.queue.next_avail(), next_avail);
        small.make_room();
        settle(&mut queue, S);
        drop(queue);
        assert_eq!([0, 1].map(|index| bench.driver.status(index)), [VIRTIO_BLK_S_OK; 2]);
        assert_eq!(bench.driver.bytes(DATA + DATA_LEN, 512), numbered(512));
    }
}

#[test]
fn zeros_wait_for_room() {
    for way in ways() {
        let Some(small) = Small::full() else { return };
        let mut bench = Bench::new(way, small.disk());
        bench.driver.put_header(0, VIRTIO_BLK_T_WRITE_ZEROES, 0);
        // The file system knows no zeros without unmapping, so they are written.
        let range = [&0_u64.to_le_bytes()[..], &32_u32.to_le_bytes(), &[0; 4]].concat();
        bench.driver.put(DATA, &range);
        bench.driver.add(&chain(0, 16));
        let mut queue = bench.queue();
        assert!(matches!(settle(&mut queue, 0).next, Next::NoRoom(_)));
        small.make_room();
        settle(&mut queue, S);
        drop(queue);
        assert_eq!(bench.driver.status(0), VIRTIO_BLK_S_OK);
        assert_eq!(bench.slot.counters.zeroed_bytes.get(), 4 * PAGE as u64);
    }
}

#[test]
fn who_asks_need_not_wait_for_the_time() {
    for way in ways() {
        let Some(small) = Small::full() else { return };
        let mut bench = Bench::new(way, small.disk());
        let slot = bench.slot.clone();
        offer_writes(&mut bench.driver, 1);
        let mut queue = bench.queue();
        settle(&mut queue, 0);
        slot.room.ask();
        assert_eq!(settle(&mut queue, 1).next, Next::NoRoom(Duration::from_secs(1)));
        small.make_room();
        assert!(matches!(settle(&mut queue, 2).next, Next::NoRoom(_)));
        slot.room.ask();
        assert_eq!(settle(&mut queue, 3).next, Next::Wait);
        drop(queue);
        assert_eq!(bench.driver.status(0), VIRTIO_BLK_S_OK);
    }
}

#[test]
fn a_disk_that_is_taken_away_waits_no_more() {
    for way in ways() {
        let Some(small) = Small::full() else { return };
        let mut bench = Bench::new(way, small.disk());
        let slot = bench.slot.clone();
        offer_writes(&mut bench.driver, 2);
        let mut queue = bench.queue();
        settle(&mut queue, 0);
        let closing = slot.detach().unwrap();
        assert!(!closing.is_closed());
        assert_eq!(settle(&mut queue, 1).next, Next::Wait);
        assert!(closing.is_closed());
        assert_eq!(slot.room.stalled(), None);
        drop(queue);
        assert_eq!([0, 1].map(|index| bench.driver.status(index)), [VIRTIO_BLK_S_IOERR; 2]);
    }
}

#[test]
fn a_queue_ends_while_it_waits() {
    for way in ways() {
        let Some(small) = Small::full() else { return };
        let mut bench = Bench::new(way, small.disk());
        offer_writes(&mut bench.driver, 2);
        settle(&mut bench.queue(), 0);
        assert_eq!(bench.slot.room.stalled(), None);
        assert!(bench.driver.take_used().is_empty());
        assert_eq!(bench.driver.status(0), u32::from(NONE));
    }
}

#[test]
fn a_disk_that_is_to_fail_does() {
    for way in ways() {
        let Some(small) = Small::full() else { return };
        let mut bench = Bench::when_full(WhenFull::Fail, way, small.disk());
        assert_eq!(bench.usual(VIRTIO_BLK_T_OUT, 0, 16384), VIRTIO_BLK_S_IOERR);
        assert_eq!((bench.slot.room.stalled(), bench.slot.counters.errors.get()), (None, 1));
    }
}

#[test]
fn only_what_needs_room_waits_for_it_and_a_flush_never_does() {
    let room = Room::new(WhenFull::Wait).unwrap();
    let reason = |kind, errno| room.refusal(kind, &io::Error::from_raw_os_error(errno));
    let zeroes = Kind::WriteZeroes { unmap: false, durable: true };
    for kind in [Kind::Write { durable: true }, Kind::Discard, zeroes] {
        assert_eq!(reason(kind, libc::ENOSPC), Some(StallReason::NoSpace));
        assert_eq!(reason(kind, libc::EDQUOT), Some(StallReason::Quota));
        assert_eq!(reason(kind, libc::EIO), None);
    }
    for kind in [Kind::Read, Kind::Flush] {
        assert_eq!(reason(kind, libc::ENOSPC), None);
    }
    // The flush that makes zeros durable is one as well.
    let (_file, (disk, _closed)) = disk(&[0; 512], false);
    let flushed = disk.flushed(Err(io::Error::from_raw_os_error(libc::ENOSPC))).unwrap_err();
    assert_eq!(room.refusal(zeroes, &flushed), None);
}

/// A running device that waits, and its disk's place.
fn waiting(small: &Small) -> (Running, Disks) {
    let block = Block::spare("spare0").unwrap();
    let mut disks = Disks::default();
    disks.add_spare(&block, "place".into());
    disks.attach("data", Source::Path(small.path("disk")), false, RateLimit::default()).unwrap();
    let mut driver = Driver::new();
    offer_writes(&mut driver, 1);
    let running = Running::new(block, vec![driver]);
    while disks.stalled().is_empty() {
        std::thread::yield_now();
    }
    assert_eq!(disks.stalled(), [StalledDisk { id: "data".into(), reason: StallReason::NoSpace }]);
    (running, disks)
}

#[test]
fn a_device_goes_on_by_itself_and_when_asked() {
    for asked in [false, true] {
        let Some(small) = Small::full() else { return };
        let (mut running, disks) = waiting(&small);
        small.make_room();
        if asked {
            disks.retry();
        }
        assert_eq!(running.status(), VIRTIO_BLK_S_OK);
        assert!(small.content()[..4 * PAGE] == numbered(4 * PAGE));
        while !disks.stalled().is_empty() {
            std::thread::yield_now();
        }
        running.offer(&chain(0, 4 * PAGE));
        assert_eq!(running.status(), VIRTIO_BLK_S_OK);
    }
}

#[test]
fn a_device_that_waits_can_be_reset_and_its_disk_be_detached() {
    let Some(small) = Small::full() else { return };
    let (mut running, disks) = waiting(&small);
    running.block.reset();
    assert!(disks.stalled().is_empty() && running.drivers[0].0.take_used().is_empty());
    drop(running);
    let (mut running, mut disks) = waiting(&small);
    disks.detach("data").unwrap();
    assert_eq!(running.status(), VIRTIO_BLK_S_IOERR);
}
