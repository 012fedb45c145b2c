//! Frames for the guest.

use super::{
    super::{Blocked, MAX_LEN, ring::Ring},
    driver::{DATA, Driver, END, Host, NEXT, SEAM, WRITE, memory, pattern, received},
};
use crate::{
    rate_limit::{BucketConfig, RateLimit},
    time::monotonic_ns,
    virtio::{segments::SegmentError, serve::ServeError},
};

#[test]
fn a_frame_takes_as_many_buffers_as_it_needs() {
    let (mem, host) = (memory(), Host::new());
    let mut driver = Driver::new(&mem, 16);
    let mut receiver = host.receiver(&driver, true, false);
    // The second one lies where memory regions touch.
    let heads = [DATA, SEAM - 300, DATA + 0x1000, DATA + 0x2000].map(|at| driver.offer(&[(at, 1000, WRITE)]));
    let frame = pattern(1, 2500);
    assert!(host.send(&frame) && host.send(b"a second frame"));
    assert!(!receiver.serve(&host.tap).unwrap());
    let frames = [received(&frame, 3), received(b"a second frame", 1)];
    assert_eq!(driver.frames(), frames);
    assert_eq!(driver.used_index(), 4);
    assert!(host.interrupted());
    assert_eq!([host.counters.rx_frames.get(), host.counters.rx_bytes.get()], [2, 2514]);

    // Each has the length that was used, and is used to the end but the last.
    let mut driver = Driver::new(&mem, 16);
    let mut receiver = host.receiver(&driver, true, false);
    mem_clear(&driver);
    for at in [DATA, DATA + 0x1000, DATA + 0x2000] {
        driver.offer(&[(at, 1000, WRITE)]);
    }
    assert!(host.send(&frame));
    receiver.serve(&host.tap).unwrap();
    assert_eq!(driver.used(), [(heads[0], 1000), (heads[1], 1000), (heads[2], 512)]);
}

/// Makes a queue new whose memory another one has used.
fn mem_clear(driver: &Driver<'_>) {
    use vm_memory::{Bytes, GuestAddress};
    driver.mem.write_slice(&[0; 0x3000], GuestAddress(0x1000)).unwrap();
}

#[test]
fn the_longest_frame_arrives_in_buffers_of_any_cut() {
    let (mem, host) = (memory(), Host::new());
    let mut driver = Driver::new(&mem, 256);
    let mut receiver = host.receiver(&driver, true, true);
    for number in 0..64 {
        let at = DATA + number * 0x1000;
        driver.offer(&[(at, 5, WRITE), (at + 5, 0, WRITE), (at + 5, 1531, WRITE)]);
    }
    let frame = pattern(2, MAX_LEN - 12);
    assert!(host.send(&frame));
    receiver.serve(&host.tap).unwrap();
    assert_eq!(driver.frames(), [received(&frame, 43)]);
}

#[test]
fn a_frame_waits_for_buffers_and_nothing_is_lost() {
    let (mem, host) = (memory(), Host::new());
    let mut driver = Driver::new(&mem, 16);
    let mut receiver = host.receiver(&driver, true, true);
    let frame = pattern(3, 2500);
    assert!(host.send(&frame));
    // Without any buffer nothing is read.
    assert!(!receiver.serve(&host.tap).unwrap());
    for (number, frames) in [(1, vec![]), (2, vec![]), (3, vec![received(&frame, 3)])] {
        assert_eq!(driver.avail_event(), number - 1, "the device must be told of the next buffer");
        driver.offer(&[(DATA + u64::from(number) * 0x1000, 1000, WRITE)]);
        receiver.wake(Blocked::Ring);
        assert!(!receiver.serve(&host.tap).unwrap());
        assert_eq!(driver.frames(), frames);
    }
    assert_eq!(host.counters.rx_dropped.get(), 0);
}

#[test]
fn a_frame_that_can_never_fit_is_dropped() {
    let (mem, host) = (memory(), Host::new());
    let mut driver = Driver::new(&mem, 4);
    let mut receiver = host.receiver(&driver, true, false);
    for number in 0..4 {
        driver.offer(&[(DATA + number * 0x1000, 100, WRITE)]);
    }
    let fits = pattern(4, 388);
    assert!(host.send(&pattern(5, 389)) && host.send(&fits));
    receiver.serve(&host.tap).unwrap();
    assert_eq!(driver.frames(), [received(&fits, 4)]);
    assert_eq!([host.counters.rx_dropped.get(), host.counters.rx_frames.get()], [1, 1]);
    // Two buffers use up all descriptors as well.
    for number in 0..2 {
        driver.offer(&[(DATA + number * 0x1000, 12, WRITE), (DATA + number * 0x1000 + 12, 188, WRITE)]);
    }
    assert!(host.send(&pattern(5, 389)) && host.send(&fits));
    receiver.wake(Blocked::Ring);
    receiver.serve(&host.tap).unwrap();
    assert_eq!(driver.frames(), [received(&fits, 2)]);
    assert_eq!([host.counters.rx_dropped.get(), host.counters.rx_frames.get()], [2, 2]);
}

#[test]
fn without_mergeable_buffers_each_frame_has_its_own() {
    let (mem, host) = (memory(), Host::new());
    let mut driver = Driver::new(&mem, 16);
    let mut receiver = host.receiver(&driver, false, false);
    for number in 0..3 {
        driver.offer(&[(DATA + number * 0x1000, 12, WRITE), (DATA + number * 0x1000 + 12, 1514, WRITE)]);
    }
    let frames = [pattern(6, 1514), pattern(7, 60)];
    assert!(host.send(&frames[0]) && host.send(&pattern(8, 1515)) && host.send(&frames[1]));
    receiver.serve(&host.tap).unwrap();
    assert_eq!(driver.frames(), frames.map(|frame| received(&frame, 1)));
    assert_eq!(host.counters.rx_dropped.get(), 1);
}

#[test]
fn what_is_no_frame_is_not_given() {
    let (mem, host) = (memory(), Host::new());
    let mut driver = Driver::new(&mem, 256);
    let mut receiver = host.receiver(&driver, true, false);
    for number in 0..100 {
        driver.offer(&[(DATA + number * 0x1000, 0x1000, WRITE)]);
    }
    host.peer.send(&[1; 12]).unwrap();
    assert!(host.send(&pattern(0, MAX_LEN - 11)) && host.send(b"good"));
    receiver.serve(&host.tap).unwrap();
    assert_eq!(driver.frames(), [received(b"good", 1)]);
    assert_eq!(host.counters.rx_dropped.get(), 2);
}

#[test]
fn a_rate_limit_holds_frames_back_until_it_changes() {
    let (mem, host) = (memory(), Host::new());
    let hour = BucketConfig { size: 1, burst: 0, refill_ms: 3_600_000 };
    host.limiter.update(RateLimit { ops: Some(hour), bytes: None }, monotonic_ns());
    let mut driver = Driver::new(&mem, 16);
    let mut receiver = host.receiver(&driver, true, false);
    for number in 0..8 {
        driver.offer(&[(DATA + number * 0x1000, 100, WRITE)]);
    }
    assert!(host.send(b"first") && host.send(b"second"));
    assert!(!receiver.serve(&host.tap).unwrap());
    assert_eq!(driver.frames(), [received(b"first", 1)]);
    for cause in [Blocked::Ring, Blocked::Tap] {
        receiver.wake(cause);
        receiver.serve(&host.tap).unwrap();
    }
    assert_eq!((driver.used(), host.counters.rx_throttled.get()), (vec![], 1));
    host.limiter.update(RateLimit::default(), monotonic_ns());
    receiver.wake(Blocked::Tokens);
    receiver.serve(&host.tap).unwrap();
    assert_eq!(driver.frames(), [received(b"second", 1)]);
}

#[test]
fn interrupts_come_when_they_are_wanted() {
    let (mem, host) = (memory(), Host::new());
    let mut driver = Driver::new(&mem, 16);
    let mut receiver = host.receiver(&driver, true, true);
    for number in 0..8 {
        driver.offer(&[(DATA + number * 0x1000, 100, WRITE)]);
    }
    let mut frame_of = |buffers: usize| {
        assert!(host.send(&pattern(0, buffers * 100 - 12)));
        receiver.wake(Blocked::Tap);
        receiver.serve(&host.tap).unwrap();
        host.interrupted()
    };
    driver.set_used_event(1);
    // The index goes from 0 to 3, and so passes 1, though not in the last of the frame's buffers.
    assert!(frame_of(3));
    assert!(!frame_of(1));
    driver.set_used_event(5);
    assert!(!frame_of(1));
    assert!(frame_of(1));

    mem_clear(&driver);
    let mut driver = Driver::new(&mem, 16);
    let mut receiver = host.receiver(&driver, true, false);
    driver.set_available_flags(1);
    driver.offer(&[(DATA, 100, WRITE)]);
    assert!(host.send(b"quiet"));
    receiver.serve(&host.tap).unwrap();
    assert_eq!((driver.frames().len(), host.interrupted()), (1, false));
}

#[test]
fn buffers_are_given_back_together_or_not_at_all() {
    let mem = memory();
    let mut driver = Driver::new(&mem, 16);
    let mut ring = Ring::new(driver.queue(), false);
    assert!(ring.publish(&mem, &[(3, 1), (16, 1)]).is_err());
    assert_eq!(driver.used_index(), 0);
    ring.publish(&mem, &[(3, 1), (15, 2)]).unwrap();
    assert_eq!(driver.used(), [(3, 1), (15, 2)]);
}

#[test]
fn broken_buffers_stop_the_device() {
    let host = Host::new();
    let serve = |prepare: &dyn Fn(&mut Driver<'_>)| {
        let mem = memory();
        let mut driver = Driver::new(&mem, 16);
        let mut receiver = host.receiver(&driver, true, false);
        prepare(&mut driver);
        receiver.serve(&host.tap).unwrap_err()
    };
    let error = serve(&|driver| {
        driver.offer(&[(END - 1, 2, WRITE)]);
    });
    assert!(matches!(error, ServeError::Chain(SegmentError::Outside)));
    let error = serve(&|driver| {
        driver.offer(&[(DATA, 100, WRITE), (DATA, 100, 0)]);
    });
    assert!(matches!(error, ServeError::Chain(SegmentError::Direction)));
    let error = serve(&|driver| {
        driver.offer(&[(DATA, 0, WRITE)]);
    });
    assert!(matches!(error, ServeError::NoRoom));
    let error = serve(&|driver| {
        driver.put_descriptor(0, (DATA, 100, WRITE | NEXT), 0);
        driver.make_available(0);
    });
    assert!(matches!(error, ServeError::Chain(SegmentError::Endless)));
    let error = serve(&|driver| driver.make_available(16));
    assert!(matches!(error, ServeError::Chain(SegmentError::Endless)));
    let error = serve(&|driver| (0..17).for_each(|_| driver.make_available(0)));
    assert!(matches!(error, ServeError::Queue(_)));
}
