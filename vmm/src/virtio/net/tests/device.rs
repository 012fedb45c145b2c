//! What the driver sees of a device, and a pair of queues with its thread.

use std::sync::{
    Arc,
    atomic::{AtomicU16, Ordering},
};

use husk_base::Mac;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::{
    epoll::Epoll,
    eventfd::{EFD_NONBLOCK, EventFd},
};

use super::{
    super::{
        State, Throttle,
        control::Steering,
        pair::{ControlQueue, Mode, Pair},
    },
    driver::{DATA, Driver, Host, WRITE, memory, received},
};
use crate::{
    jail::seccomp::Role,
    rate_limit::{BucketConfig, RateLimit},
    time::monotonic_ns,
    virtio::{ActiveQueue, Interrupt, Worker},
};

fn state(queue_pairs: u16, mtu: Option<u16>, udp_segmentation: bool) -> State {
    State {
        id: "eth0".into(),
        mac: Mac::local([3, 4, 5, 6, 7]),
        mtu,
        queue_pairs,
        udp_segmentation,
        negotiated: 0,
        pairs_in_use: Arc::new(AtomicU16::new(1)),
    }
}

#[test]
fn features_are_what_the_configuration_and_the_host_allow() {
    // CSUM, GUEST_CSUM, MAC, GUEST_TSO4/6, HOST_TSO4/6, MRG_RXBUF, INDIRECT_DESC, EVENT_IDX.
    let always = 0b11 | 1 << 5 | 0b11 << 7 | 0b11 << 11 | 1 << 15 | 0b11 << 28;
    assert_eq!(state(1, None, false).features(), always);
    assert_eq!(state(1, Some(1400), false).features(), always | 1 << 3);
    assert_eq!(state(1, None, true).features(), always | 0b111 << 54);
    // MQ and CTRL_VQ.
    assert_eq!(state(2, None, false).features(), always | 1 << 22 | 1 << 17);
}

#[test]
fn the_configuration_space_has_address_pairs_and_mtu() {
    assert_eq!(state(1, None, false).config_space(), [2, 3, 4, 5, 6, 7, 0, 0, 1, 0, 0, 0]);
    assert_eq!(state(8, Some(0x1234), false).config_space(), [2, 3, 4, 5, 6, 7, 0, 0, 8, 0, 0x34, 0x12]);
}

#[test]
fn the_tap_leaves_undone_what_the_driver_can_do() {
    let offloads = |features| State { negotiated: features, ..state(1, None, true) }.offloads();
    let (csum, tso4, tso6) = (1 << 1, 1 << 7, 1 << 8);
    assert_eq!(offloads(u64::MAX), 0b110_0111);
    assert_eq!(offloads(csum), 1);
    assert_eq!(offloads(csum | tso4), 0b11);
    assert_eq!(offloads(csum | tso6), 0b101);
    // Without checksum there is nothing, and USO4 and USO6 exist together only.
    assert_eq!(offloads(tso4 | tso6 | 0b11 << 54), 0);
    assert_eq!([offloads(csum | 1 << 54), offloads(csum | 1 << 55)], [1, 1]);
    assert_eq!(offloads(csum | 0b11 << 54), 0b110_0001);
}

#[test]
fn a_thread_moves_frames_in_both_directions_and_obeys_commands() {
    let mem = memory();
    let Host { tap, peer, counters, limiter, .. } = Host::new();
    let no_limit = Host::new().limiter;
    peer.set_nonblocking(false).unwrap();
    // A blocking descriptor, so that the test can wait for interrupts.
    let interrupt = Interrupt::new(EventFd::new(0).unwrap());
    let mut rx = Driver::at(&mem, 0x1_0000, 256);
    let mut tx = Driver::at(&mem, 0x2_0000, 256);
    let mut commands = Driver::at(&mem, 0x3_0000, 256);
    let active = |driver: &Driver<'_>| {
        let kick = EventFd::new(EFD_NONBLOCK).unwrap();
        (kick.try_clone().unwrap(), ActiveQueue { queue: driver.queue(), kick })
    };
    let ((rx_kick, rx_queue), (tx_kick, tx_queue), (control_kick, control_queue)) =
        (active(&rx), active(&tx), active(&commands));
    let in_use = Arc::new(AtomicU16::new(0));
    let pair = Pair {
        mem: mem.clone(),
        rx: rx_queue,
        tx: tx_queue,
        mode: Mode { event_idx: false, mergeable: true },
        interrupt: interrupt.clone(),
        rx_throttle: Throttle::new(no_limit).unwrap(),
        tx_throttle: Throttle::new(limiter.clone()).unwrap(),
        counters,
        steering: Steering { taps: Arc::from([tap]), in_use: in_use.clone() },
        index: 0,
        control: Some(ControlQueue { active: control_queue, usable: 1 }),
        epoll: Epoll::new().unwrap(),
    };
    let worker = Worker::spawn("eth0", Role::Net, interrupt.clone(), move |stop| pair.run(&stop)).unwrap();
    let wait = || interrupt.irqfd().read().unwrap();

    for round in 0..200_u8 {
        // Buffer before frame, and frame before buffer.
        if round % 2 == 0 {
            rx.offer(&[(DATA, 100, WRITE)]);
            rx_kick.write(1).unwrap();
        }
        peer.send(&[&[7; 12][..], &[round; 50]].concat()).unwrap();
        if round % 2 == 1 {
            rx.offer(&[(DATA, 100, WRITE)]);
            rx_kick.write(1).unwrap();
        }
        wait();
        assert_eq!(rx.frames(), [received(&[round; 50], 1)]);
        mem.write_slice(&[round; 100], GuestAddress(DATA + 0x1000)).unwrap();
        tx.offer(&[(DATA + 0x1000, 100, 0)]);
        tx_kick.write(1).unwrap();
        let mut buffer = [0; 200];
        assert_eq!(peer.recv(&mut buffer).unwrap(), 100);
        assert_eq!(buffer[..100], [round; 100]);
        wait();
        assert_eq!(tx.used().len(), 1);
    }

    mem.write_slice(&[4, 0, 1, 0, 0xff], GuestAddress(DATA)).unwrap();
    commands.offer(&[(DATA, 4, 0), (DATA + 4, 1, WRITE)]);
    control_kick.write(1).unwrap();
    wait();
    assert_eq!(mem.read_obj::<u8>(GuestAddress(DATA + 4)).unwrap(), 0);
    assert_eq!(in_use.load(Ordering::Relaxed), 1);

    // The timer of a rate limit wakes the thread, and so does a limit that changes.
    let tight =
        |refill_ms| RateLimit { ops: Some(BucketConfig { size: 1, burst: 0, refill_ms }), bytes: None };
    limiter.update(tight(5), monotonic_ns());
    for _ in 0..5 {
        tx.offer(&[(DATA + 0x1000, 100, 0)]);
        tx_kick.write(1).unwrap();
        assert_eq!(peer.recv(&mut [0; 200]).unwrap(), 100);
    }
    limiter.update(tight(3_600_000), monotonic_ns());
    for _ in 0..2 {
        tx.offer(&[(DATA + 0x1000, 100, 0)]);
    }
    tx_kick.write(1).unwrap();
    assert_eq!(peer.recv(&mut [0; 200]).unwrap(), 100);
    limiter.update(RateLimit::default(), monotonic_ns());
    assert_eq!(peer.recv(&mut [0; 200]).unwrap(), 100);
    drop(worker);
    assert_eq!(interrupt.device_status(), 0);
}
