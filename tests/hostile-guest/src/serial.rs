//! Reports on the serial port. Each byte is an exit from the VM: lines are short.

use core::fmt::{self, Write};

use crate::cpu;

/// The first register of the port.
pub(crate) const PORT: u16 = 0x3f8;

struct Serial;

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| cpu::port_write(PORT, 1, byte.into()));
        Ok(())
    }
}

/// Writes a line.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    // Nobody to tell when it fails.
    let _ = writeln!(Serial, "{text}");
}

/// Makes the port usable again, whatever was written to its registers.
pub(crate) fn restore() {
    // No interrupts, 8 bits, no loop back.
    for (register, value) in [(3, 3), (1, 0), (2, 0), (4, 3)] {
        cpu::port_write(PORT + register, 1, value);
    }
    line(format_args!(""));
}

macro_rules! say {
    ($($text:tt)*) => { $crate::serial::line(format_args!($($text)*)) };
}
pub(crate) use say;
