//! The flat segments with which the kernel's 64-bit entry point is reached (Linux x86 boot protocol, 64-bit).

use kvm_bindings::kvm_segment;

/// Selector of the code segment that the boot protocol wants (`__BOOT_CS`).
const CODE_SELECTOR: u16 = 0x10;
/// Selector of the data segment that the boot protocol wants (`__BOOT_DS`).
const DATA_SELECTOR: u16 = 0x18;
/// Selector of the task state segment.
const TASK_SELECTOR: u16 = 0x20;

/// Bytes of the table: null, unused, code, data, and a task state descriptor of two entries.
pub const LEN: u16 = 6 * 8;

/// The segments of a CPU in 64-bit mode.
#[derive(Debug, Clone, Copy)]
pub struct Segments {
    /// For CS.
    pub code: kvm_segment,
    /// For DS, ES, FS, GS and SS.
    pub data: kvm_segment,
    /// For TR.
    pub task: kvm_segment,
}

/// The segments, flat over the whole address space.
pub fn segments() -> Segments {
    let flat = kvm_segment { base: 0, limit: u32::MAX, present: 1, s: 1, g: 1, ..Default::default() };
    Segments {
        // Execute and read, accessed; 64-bit.
        code: kvm_segment { selector: CODE_SELECTOR, type_: 0xb, l: 1, ..flat },
        // Read and write, accessed; 32-bit stack.
        data: kvm_segment { selector: DATA_SELECTOR, type_: 0x3, db: 1, ..flat },
        // Busy 64-bit task state segment, of which nothing is used.
        task: kvm_segment { selector: TASK_SELECTOR, type_: 0xb, s: 0, limit: 0, g: 0, ..flat },
    }
}

/// The table in memory that describes the same segments.
pub fn table() -> [u8; LEN as usize] {
    let Segments { code, data, task } = segments();
    let mut table = [0; LEN as usize];
    let (entries, _) = table.as_chunks_mut::<8>();
    for segment in [code, data, task] {
        entries[usize::from(segment.selector / 8)] = descriptor(&segment).to_le_bytes();
    }
    table
}

/// A segment descriptor (AMD64 manual, volume 2, section 4.7).
fn descriptor(segment: &kvm_segment) -> u64 {
    let scaled = if segment.g == 1 { segment.limit >> 12 } else { segment.limit };
    let (base, limit) = (segment.base, u64::from(scaled));
    (limit & 0xffff)
        | (base & 0xff_ffff) << 16
        | u64::from(segment.type_) << 40
        | u64::from(segment.s) << 44
        | u64::from(segment.dpl) << 45
        | u64::from(segment.present) << 47
        | (limit >> 16 & 0xf) << 48
        | u64::from(segment.l) << 53
        | u64::from(segment.db) << 54
        | u64::from(segment.g) << 55
        | (base >> 24 & 0xff) << 56
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_the_descriptors_at_their_selectors() {
        let table = table();
        let entry = |index: usize| u64::from_le_bytes(table[index * 8..][..8].try_into().unwrap());
        assert_eq!(entry(0), 0);
        assert_eq!(entry(1), 0);
        assert_eq!(entry(2), 0x00af_9b00_0000_ffff);
        assert_eq!(entry(3), 0x00cf_9300_0000_ffff);
        assert_eq!(entry(4), 0x0000_8b00_0000_0000);
        assert_eq!(entry(5), 0);
    }

    #[test]
    fn bases_and_limits_are_split_as_the_format_wants() {
        let segment = kvm_segment { base: 0x1234_5678, limit: 0x9_abcd, present: 1, ..Default::default() };
        assert_eq!(descriptor(&segment), 0x1209_8034_5678_abcd);
    }
}
