//! The kernel command line: how to behave on this machine, where its devices are, and what the user wants.

use std::fmt::Write;

use crate::{
    bus::DeviceSlot,
    layout::{CMDLINE_MAX_LEN, MMIO_SIZE},
};

/// - Interrupt lines and CPUs come from the MP table, devices from this line: PCI is not probed, nor is the keyboard
///   controller, whose only use is to end the machine.
/// - A reset that was asked for is "warm", which the kernel notes in the BIOS's reset flag; that of a panic is "cold".
///   The VMM looks there. A panic resets at once.
const PLATFORM: &str = "reboot=k,warm reboot=panic_cold panic=-1 pci=off i8042.nokbd i8042.noaux";
/// Without a serial port, none is looked for.
const NO_SERIAL: &str = " 8250.nr_uarts=0";

/// The command line is too long.
#[derive(Debug, thiserror::Error)]
#[error("the kernel's command line has {len} bytes of at most {max}: use a shorter cmdline or fewer disks", max = CMDLINE_MAX_LEN - 1)]
pub struct CmdlineError {
    len: usize,
}

/// The complete command line. What the user says comes last and wins.
///
/// # Errors
/// When it is longer than the kernel takes.
pub fn build(slots: &[DeviceSlot], has_serial: bool, user: &str) -> Result<String, CmdlineError> {
    let mut line = PLATFORM.to_owned();
    if !has_serial {
        line.push_str(NO_SERIAL);
    }
    for slot in slots {
        // Writing to a string can't fail.
        let _ = write!(line, " virtio_mmio.device={}", device(*slot));
    }
    if !user.is_empty() {
        line.push(' ');
        line.push_str(user);
    }
    if line.len() >= CMDLINE_MAX_LEN { Err(CmdlineError { len: line.len() }) } else { Ok(line) }
}

/// A device's place as the driver's parameter `device` takes it, on the command line and at run time.
pub fn device(slot: DeviceSlot) -> String {
    format!("{}K@{:#x}:{}", MMIO_SIZE >> 10, slot.address(), slot.irq())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_and_the_user_has_the_last_word() {
        let slots: Vec<_> = (0..2).map(DeviceSlot::new).collect();
        let line = build(&slots, true, "quiet panic=5").unwrap();
        let expected = format!(
            "{PLATFORM} virtio_mmio.device=4K@0xd0000000:5 virtio_mmio.device=4K@0xd0001000:6 quiet panic=5"
        );
        assert_eq!(line, expected);
        assert!(build(&[], false, "").unwrap().ends_with("8250.nr_uarts=0"));
    }

    #[test]
    fn a_line_longer_than_the_kernel_takes_is_refused() {
        let fixed = build(&[], true, "").unwrap().len() + 1;
        let fits = "x".repeat(CMDLINE_MAX_LEN - 1 - fixed);
        assert_eq!(build(&[], true, &fits).unwrap().len(), CMDLINE_MAX_LEN - 1);
        assert!(build(&[], true, &format!("{fits}x")).is_err());
    }
}
