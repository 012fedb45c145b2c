//! Disks (virtio 1.2, section 5.2).

use super::Machine;
use crate::{
    device::{BLOCK, CONFIG, Device, WRITE},
    mem::{self, SCRATCH},
    random::Random,
    serial::say,
};

const HEADER: u64 = SCRATCH;
const STATUS: u64 = SCRATCH + 0x100;
const DATA: u64 = SCRATCH + 0x1000;
const READ: u32 = 0;
const WRITE_REQUEST: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;
const READ_ONLY: u64 = 1 << 5;
const NO_STATUS: u8 = 0xee;
const ROUNDS: u32 = 600;

/// Reads the first sector, which begins with "husk" on read-only disks.
pub(crate) fn reads(device: Device) -> Result<(), &'static str> {
    let read_only = device.offered() & READ_ONLY != 0;
    header(READ, 0);
    mem::write(STATUS, NO_STATUS);
    let mut queue = device.queue(0);
    queue.chain(0, &[(HEADER, 16, 0), (DATA, 512, WRITE), (STATUS, 1, WRITE)]);
    queue.offer(0);
    queue.notify();
    if !queue.wait_for(1) {
        return Err("FAILED: a disk does not answer");
    }
    if (mem::read::<u8>(STATUS) == 0) != (sectors(device) > 0) {
        return Err("FAILED: a disk can't be read");
    }
    if read_only && &mem::read::<[u8; 4]>(DATA) != b"husk" {
        return Err("FAILED: a read-only disk has changed");
    }
    Ok(())
}

/// Its size, which is none while there is no disk.
fn sectors(device: Device) -> u64 {
    u64::from(device.read(CONFIG)) | u64::from(device.read(CONFIG + 4)) << 32
}

fn header(kind: u32, sector: u64) {
    mem::write(HEADER, kind);
    mem::write(HEADER + 4, 0_u32);
    mem::write(HEADER + 8, sector);
}

/// Requests of all kinds, sizes and places.
pub(super) fn attack(machine: &Machine) {
    let random = &machine.random;
    for device in machine.devices.of(BLOCK) {
        let read_only = device.offered() & READ_ONLY != 0;
        let capacity = sectors(device).max(1);
        let mut running = false;
        for _ in 0..ROUNDS {
            if !running {
                device.start();
            }
            running = request(device, random, read_only, capacity);
        }
    }
}

/// One request. Whether the device still runs.
fn request(device: Device, random: &Random, read_only: bool, capacity: u64) -> bool {
    let kinds =
        [READ, WRITE_REQUEST, FLUSH, GET_ID, DISCARD, WRITE_ZEROES, random.below(32) as u32, u32::MAX];
    let kind = random.pick(&kinds);
    // The first sector, which is looked at later, is written only where writes are refused.
    let edges =
        [capacity - 1, capacity, capacity + 1, 1 << 55, u64::MAX, u64::MAX / 512, 1 + random.below(capacity)];
    let sector = if read_only && random.below(4) == 0 { 0 } else { random.pick(&edges) };
    header(kind, sector);
    mem::write(STATUS, NO_STATUS);
    // A segment of a discard: sector, number, flags.
    mem::write(DATA, random.pick(&edges));
    mem::write(DATA + 8, random.value() as u32);
    mem::write(DATA + 12, random.value() as u32);
    let len = random.pick(&[0, 1, 16, 20, 511, 512, 513, 4096, 0x2_0000, random.below(5000) as u32]);
    let direction = random.pick(&[0, WRITE]);
    let mut queue = device.queue(0);
    let used = queue.used();
    queue.next = mem::read(queue.driver + 2);
    let head = random.pick(&[0, 4, 8]);
    match random.below(8) {
        0 => queue.chain(head, &[(HEADER, random.below(32) as u32, 0), (DATA, len, direction)]),
        1 => queue.chain(head, &[(HEADER, 16, 0), (STATUS, 0, WRITE)]),
        2 => queue.chain(head, &[(HEADER, 16, WRITE), (DATA, len, direction), (STATUS, 1, WRITE)]),
        // Header and status in one with data.
        3 => queue.chain(head, &[(HEADER, 20, 0), (DATA, len + 1, WRITE)]),
        _ => queue.chain(head, &[(HEADER, 16, 0), (DATA, len, direction), (STATUS, 1, WRITE)]),
    }
    queue.offer(head);
    queue.notify();
    queue.settle(used);
    let done: u8 = mem::read(STATUS);
    if done == 0 && read_only && matches!(kind, WRITE_REQUEST | DISCARD | WRITE_ZEROES) {
        say!("FAILED: a read-only disk took request {kind}");
    }
    queue.used() != used
}
