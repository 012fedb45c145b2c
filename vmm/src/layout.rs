//! Where everything is in the guest's physical address space.
//!
//! ```text
//!          0  zero page of the BIOS; 0x472 tells a warm reset from a cold one
//!      0x500  GDT
//!     0x7000  boot parameters ("zero page" of the boot protocol)
//!     0x9000  page tables
//!    0x20000  kernel command line
//!    0x9fc00  MP table, up to 0xa0000
//!   0x100000  kernel (where its ELF says, from 16 MiB); the initramfs at the end of low memory
//!     3 GiB   no memory up to 4 GiB:
//! 0xd0000000    virtio-mmio devices, 4 KiB each
//! 0xfec00000    IO-APIC
//! 0xfee00000    local APICs
//! 0xfffbc000    KVM's own pages on Intel
//!     4 GiB   the rest of the memory
//! ```

/// The BIOS's reset flag: [`WARM_RESET`] if the reset was asked for.
pub const RESET_FLAG: u64 = 0x472;
/// Value of the reset flag at a warm reset.
pub const WARM_RESET: u16 = 0x1234;
/// Global descriptor table.
pub const GDT: u64 = 0x500;
/// Boot parameters.
pub const BOOT_PARAMS: u64 = 0x7000;
/// Top-level page table; the others follow.
pub const PAGE_TABLES: u64 = 0x9000;
/// Kernel command line.
pub const CMDLINE: u64 = 0x2_0000;
/// Most bytes of the kernel command line, the final zero included (COMMAND_LINE_SIZE of x86).
pub const CMDLINE_MAX_LEN: usize = 2048;
/// MP table: the last KiB of low memory, one of the places where a kernel looks for it.
pub const MP_TABLE: u64 = 0x9_fc00;
/// End of low memory and start of what PCs used for video and ROMs.
pub const LOW_MEMORY_END: u64 = 0xa_0000;
/// Start of memory above the first MiB.
pub const HIGH_MEMORY: u64 = 0x10_0000;
/// Start of the hole for devices: 3 GiB.
pub const GAP_START: u64 = 0xc000_0000;
/// End of the hole for devices: 4 GiB.
pub const GAP_END: u64 = 0x1_0000_0000;
/// First virtio-mmio device.
pub const MMIO_BASE: u64 = 0xd000_0000;
/// Address space of one virtio-mmio device.
pub const MMIO_SIZE: u64 = 0x1000;
/// IO-APIC.
pub const IO_APIC: u32 = 0xfec0_0000;
/// Local APIC.
pub const LOCAL_APIC: u32 = 0xfee0_0000;
/// One page for KVM's identity map on Intel.
pub const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;
/// Three pages for KVM's TSS on Intel.
pub const KVM_TSS: usize = 0xfffb_d000;
/// The serial port's interrupt.
pub const SERIAL_IRQ: u32 = 4;
/// First and last interrupt line for devices. A line may serve several devices.
pub const DEVICE_IRQS: std::ops::RangeInclusive<u32> = 5..=23;
/// Lines of the IO-APIC.
pub const IRQ_LINES: u8 = 24;

/// The guest's memory as (start, length in bytes) ranges: all below the gap, or two with the gap between them.
pub fn memory_ranges(mem_size_mib: u32) -> Vec<(u64, u64)> {
    let size = u64::from(mem_size_mib) << 20;
    if size <= GAP_START { vec![(0, size)] } else { vec![(0, GAP_START), (GAP_END, size - GAP_START)] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_leaves_the_gap_free() {
        assert_eq!(memory_ranges(64), [(0, 64 << 20)]);
        assert_eq!(memory_ranges(3072), [(0, 3 << 30)]);
        assert_eq!(memory_ranges(3073), [(0, 3 << 30), (4 << 30, 1 << 20)]);
        assert_eq!(memory_ranges(8192), [(0, 3 << 30), (4 << 30, 5 << 30)]);
    }
}
