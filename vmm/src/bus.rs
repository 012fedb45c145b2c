//! Where a vCPU's accesses to devices go: registers in memory by their slot, I/O ports by their number.

use std::sync::{Mutex, MutexGuard, PoisonError};

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::{
    console::Console,
    layout::{DEVICE_IRQS, MMIO_BASE, MMIO_SIZE, RESET_FLAG, WARM_RESET},
    virtio::mmio::MmioTransport,
};

/// The serial port's registers.
const SERIAL_FIRST: u16 = 0x3f8;
const SERIAL_LAST: u16 = 0x3ff;
/// The keyboard controller's command and status register.
const I8042_COMMAND: u16 = 0x64;
/// Command: pulse the reset line.
const I8042_RESET: u8 = 0xfe;
/// Status: ready for a command, as a kernel that wants to reset waits for. The output buffer is always full, by which a
/// kernel that looks for a keyboard finds quickly that there is none.
const I8042_STATUS: u8 = 1;
/// What nothing at all reads as.
const NOTHING: u8 = 0xff;

/// A place for a virtio-mmio device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceSlot {
    index: u16,
}

impl DeviceSlot {
    /// The `index`th place.
    pub fn new(index: u16) -> Self {
        Self { index }
    }

    /// Start of its registers.
    pub fn address(self) -> u64 {
        MMIO_BASE + u64::from(self.index) * MMIO_SIZE
    }

    /// Its interrupt line, which it may share with others.
    pub fn irq(self) -> u32 {
        let lines = DEVICE_IRQS.end() - DEVICE_IRQS.start() + 1;
        DEVICE_IRQS.start() + u32::from(self.index) % lines
    }
}

/// How a guest ended itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestEnd {
    /// It asked for a reset, as its init does when it is done.
    Clean,
    /// Its kernel panicked, or reset the machine for another reason than being asked to.
    Panic,
    /// It could not even handle a fault.
    TripleFault,
}

/// All devices.
#[derive(Debug)]
pub struct Bus {
    mem: GuestMemoryMmap,
    devices: Vec<Mutex<MmioTransport>>,
    serial: Option<Mutex<Console>>,
}

impl Bus {
    /// A bus with devices in the first slots.
    pub fn new(mem: GuestMemoryMmap, devices: Vec<MmioTransport>, serial: Option<Console>) -> Self {
        let devices = devices.into_iter().map(Mutex::new).collect();
        Self { mem, devices, serial: serial.map(Mutex::new) }
    }

    fn device(&self, address: u64) -> Option<(MutexGuard<'_, MmioTransport>, u64)> {
        let offset = address.checked_sub(MMIO_BASE)?;
        let device = self.devices.get(usize::try_from(offset / MMIO_SIZE).ok()?)?;
        Some((lock(device), offset % MMIO_SIZE))
    }

    /// A vCPU reads from where there is no memory.
    pub fn mmio_read(&self, address: u64, data: &mut [u8]) {
        match self.device(address) {
            Some((mut device, offset)) => device.read(offset, data),
            None => data.fill(NOTHING),
        }
    }

    /// A vCPU writes to where there is no memory.
    pub fn mmio_write(&self, address: u64, data: &[u8]) {
        if let Some((mut device, offset)) = self.device(address) {
            device.write(offset, data);
        }
    }

    /// A vCPU reads an I/O port.
    pub fn pio_read(&self, port: u16, data: &mut [u8]) {
        match (port, &self.serial, &mut *data) {
            (SERIAL_FIRST..=SERIAL_LAST, Some(serial), [byte]) => {
                *byte = lock(serial).read(port - SERIAL_FIRST);
            }
            (I8042_COMMAND, _, [byte]) => *byte = I8042_STATUS,
            _ => data.fill(NOTHING),
        }
    }

    /// A vCPU writes an I/O port. Returns how the guest ended, if it did.
    pub fn pio_write(&self, port: u16, data: &[u8]) -> Option<GuestEnd> {
        match (port, &self.serial) {
            (SERIAL_FIRST..=SERIAL_LAST, Some(serial)) => {
                // Several bytes come from a string instruction: each goes to the same port.
                let mut serial = lock(serial);
                data.iter().for_each(|byte| serial.write(port - SERIAL_FIRST, *byte));
                None
            }
            (I8042_COMMAND, _) if data == [I8042_RESET] => {
                let flag = self.mem.read_obj::<u16>(GuestAddress(RESET_FLAG));
                Some(if matches!(flag, Ok(WARM_RESET)) { GuestEnd::Clean } else { GuestEnd::Panic })
            }
            _ => None,
        }
    }

    /// Writes out what is held back of the console's output.
    pub fn flush_console(&self) {
        if let Some(serial) = &self.serial {
            lock(serial).flush();
        }
    }
}

/// A device whose code panicked is as good as any other that misbehaves: what it protects is its own.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use vmm_sys_util::eventfd::EventFd;

    use super::*;
    use crate::virtio::{Interrupt, rng::Rng};

    fn bus() -> Bus {
        let mem = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
        let interrupt = Interrupt::new(EventFd::new(0).unwrap());
        let device = MmioTransport::new(Box::new(Rng::new()), mem.clone(), interrupt).unwrap();
        Bus::new(mem, vec![device], None)
    }

    #[test]
    fn slots_share_interrupt_lines_when_there_are_many() {
        let slot = DeviceSlot::new;
        assert_eq!((slot(0).address(), slot(0).irq()), (0xd000_0000, 5));
        assert_eq!((slot(18).address(), slot(18).irq()), (0xd001_2000, 23));
        assert_eq!((slot(19).address(), slot(19).irq()), (0xd001_3000, 5));
    }

    #[test]
    fn a_reset_tells_a_clean_end_from_a_panic() {
        let bus = bus();
        assert_eq!(bus.pio_write(0x64, &[0xfe]), Some(GuestEnd::Panic));
        bus.mem.write_obj(WARM_RESET, GuestAddress(RESET_FLAG)).unwrap();
        assert_eq!(bus.pio_write(0x64, &[0xfe]), Some(GuestEnd::Clean));
        for other in [&[0xfd][..], &[0xfe, 0xfe], &[]] {
            assert_eq!(bus.pio_write(0x64, other), None);
        }
        assert_eq!(bus.pio_write(0x60, &[0xfe]), None);
    }

    #[test]
    fn nothing_reads_as_all_ones() {
        let bus = bus();
        let mut data = [0; 4];
        bus.pio_read(0x3f8, &mut data[..1]);
        bus.mmio_read(0xd000_1000, &mut data[1..]);
        assert_eq!(data, [0xff; 4]);
        bus.mmio_read(0xcfff_ffff, &mut data[..1]);
        bus.mmio_write(u64::MAX, &[0]);
        bus.mmio_read(0xd000_0000, &mut data);
        assert_eq!(&data, b"virt");
    }

    #[test]
    fn the_keyboard_controller_is_ready_for_a_reset() {
        let mut status = [0xff];
        bus().pio_read(0x64, &mut status);
        assert_eq!(status[0] & 2, 0);
    }
}
