//! Random frames, buffers and rubbish.

use std::sync::{Arc, LazyLock, atomic::AtomicU16};

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::{
    super::{
        Blocked, MAX_LEN,
        control::{Control, Steering},
        ring::Ring,
    },
    driver::{DATA, Driver, END, Host, SPARE, WRITE, memory, pattern, received},
};

#[derive(Debug, Clone)]
enum Step {
    /// A buffer of descriptors of these lengths.
    Offer(Vec<u32>),
    /// A frame of this length.
    Frame(usize),
    /// The device gets its turn.
    Serve,
}

fn step() -> impl Strategy<Value = Step> {
    let buffer = prop::collection::vec(prop_oneof![Just(1), 1_u32..40, 1_u32..3000], 1..4);
    prop_oneof![
        6 => buffer.prop_map(Step::Offer),
        2 => prop_oneof![1_usize..100, 1_usize..2000, 1_usize..20_000].prop_map(Step::Frame),
        2 => Just(Step::Serve),
    ]
}

/// A frame without the header, whose number of buffers depends on the cut.
fn body(frame: &[u8]) -> &[u8] {
    &frame[12..]
}

proptest! {
    /// The guest receives all frames whole and in order, but those that were counted as dropped; and none was while
    /// buffers were large enough.
    #[test]
    fn frames_arrive_in_order(
        steps in prop::collection::vec(step(), 1..150),
        size in prop::sample::select(vec![8_u16, 256]),
        mergeable in any::<bool>(),
        event_idx in any::<bool>(),
    ) {
        let (mem, host) = (memory(), Host::new());
        let mut driver = Driver::new(&mem, size);
        let mut receiver = host.receiver(&driver, mergeable, event_idx);
        let (mut sent, mut found, mut place) = (Vec::new(), Vec::new(), DATA);
        for step in steps {
            match step {
                Step::Offer(lens) => {
                    if driver.room() < lens.len() {
                        continue;
                    }
                    let mut chain = Vec::new();
                    for len in lens {
                        chain.push((place, len, WRITE));
                        place += u64::from(len);
                    }
                    driver.offer(&chain);
                    if place > SPARE - 10_000 {
                        place = DATA;
                    }
                }
                Step::Frame(len) => {
                    let frame = pattern(sent.len(), len);
                    if host.send(&frame) {
                        sent.push(frame);
                    }
                }
                Step::Serve => {
                    for cause in [Blocked::Ring, Blocked::Tap] {
                        receiver.wake(cause);
                    }
                    receiver.serve(&host.tap).unwrap();
                    found.extend(driver.frames());
                }
            }
        }
        // Buffers large enough for all that waits.
        let mut places = (0..256).map(|number| SPARE + number * 0x1_1000).cycle();
        for _ in 0..10 {
            while driver.room() > 0 {
                driver.offer(&[(places.next().unwrap(), 0x1_0100, WRITE)]);
            }
            for cause in [Blocked::Ring, Blocked::Tap] {
                receiver.wake(cause);
            }
            receiver.serve(&host.tap).unwrap();
            found.extend(driver.frames());
        }
        let mut all = sent.iter();
        for frame in &found {
            prop_assert!(all.any(|sent| sent == body(frame)), "a frame that was not sent, or not in this order");
        }
        let dropped = usize::try_from(host.counters.rx_dropped.get()).unwrap();
        prop_assert_eq!(found.len() + dropped, sent.len());
        prop_assert_eq!(host.counters.rx_frames.get(), found.len() as u64);
        let bytes: usize = found.iter().map(|frame| body(frame).len()).sum();
        prop_assert_eq!(host.counters.rx_bytes.get(), bytes as u64);
    }

    /// With buffers of a sensible size nothing is dropped, whatever they are.
    #[test]
    fn no_frame_is_dropped_with_sensible_buffers(
        len in prop_oneof![300_u32..2000, 300_u32..5000],
        frames in prop::collection::vec(prop_oneof![1_usize..2000, 1_usize..MAX_LEN - 12], 1..8),
        stock in 1_usize..256,
    ) {
        let (mem, host) = (memory(), Host::new());
        let mut driver = Driver::new(&mem, 256);
        let mut receiver = host.receiver(&driver, true, true);
        let place = |index: usize| DATA + index as u64 * 0x2000;
        let mut given = 0;
        for (number, size) in frames.iter().enumerate() {
            let frame = pattern(number, *size);
            prop_assert!(host.send(&frame));
            let mut found = Vec::new();
            for _ in 0..600 {
                // Never more than there is place for in memory.
                while 256 - driver.room() < stock {
                    driver.offer(&[(place(given % 384), len, WRITE)]);
                    given += 1;
                }
                receiver.wake(Blocked::Ring);
                receiver.wake(Blocked::Tap);
                receiver.serve(&host.tap).unwrap();
                found = driver.frames();
                if !found.is_empty() || 256 - driver.room() == stock {
                    break;
                }
            }
            if found.is_empty() {
                // It waits for more than there are at a time.
                while driver.room() > 0 {
                    driver.offer(&[(place(given % 384), len, WRITE)]);
                    given += 1;
                }
                receiver.wake(Blocked::Ring);
                receiver.serve(&host.tap).unwrap();
                found = driver.frames();
            }
            let buffers = u16::try_from((size + 12).div_ceil(len as usize)).unwrap();
            prop_assert!(found == [received(&frame, buffers)], "frame {number}");
        }
        prop_assert_eq!(host.counters.rx_dropped.get(), 0);
    }

    /// The host gets what is a frame, whole and in order, and what is none is counted.
    #[test]
    fn frames_leave_in_order(
        chains in prop::collection::vec(
            prop::collection::vec(prop_oneof![0_u32..20, 0_u32..2000, Just(30_000)], 1..5), 1..40),
        event_idx in any::<bool>(),
    ) {
        let (mem, host) = (memory(), Host::new());
        let mut driver = Driver::new(&mem, 256);
        let mut transmitter = host.transmitter(&driver, event_idx);
        static CONTENT: LazyLock<Vec<u8>> = LazyLock::new(|| pattern(9, 0x3_0000));
        mem.write_slice(&CONTENT, GuestAddress(DATA)).unwrap();
        let (mut expected, mut bad) = (Vec::new(), 0);
        for (number, lens) in (0_u64..).zip(&chains) {
            let mut place = DATA + number * 777;
            let mut chain = Vec::new();
            for len in lens {
                chain.push((place, *len, 0));
                place += u64::from(*len);
            }
            let head = driver.offer(&chain);
            let len = lens.iter().sum::<u32>();
            if (13..=MAX_LEN).contains(&(len as usize)) {
                expected.push(driver.content(head, len));
            } else {
                bad += 1;
            }
        }
        let mut sent = Vec::new();
        for _ in 0..50 {
            transmitter.wake(Blocked::Ring);
            transmitter.wake(Blocked::Tap);
            transmitter.serve(&host.tap).unwrap();
            sent.extend(host.sent());
        }
        prop_assert!(sent == expected, "the frames differ");
        prop_assert_eq!(driver.used().len(), chains.len());
        prop_assert_eq!((host.counters.tx_dropped.get(), host.counters.tx_errors.get()), (bad, 0));
    }

    /// Rings full of rubbish do no harm: the device goes on or stops, and what leaves are frames.
    #[test]
    fn rubbish_does_no_harm(
        descriptors in prop::collection::vec(
            (
                prop_oneof![8 => DATA..SPARE, 1 => END - 5000..END, 1 => any::<u64>()],
                prop_oneof![4 => 0_u32..5000, 1 => any::<u32>()],
                prop::sample::select(vec![0_u16, 1, 2, 3, 4, 5, 6, 7]),
                0_u16..18,
            ),
            16,
        ),
        table in prop::collection::vec(any::<u8>(), 0..256),
        heads in prop::collection::vec(0_u16..17, 1..20),
        mergeable in any::<bool>(),
        event_idx in any::<bool>(),
    ) {
        let (mem, host) = (memory(), Host::new());
        let mut driver = Driver::new(&mem, 16);
        mem.write_slice(&table, GuestAddress(DATA)).unwrap();
        for (index, (address, len, flags, next)) in (0..).zip(descriptors) {
            driver.put_descriptor(index, (address, len, flags), next);
        }
        let mut receiver = host.receiver(&driver, mergeable, event_idx);
        let mut transmitter = host.transmitter(&driver, event_idx);
        let (interrupt, counters) = (host.interrupt.clone(), host.counters.clone());
        let steering = Steering { taps: Arc::from([Host::new().tap]), in_use: Arc::new(AtomicU16::new(1)) };
        let ring = Ring::new(driver.queue(), event_idx);
        let mut control = Control::new(&mem, ring, interrupt, counters, steering, 1);
        for head in heads {
            driver.make_available(head);
            host.send(&pattern(1, 3000));
            // An error means that the device stops; it is not used any more then in earnest.
            let _ = receiver.serve(&host.tap);
            let _ = transmitter.serve(&host.tap);
            let _ = control.serve();
            for cause in [Blocked::Ring, Blocked::Tap] {
                receiver.wake(cause);
                transmitter.wake(cause);
            }
            control.wake();
            prop_assert!(host.sent().iter().all(|frame| (13..=MAX_LEN).contains(&frame.len())));
        }
    }
}
