//! Rings and descriptor chains that lead nowhere, in circles, or to everywhere.

use super::Machine;
use crate::{
    device::{Descriptor, Device, INDIRECT, MMIO_BASE, NEXT, Queue, WRITE, describe},
    mem::{self, RING_STEP, SCRATCH, SCRATCH_LEN},
    random::Random,
};

/// How many chains of each kind a queue gets.
const ROUNDS: u64 = 2;
const RECIPES: u64 = 22;
const RANDOM_ROUNDS: u32 = 40;
/// A table of descriptors that is not the queue's.
const TABLE: u64 = SCRATCH + (8 << 20);
/// Entries of it that are filled with anything.
const TABLE_LEN: u64 = 512;

/// Chains that break one rule each.
pub(super) fn recipes(machine: &Machine) {
    let low_end = machine.memory.low_end;
    for device in machine.devices.iter() {
        for index in 0..device.queues() {
            for recipe in 0..RECIPES * ROUNDS {
                if !device.start() {
                    continue;
                }
                let mut queue = device.queue(index);
                let before = queue.used();
                cook(&mut queue, recipe % RECIPES, low_end, &machine.random);
                queue.notify();
                queue.settle(before);
            }
        }
    }
}

fn cook(queue: &mut Queue, recipe: u64, low_end: u64, random: &Random) {
    let table = queue.descriptors;
    let size = queue.size;
    let one = |address, len, flags, next| Descriptor { address, len, flags, next };
    // Most devices want something to read first, and something to write last.
    queue.chain(0, &[(SCRATCH, 16, 0), (SCRATCH + 0x1000, 512, WRITE), (SCRATCH + 0x2000, 1, WRITE)]);
    let mut head = 0;
    match recipe {
        // To itself, and in a circle.
        0 => describe(table, 0, one(SCRATCH, 16, NEXT, 0)),
        1 => describe(table, 2, one(SCRATCH, 512, NEXT | WRITE, 1)),
        // A table that is its own entry, and one within another.
        2 => describe(table, 0, one(table, 16, INDIRECT, 0)),
        3 => {
            describe(table, 0, one(TABLE, 32, INDIRECT, 0));
            describe(TABLE, 0, one(TABLE, 32, INDIRECT | NEXT, 1));
        }
        // Tables of no length, an odd one, and the longest.
        4 => describe(table, 0, one(TABLE, 0, INDIRECT, 0)),
        5 => describe(table, 0, one(TABLE, 17, INDIRECT, 0)),
        6 => describe(table, 0, one(TABLE, !0xf, INDIRECT, 0)),
        7 => {
            // As long as a table may be, all of it without a byte.
            describe(table, 0, one(TABLE, 0xffff * 16, INDIRECT, 0));
            for entry in 0..0xffff {
                describe(
                    TABLE,
                    entry,
                    one(SCRATCH, (random.below(50) == 0).into(), NEXT | WRITE, entry as u16 + 1),
                );
            }
        }
        8 => describe(table, 0, one(low_end - 16, 64, INDIRECT, 0)),
        // Lengths.
        9 => describe(table, 0, one(SCRATCH, u32::MAX, NEXT, 1)),
        10 => describe(table, 1, one(SCRATCH, u32::MAX, NEXT | WRITE, 2)),
        11 => queue.chain(0, &[(SCRATCH, 0, 0), (SCRATCH, 0, WRITE), (0, 0, WRITE)]),
        12 => {
            // The sum of all lengths overflows.
            for index in 0..size {
                describe(table, index.into(), one(SCRATCH, 0x0200_0000, NEXT | WRITE, (index + 1) % size));
            }
        }
        // Addresses.
        13 => describe(table, 1, one(u64::MAX - random.below(600), 512, NEXT | WRITE, 2)),
        14 => describe(table, 1, one(low_end - random.below(600), 4096, NEXT | WRITE, 2)),
        15 => describe(table, 1, one(MMIO_BASE, 512, NEXT | WRITE, 2)),
        16 => describe(table, 0, one((1 << 32) - 8, 16, NEXT, 1)),
        // The device is to write over its own rings.
        17 => queue.chain(0, &[(SCRATCH, 16, 0), (queue.device_area, 4096, WRITE), (queue.driver, 1, WRITE)]),
        // Order, and indices.
        18 => queue.chain(0, &[(SCRATCH, 16, WRITE), (SCRATCH, 512, 0), (SCRATCH, 1, WRITE)]),
        19 => describe(table, 0, one(SCRATCH, 16, NEXT, size)),
        20 => head = random.pick(&[size, u16::MAX, 0x8000]),
        _ => {
            // Far more than there are, and then fewer than were seen.
            queue.next = random.pick(&[65_535, 32_768, size + 1, 65_535 - size]);
            queue.offer(0);
            queue.notify();
            queue.next = 0;
        }
    }
    queue.offer(head);
}

/// Rings full of numbers, some of which look like descriptors.
pub(super) fn random(machine: &Machine) {
    let (low_end, high_end) = (machine.memory.low_end, machine.memory.high_end);
    let random = &machine.random;
    for device in machine.devices.iter() {
        for entry in 0..TABLE_LEN {
            describe(TABLE, entry, descriptor(random, low_end, high_end, 256));
        }
        for _ in 0..RANDOM_ROUNDS {
            if !device.start() {
                continue;
            }
            for index in 0..device.queues() {
                let mut queue = device.queue(index);
                (0..RING_STEP / 8)
                    .step_by(97)
                    .for_each(|word| mem::write(queue.descriptors + word * 8, random.next()));
                for entry in 0..queue.size {
                    describe(
                        queue.descriptors,
                        entry.into(),
                        descriptor(random, low_end, high_end, queue.size),
                    );
                }
                for _ in 0..1 + random.below(u64::from(queue.size)) {
                    let head = random.below(u64::from(queue.size) + 1);
                    queue.offer(head as u16);
                }
                // The used ring, which is the device's.
                mem::write(queue.device_area, random.next());
                poke(device, &queue, random);
            }
        }
    }
}

fn descriptor(random: &Random, low_end: u64, high_end: u64, size: u16) -> Descriptor {
    let scratch = SCRATCH + random.below(SCRATCH_LEN / 2);
    let edges =
        [low_end - 512, low_end - 1, high_end.wrapping_sub(7), (1 << 32) - 1, MMIO_BASE, u64::MAX - 100];
    let address = if random.below(8) > 0 { scratch } else { random.pick(&edges) };
    let len = if random.below(8) > 0 { random.below(2048) } else { random.value() };
    let flags =
        random.pick(&[0, NEXT, NEXT, NEXT | WRITE, NEXT | WRITE, WRITE, INDIRECT, random.next() as u16]);
    // What a chain writes stays in the scratch memory, or is outside of any.
    let len =
        if (SCRATCH..SCRATCH + SCRATCH_LEN).contains(&address) { len.min(SCRATCH_LEN / 2) } else { len };
    let address = if flags & INDIRECT != 0 { TABLE + random.below(512) } else { address };
    Descriptor { address, len: len as u32, flags, next: random.below(u64::from(size) + 1) as u16 }
}

fn poke(device: Device, queue: &Queue, random: &Random) {
    let before = queue.used();
    queue.notify();
    if random.below(2) == 0 {
        queue.settle(before);
    } else if random.below(4) == 0 {
        device.reset();
    }
}
