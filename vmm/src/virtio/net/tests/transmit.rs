//! Frames of the guest.

use vm_memory::{Bytes, GuestAddress};

use super::{
    super::{Blocked, MAX_LEN},
    driver::{DATA, Driver, HEADER, Host, INDIRECT, NEXT, SEAM, WRITE, memory, pattern},
};
use crate::{
    rate_limit::{BucketConfig, RateLimit},
    time::monotonic_ns,
    virtio::{segments::SegmentError, serve::ServeError},
};

#[test]
fn any_cut_into_descriptors_will_do() {
    let (mem, host) = (memory(), Host::new());
    let mut driver = Driver::new(&mem, 16);
    let mut transmitter = host.transmitter(&driver, false);
    let packet = pattern(1, 1526);
    let start = SEAM - 700;
    mem.write_slice(&packet, GuestAddress(start)).unwrap();
    let cuts: [&[u32]; 4] = [&[12, 1514], &[1526], &[3, 0, 20, 1503], &[1525, 1]];
    for cut in cuts {
        let mut at = start;
        let mut descriptors = Vec::new();
        for len in cut {
            descriptors.push((at, *len, 0));
            at += u64::from(*len);
        }
        driver.offer(&descriptors);
    }
    assert!(!transmitter.serve(&host.tap).unwrap());
    assert_eq!(host.sent(), vec![packet; 4]);
    assert_eq!(driver.used().len(), 4);
    assert_eq!([host.counters.tx_frames.get(), host.counters.tx_bytes.get()], [4, 4 * 1514]);
    assert!(host.interrupted());
}

#[test]
fn an_indirect_table_will_do() {
    let (mem, host) = (memory(), Host::new());
    let mut driver = Driver::new(&mem, 16);
    let mut transmitter = host.transmitter(&driver, true);
    let packet = pattern(2, 500);
    mem.write_slice(&packet, GuestAddress(DATA)).unwrap();
    let table = Driver::at(&mem, DATA + 0x1_0000, 16);
    table.put_descriptor(0, (DATA, 12, NEXT), 1);
    table.put_descriptor(1, (DATA + 12, 488, 0), 0);
    driver.offer(&[(DATA + 0x1_0000, 32, INDIRECT)]);
    transmitter.serve(&host.tap).unwrap();
    assert_eq!(host.sent(), [packet]);
}

#[test]
fn frames_wait_for_the_tap_in_order() {
    let (mem, host) = (memory(), Host::new());
    let mut driver = Driver::new(&mem, 64);
    let mut transmitter = host.transmitter(&driver, true);
    let packets: Vec<_> = (0..64).map(|number| pattern(number, 8000)).collect();
    for (at, packet) in (0..).map(|number| DATA + number * 0x2000).zip(&packets) {
        mem.write_slice(packet, GuestAddress(at)).unwrap();
        driver.offer(&[(at, 8000, 0)]);
    }
    assert!(!transmitter.serve(&host.tap).unwrap(), "a socket does not take so many");
    let at_once = driver.used().len();
    assert!(at_once < 64);
    let mut sent = Vec::new();
    for _ in 0..64 {
        sent.extend(host.sent());
        transmitter.wake(Blocked::Tap);
        transmitter.serve(&host.tap).unwrap();
    }
    assert_eq!(sent, packets);
    assert_eq!((at_once + driver.used().len(), host.counters.tx_frames.get()), (64, 64));
}

#[test]
fn a_frame_that_waited_for_the_tap_is_not_limited_twice() {
    let (mem, host) = (memory(), Host::new());
    let mut driver = Driver::new(&mem, 64);
    let mut transmitter = host.transmitter(&driver, true);
    for _ in 0..64 {
        driver.offer(&[(DATA, 8000, 0)]);
    }
    let hour = BucketConfig { size: 64, burst: 0, refill_ms: 3_600_000 };
    host.limiter.update(RateLimit { ops: Some(hour), bytes: None }, monotonic_ns());
    let mut sent = 0;
    assert!(
        !transmitter.serve(&host.tap).unwrap() && driver.used().len() < 64,
        "a socket does not take so many"
    );
    for _ in 0..64 {
        transmitter.serve(&host.tap).unwrap();
        sent += host.sent().len();
        transmitter.wake(Blocked::Tap);
    }
    assert_eq!((sent, host.counters.tx_throttled.get()), (64, 0));
}

#[test]
fn a_rate_limit_holds_frames_back_until_it_changes() {
    let (mem, host) = (memory(), Host::new());
    let hour = BucketConfig { size: 150, burst: 0, refill_ms: 3_600_000 };
    host.limiter.update(RateLimit { bytes: Some(hour), ops: None }, monotonic_ns());
    let mut driver = Driver::new(&mem, 16);
    let mut transmitter = host.transmitter(&driver, false);
    for _ in 0..2 {
        driver.offer(&[(DATA, 112, 0)]);
    }
    assert!(!transmitter.serve(&host.tap).unwrap());
    assert_eq!((host.sent().len(), driver.used().len(), host.counters.tx_throttled.get()), (1, 1, 1));
    host.limiter.update(RateLimit::default(), monotonic_ns());
    transmitter.wake(Blocked::Tokens);
    transmitter.serve(&host.tap).unwrap();
    assert_eq!((host.sent().len(), driver.used().len()), (1, 1));
}

#[test]
fn what_is_no_frame_is_dropped_and_what_the_tap_refuses_too() {
    let (mem, host) = (memory(), Host::new());
    let mut driver = Driver::new(&mem, 16);
    let mut transmitter = host.transmitter(&driver, false);
    let too_long = u32::try_from(MAX_LEN + 1).unwrap();
    for len in [0, 1, 12, too_long, 0x10_0000] {
        driver.offer(&[(DATA, len, 0)]);
    }
    driver.offer(&[(DATA, 13, 0)]);
    transmitter.serve(&host.tap).unwrap();
    assert_eq!(host.sent(), [[0; HEADER + 1]]);
    assert_eq!((driver.used().len(), host.counters.tx_dropped.get()), (6, 5));
    // Whatever the error is, the device goes on.
    let Host { tap, counters, peer, .. } = host;
    drop(peer);
    driver.offer(&[(DATA, 100, 0)]);
    transmitter.wake(Blocked::Ring);
    transmitter.serve(&tap).unwrap();
    assert_eq!((driver.used().len(), counters.tx_errors.get(), counters.tx_frames.get()), (1, 1, 1));
}

#[test]
fn broken_chains_stop_the_device() {
    let host = Host::new();
    let serve = |prepare: &dyn Fn(&mut Driver<'_>)| {
        let mem = memory();
        let mut driver = Driver::new(&mem, 16);
        let mut transmitter = host.transmitter(&driver, false);
        prepare(&mut driver);
        transmitter.serve(&host.tap).unwrap_err()
    };
    let error = serve(&|driver| {
        driver.offer(&[(u64::MAX, 100, 0)]);
    });
    assert!(matches!(error, ServeError::Chain(SegmentError::Outside)));
    let error = serve(&|driver| {
        driver.offer(&[(DATA, 100, 0), (DATA, 100, WRITE)]);
    });
    assert!(matches!(error, ServeError::Chain(SegmentError::Direction)));
    let error = serve(&|driver| {
        driver.put_descriptor(0, (DATA, 100, NEXT), 99);
        driver.make_available(0);
    });
    assert!(matches!(error, ServeError::Chain(SegmentError::Endless)));
    let error = serve(&|driver| {
        let table = Driver::at(driver.mem, DATA, 1024);
        (0..600).for_each(|index| table.put_descriptor(index, (DATA, 1, NEXT), index + 1));
        driver.offer(&[(DATA, 1024 * 16, INDIRECT)]);
    });
    assert!(matches!(error, ServeError::Chain(SegmentError::TooLong)));
    assert_eq!(host.sent(), Vec::<Vec<u8>>::new());
}
