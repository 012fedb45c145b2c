//! The boot parameters: what the kernel is told about memory, command line and initramfs (Linux x86 boot protocol).

use linux_loader::bootparam::{boot_e820_entry, boot_params};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use super::Range;
use crate::layout;

const RAM: u32 = 1;
const RESERVED: u32 = 2;
const BOOT_FLAG: u16 = 0xaa55;
/// "HdrS".
const HEADER_MAGIC: u32 = 0x5372_6448;
/// A loader without an assigned number.
const LOADER_UNKNOWN: u8 = 0xff;

/// Writes the boot parameters; `cmdline_len` is without the final zero.
pub(super) fn write(
    mem: &GuestMemoryMmap,
    mem_size_mib: u32,
    cmdline_len: usize,
    initramfs: Option<Range>,
) -> Result<(), GuestMemoryError> {
    let mut params = boot_params::default();
    params.hdr.boot_flag = BOOT_FLAG;
    params.hdr.header = HEADER_MAGIC;
    params.hdr.type_of_loader = LOADER_UNKNOWN;
    // The layout is below 4 GiB and a command line below 2 KiB.
    params.hdr.cmd_line_ptr = u32::try_from(layout::CMDLINE).unwrap_or(0);
    params.hdr.cmdline_size = u32::try_from(cmdline_len).unwrap_or(0);
    if let Some(Range { start, len }) = initramfs {
        params.hdr.ramdisk_image = start;
        params.hdr.ramdisk_size = len;
    }
    let map = memory_map(mem_size_mib);
    params.e820_entries = u8::try_from(map.len()).unwrap_or(0);
    for (slot, (start, end, kind)) in params.e820_table.iter_mut().zip(map) {
        *slot = boot_e820_entry { addr: start, size: end - start, r#type: kind };
    }
    mem.write_obj(params, GuestAddress(layout::BOOT_PARAMS))
}

/// What is where, as (start, end, kind).
fn memory_map(mem_size_mib: u32) -> Vec<(u64, u64, u32)> {
    let mut map = vec![(0, layout::MP_TABLE, RAM), (layout::MP_TABLE, layout::LOW_MEMORY_END, RESERVED)];
    map.extend(
        layout::memory_ranges(mem_size_mib)
            .into_iter()
            .map(|(start, len)| (start.max(layout::HIGH_MEMORY), start + len, RAM)),
    );
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_described_around_the_gap() {
        const MIB: u64 = 1 << 20;
        let low = [(0, 0x9_fc00, RAM), (0x9_fc00, 0xa_0000, RESERVED)];
        assert_eq!(memory_map(64), [&low[..], &[(MIB, 64 * MIB, RAM)]].concat());
        let high = [(MIB, 3072 * MIB, RAM), (4096 * MIB, 5120 * MIB, RAM)];
        assert_eq!(memory_map(4096), [&low[..], &high].concat());
    }

    #[test]
    fn the_kernel_finds_its_command_line_and_initramfs() {
        let mem = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        write(&mem, 64, 7, Some(Range { start: 0x12_3000, len: 99 })).unwrap();
        let field = |offset: u64| mem.read_obj::<u32>(GuestAddress(layout::BOOT_PARAMS + offset)).unwrap();
        assert_eq!(field(0x202), HEADER_MAGIC);
        assert_eq!(field(0x228), 0x2_0000);
        assert_eq!(field(0x238), 7);
        assert_eq!([field(0x218), field(0x21c)], [0x12_3000, 99]);
        assert_eq!(field(0x1e8) & 0xff, 3);
    }
}
