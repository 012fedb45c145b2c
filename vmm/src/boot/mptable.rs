//! The MP table (Intel MultiProcessor Specification 1.4): how a kernel without ACPI learns of CPUs and interrupt lines.

use crate::layout::{IO_APIC, IRQ_LINES, LOCAL_APIC, LOW_MEMORY_END, MP_TABLE};

/// Version of APICs: integrated.
const APIC_VERSION: u8 = 0x14;
const SPEC_VERSION: u8 = 4;
const ENABLED: u8 = 1;
const BOOT_PROCESSOR: u8 = 2;
const ISA_BUS: u8 = 0;
const ALL_APICS: u8 = 0xff;
const FLOATING_POINTER_LEN: usize = 16;
const HEADER_LEN: usize = 44;
/// Interrupt types (section 4.3.4).
const VECTORED: u8 = 0;
const NMI: u8 = 1;
const EXTERNAL: u8 = 3;

/// The table for `vcpus` CPUs, to be written at [`MP_TABLE`]. The IO-APIC's id is the one after the last CPU's.
pub(super) fn table(vcpus: u8) -> Vec<u8> {
    let io_apic_id = vcpus;
    let mut entries = Vec::with_capacity(1024);
    let mut count: u16 = 0;
    let mut add = |entry: &[u8]| {
        entries.extend_from_slice(entry);
        count += 1;
    };
    for apic_id in 0..vcpus {
        let flags = if apic_id == 0 { ENABLED | BOOT_PROCESSOR } else { ENABLED };
        let mut processor = [0; 20];
        processor[..4].copy_from_slice(&[0, apic_id, APIC_VERSION, flags]);
        add(&processor);
    }
    add(&[1, ISA_BUS, b'I', b'S', b'A', b' ', b' ', b' ']);
    let [a, b, c, d] = IO_APIC.to_le_bytes();
    add(&[2, io_apic_id, APIC_VERSION, ENABLED, a, b, c, d]);
    // Each line of the IO-APIC is the ISA interrupt of the same number: active high, edge.
    for line in 0..IRQ_LINES {
        add(&[3, VECTORED, 0, 0, ISA_BUS, line, io_apic_id, line]);
    }
    add(&[4, EXTERNAL, 0, 0, ISA_BUS, 0, 0, 0]);
    add(&[4, NMI, 0, 0, ISA_BUS, 0, ALL_APICS, 1]);

    let mut table = floating_pointer();
    table.extend(header(&entries, count));
    table.extend(entries);
    debug_assert!(table.len() as u64 <= LOW_MEMORY_END - MP_TABLE);
    table
}

/// The structure by which the kernel finds the table.
fn floating_pointer() -> Vec<u8> {
    let mut pointer = Vec::with_capacity(1024);
    pointer.extend(b"_MP_");
    // The table follows at once.
    let table = MP_TABLE + FLOATING_POINTER_LEN as u64;
    pointer.extend(&table.to_le_bytes()[..4]);
    // Length in paragraphs, version, checksum, features.
    pointer.extend([1, SPEC_VERSION, 0, 0, 0, 0, 0, 0]);
    pointer[10] = checksum(&pointer);
    pointer
}

fn header(entries: &[u8], count: u16) -> Vec<u8> {
    let len = u16::try_from(HEADER_LEN + entries.len()).unwrap_or(u16::MAX);
    let mut header = Vec::with_capacity(HEADER_LEN);
    header.extend(b"PCMP");
    header.extend(len.to_le_bytes());
    header.extend([SPEC_VERSION, 0]);
    header.extend(b"HUSK    MICROVM     ");
    // No OEM table.
    header.extend([0; 6]);
    header.extend(count.to_le_bytes());
    header.extend(LOCAL_APIC.to_le_bytes());
    // No extended entries.
    header.extend([0; 4]);
    header[7] = checksum(&[&header, entries].concat());
    header
}

/// The byte that makes all bytes add up to zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_right_and_all_fits() {
        for vcpus in 1..=crate::config::MAX_VCPUS {
            let table = table(vcpus);
            assert!(table.len() <= 1024, "{vcpus} vCPUs");
            assert_eq!(&table[..4], b"_MP_");
            assert_eq!(checksum(&table[..16]), 0);
            let config = &table[16..];
            assert_eq!(&config[..4], b"PCMP");
            assert_eq!(usize::from(u16::from_le_bytes([config[4], config[5]])), config.len());
            assert_eq!(checksum(config), 0);
        }
    }

    #[test]
    fn entries_are_walked_to_the_end() {
        let table = table(3);
        let config = &table[16..];
        let count = u16::from_le_bytes([config[34], config[35]]);
        let mut rest = &config[HEADER_LEN..];
        let mut kinds = [0; 5];
        for _ in 0..count {
            kinds[usize::from(rest[0])] += 1;
            rest = &rest[if rest[0] == 0 { 20 } else { 8 }..];
        }
        assert!(rest.is_empty());
        assert_eq!(kinds, [3, 1, 1, 24, 2]);
        // Only the first CPU is the boot processor.
        assert_eq!([config[HEADER_LEN + 3], config[HEADER_LEN + 23]], [3, 1]);
    }
}
