//! I/O ports, and the serial port among them.

use super::Machine;
use crate::{
    cpu,
    mem::{self, SCRATCH},
    serial::PORT,
};

/// The keyboard controller's command register, by which the machine is reset.
const RESET: u16 = 0x64;
/// Ports up to here are used by something in one or the other machine.
const LEGACY_END: u16 = 0x1000;
/// Others are looked at now and then only: each access leaves the VM.
const STEP: u16 = 7;
/// More than the console keeps.
const FLOOD_LEN: u64 = 300 << 10;
/// Of a string instruction, each byte of which is an exit from the VM.
const STRING_LEN: u64 = 5000;

/// Reads and writes all ports, the reset itself apart.
pub(super) fn sweep(machine: &Machine) {
    let random = &machine.random;
    let mut port = 0_u16;
    loop {
        for size in [1, 2, 4] {
            cpu::port_read(port, size);
            if port != RESET {
                cpu::port_write(port, size, random.value() as u32);
            }
        }
        let step = if port < LEGACY_END { 1 } else { STEP };
        let Some(next) = port.checked_add(step) else { break };
        port = next;
    }
    // All that the register takes but the one command, and that one in a form that it does not take.
    (0..0xfe).for_each(|command| cpu::port_write(RESET, 1, command));
    cpu::port_write(RESET, 2, 0xfefe);
    cpu::port_write(RESET, 4, 0xfefe_fefe);
    cpu::port_write(RESET - 1, 2, 0xfefe);
    mem::fill(SCRATCH, 0xfd, 0x1_0000);
    for port in [RESET, PORT, PORT + 1, 0x80, 0xcf8, 0xffff] {
        cpu::port_write_string(port, SCRATCH, STRING_LEN);
        cpu::port_read_string(port, SCRATCH + 0x2_0000, STRING_LEN);
    }
}

/// More output than anybody wants, and all registers of the port.
pub(super) fn console(machine: &Machine) {
    let random = &machine.random;
    // Without an end of the line, with nothing else, and anything. An access of four bytes is four bytes of output.
    (0..FLOOD_LEN / 4).for_each(|_| cpu::port_write(PORT, 4, u32::from_le_bytes(*b"xxxx")));
    (0..FLOOD_LEN / 64).for_each(|_| cpu::port_write(PORT, 1, b'\n'.into()));
    (0..FLOOD_LEN / 16).for_each(|_| cpu::port_write(PORT, 4, random.next() as u32));
    mem::fill(SCRATCH, b'y', STRING_LEN);
    cpu::port_write_string(PORT, SCRATCH, STRING_LEN);
    for _ in 0..5000 {
        let register = PORT + random.below(8) as u16;
        cpu::port_write(register, 1, random.next() as u32);
        cpu::port_read(register, 1);
        cpu::port_write(register, random.pick(&[1, 2, 4]), random.next() as u32);
    }
}
