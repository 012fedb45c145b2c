//! Queues: many requests at a time, rate limits, and ends.

use std::time::Duration;

use virtio_bindings::virtio_blk::{VIRTIO_BLK_S_OK, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT};

use super::{driver::DATA_LEN, *};

const MS: u64 = 1_000_000;

/// Makes `count` reads of a sector available, the `index`th of sector `index`.
fn add_reads(driver: &mut Driver, count: u64) {
    for index in 0..count {
        driver.put_header(index, VIRTIO_BLK_T_IN, index);
        let data = DATA + DATA_LEN * index;
        driver.add(&[(HEADER + 16 * index, 16, 0), (data, 512, WRITE), (STATUS + index, 1, WRITE)]);
    }
}

#[test]
fn many_requests_end_in_any_order_with_the_right_data() {
    for way in ways() {
        let content = numbered(32 * 512);
        let (_file, disk) = disk(&content, true);
        let mut bench = Bench::new(way, disk);
        add_reads(&mut bench.driver, 32);
        finish(&mut bench.queue()).unwrap();
        assert_eq!(bench.driver.take_used().len(), 32);
        for index in 0..32 {
            assert_eq!(bench.driver.status(index), VIRTIO_BLK_S_OK);
            let at = usize::try_from(index).unwrap() * 512;
            assert_eq!(bench.driver.bytes(DATA + DATA_LEN * index, 512), content[at..at + 512]);
        }
        assert_eq!((bench.slot.counters.reads.get(), bench.slot.counters.read_bytes.get()), (32, 32 * 512));
        assert_eq!(serde_json::to_value(&*bench.slot.counters).unwrap()["latency"]["count"], 32);
    }
}

#[test]
fn a_driver_that_offers_a_chain_again_and_again_gets_no_more_in_flight_than_allowed() {
    for way in ways() {
        let (_file, disk) = disk(&[7; 512], true);
        let mut bench = Bench::new(way, disk);
        bench.driver.put_header(0, VIRTIO_BLK_T_IN, 0);
        for _ in 0..85 {
            bench.driver.add(&[(HEADER, 16, 0), (DATA, 512, WRITE), (STATUS, 1, WRITE)]);
        }
        let mut queue = bench.queue();
        for _ in 0..10 {
            queue.pass(0).unwrap();
            assert!(queue.engine.in_flight() <= MAX_IN_FLIGHT);
        }
        finish(&mut queue).unwrap();
        drop(queue);
        assert_eq!(bench.driver.take_used().len(), 85);
    }
}

#[test]
fn a_limit_holds_requests_up_until_its_time() {
    for way in ways() {
        let (_file, disk) = disk(&numbered(4 * 512), true);
        let mut bench = Bench::new(way, disk);
        bench.slot.limiter.update(ops(2, 10), 0);
        add_reads(&mut bench.driver, 4);
        let counters = bench.slot.counters.clone();
        let mut queue = bench.queue();
        let next = queue.pass(0).unwrap().next;
        assert_eq!(next, Next::Throttled(Duration::from_millis(5)));
        // Asking earlier is no use, and counts no more.
        assert_eq!(queue.pass(2 * MS).unwrap().next, Next::Throttled(Duration::from_millis(3)));
        assert_eq!(counters.throttled.get(), 1);
        assert_eq!(queue.pass(5 * MS).unwrap().next, Next::Throttled(Duration::from_millis(5)));
        assert_eq!(counters.throttled.get(), 2);
        assert!(!matches!(queue.pass(10 * MS).unwrap().next, Next::Throttled(_)));
        finish(&mut queue).unwrap();
        drop(queue);
        assert_eq!(bench.driver.take_used().len(), 4);
    }
}

#[test]
fn bytes_are_limited_and_limits_change() {
    let (_file, disk) = disk(&[0; 4 * 512], false);
    let mut bench = Bench::new(Way::InPlace, disk);
    let bytes = Some(BucketConfig { size: 512, burst: 512, refill_ms: 10 });
    bench.slot.limiter.update(RateLimit { bytes, ops: None }, 0);
    for index in 0..3 {
        bench.driver.put_header(index, VIRTIO_BLK_T_OUT, index);
        bench.driver.add(&[(HEADER + 16 * index, 16, 0), (DATA, 512, 0), (STATUS + index, 1, WRITE)]);
    }
    let slot = bench.slot.clone();
    let mut queue = bench.queue();
    assert_eq!(queue.pass(0).unwrap().next, Next::Throttled(Duration::from_millis(10)));
    slot.limiter.update(RateLimit::default(), 0);
    assert_eq!(queue.pass(0).unwrap().next, Next::Wait);
    drop(queue);
    assert_eq!(bench.driver.take_used().len(), 3);
}

#[test]
fn the_end_of_a_queue_waits_for_what_is_in_flight() {
    if !ways().contains(&Way::InFlight) {
        return eprintln!("skipped: this host has no io_uring");
    }
    let (_file, (disk, closed)) = disk(&numbered(32 * 512), true);
    let mut bench = Bench::new(Way::InFlight, (disk, closed));
    add_reads(&mut bench.driver, 32);
    let mut queue = bench.queue();
    let mut returned = 0;
    queue.take(0, &mut returned).unwrap();
    queue.engine.submit().unwrap();
    // None has been taken from the ring.
    assert_eq!(queue.engine.in_flight(), 32);
    drop(queue);
    assert_eq!(bench.engine.in_flight(), 0);
    assert!(bench.driver.take_used().is_empty());
    // The engine can be used again.
    bench.driver.forget_up_to(0);
    finish(&mut bench.queue()).unwrap();
    assert_eq!(bench.driver.take_used().len(), 32);
}

#[test]
fn a_flush_holds_up_nothing_unless_the_last_was_quick() {
    if !ways().contains(&Way::InFlight) {
        return eprintln!("skipped: this host has no io_uring");
    }
    for quick in [false, true] {
        let (_file, disk) = disk(&numbered(512), false);
        let mut bench = Bench::new(Way::InFlight, disk);
        bench.driver.put_header(0, VIRTIO_BLK_T_FLUSH, 0);
        bench.driver.add(&[(HEADER, 16, 0), (STATUS, 1, WRITE)]);
        let mut queue = bench.queue();
        queue.quick_flush = quick;
        let mut returned = 0;
        queue.take(0, &mut returned).unwrap();
        assert_eq!((returned, queue.engine.in_flight()), if quick { (1, 0) } else { (0, 1) });
        finish(&mut queue).unwrap();
        drop(queue);
        assert_eq!(bench.driver.status(0), VIRTIO_BLK_S_OK);
    }
}
