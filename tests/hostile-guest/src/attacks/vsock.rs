//! Streams (virtio 1.2, section 5.10).

use super::Machine;
use crate::{
    device::{CONFIG, Device, Queue, VSOCK, WRITE},
    mem::{self, SCRATCH},
    random::Random,
};

const HEADER_LEN: u32 = 44;
const HOST: u64 = 2;
const STREAM: u16 = 1;
const REQUEST: u16 = 1;
const RESET: u16 = 3;
const DATA: u16 = 5;
/// A port where the test listens, and never accepts.
const DEAF_PORT: u32 = 1;
/// Buffers for packets.
const RECEIVED: u64 = SCRATCH + (4 << 20);
const BUFFER_LEN: u32 = 4096;
const ROUNDS: u32 = 3000;

struct Packet {
    from: u64,
    to: u64,
    from_port: u32,
    to_port: u32,
    len: u32,
    kind: u16,
    op: u16,
    flags: u32,
    buf_alloc: u32,
    fwd_cnt: u32,
}

impl Packet {
    fn new(device: Device, op: u16, from_port: u32, to_port: u32) -> Self {
        let from = u64::from(device.read(CONFIG));
        Self {
            from,
            to: HOST,
            from_port,
            to_port,
            len: 0,
            kind: STREAM,
            op,
            flags: 0,
            buf_alloc: 65536,
            fwd_cnt: 0,
        }
    }

    fn write(&self, at: u64) {
        mem::write(at, [self.from, self.to]);
        mem::write(at + 16, [self.from_port, self.to_port, self.len]);
        mem::write(at + 28, [self.kind, self.op]);
        mem::write(at + 32, [self.flags, self.buf_alloc, self.fwd_cnt]);
    }
}

fn give_buffers(queue: &mut Queue) {
    for slot in 0..queue.size {
        queue.chain(slot, &[(RECEIVED + u64::from(slot) * u64::from(BUFFER_LEN), BUFFER_LEN, WRITE)]);
        queue.offer(slot);
    }
    queue.notify();
}

/// A request for a port where nobody listens is refused.
pub(crate) fn answers(device: Device) -> Result<(), &'static str> {
    let (mut receive, mut send) = (device.queue(0), device.queue(1));
    give_buffers(&mut receive);
    Packet::new(device, REQUEST, 1000, 999).write(SCRATCH);
    send.chain(0, &[(SCRATCH, HEADER_LEN, 0)]);
    send.offer(0);
    send.notify();
    if !receive.wait_for(1) {
        return Err("FAILED: vsock does not answer");
    }
    let op: u16 = mem::read(RECEIVED + 30);
    if op == RESET { Ok(()) } else { Err("FAILED: vsock answers something else") }
}

/// Packets of all kinds, with and without anybody who takes the answers.
pub(super) fn attack(machine: &Machine) {
    for device in machine.devices.of(VSOCK) {
        for takes_answers in [false, true] {
            flood(device, &machine.random, takes_answers);
        }
        connect_often(device);
    }
}

fn flood(device: Device, random: &Random, takes_answers: bool) {
    device.start();
    let (mut receive, mut send) = (device.queue(0), device.queue(1));
    if takes_answers {
        give_buffers(&mut receive);
    }
    for round in 0..ROUNDS {
        let slot = round as u16 % (send.size / 2);
        let at = SCRATCH + u64::from(slot) * 0x1000;
        let mut packet =
            Packet::new(device, random.below(10) as u16, random.below(8) as u32, random.below(3) as u32);
        match random.below(8) {
            0 => packet.from = random.value(),
            1 => packet.to = random.value(),
            2 => packet.kind = random.value() as u16,
            3 => packet.op = random.value() as u16,
            4 => packet.len = random.value() as u32,
            5 => (packet.from_port, packet.to_port) = (random.value() as u32, random.value() as u32),
            _ => {}
        }
        if packet.op == DATA && packet.len == 0 {
            packet.len = random.below(4000) as u32;
        }
        packet.flags = random.value() as u32;
        packet.buf_alloc = random.value() as u32;
        packet.fwd_cnt = random.value() as u32;
        packet.write(at);
        let header_len = if random.below(20) == 0 { random.below(44) as u32 } else { HEADER_LEN };
        let data_len =
            if random.below(20) == 0 { random.below(0x2_0000) as u32 } else { packet.len.min(0x8000) };
        send.chain(slot * 2, &[(at, header_len, 0), (at + 64, data_len, 0)]);
        send.offer(slot * 2);
        if round % 16 == 15 {
            let before = send.used();
            send.notify();
            send.settle(before);
        }
    }
}

/// Thousands of connections.
fn connect_often(device: Device) {
    device.start();
    let (mut receive, mut send) = (device.queue(0), device.queue(1));
    give_buffers(&mut receive);
    for batch in 0..24_u32 {
        for slot in 0..send.size {
            let at = SCRATCH + u64::from(slot) * 64;
            Packet::new(device, REQUEST, batch * 1000 + u32::from(slot), DEAF_PORT).write(at);
            send.chain(slot, &[(at, HEADER_LEN, 0)]);
            send.offer(slot);
        }
        let before = send.used();
        send.notify();
        send.settle(before);
        give_buffers(&mut receive);
    }
}
