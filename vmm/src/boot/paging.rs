//! Identity page tables for the first GiB, enough for a kernel to reach its own (Linux x86 boot protocol, 64-bit).

use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use crate::layout::PAGE_TABLES;

const TABLE_LEN: u64 = 0x1000;
const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const HUGE: u64 = 1 << 7;
const ENTRIES: usize = 512;

/// Writes the tables and returns the value for CR3.
///
/// # Errors
/// When the guest has no memory there.
pub(crate) fn write(mem: &GuestMemoryMmap) -> Result<u64, GuestMemoryError> {
    let [top, pointers, directory] = [0, 1, 2].map(|table| PAGE_TABLES + table * TABLE_LEN);
    mem.write_obj(pointers | PRESENT | WRITABLE, GuestAddress(top))?;
    mem.write_obj(directory | PRESENT | WRITABLE, GuestAddress(pointers))?;
    let mut pages = [0_u8; ENTRIES * 8];
    for (entry, address) in pages.as_chunks_mut::<8>().0.iter_mut().zip((0_u64..).step_by(2 << 20)) {
        *entry = (address | PRESENT | WRITABLE | HUGE).to_le_bytes();
    }
    mem.write_slice(&pages, GuestAddress(directory))?;
    Ok(top)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_gib_is_mapped_to_itself() {
        let mem = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        let top = write(&mem).unwrap();
        for address in [0, 0x20_0000, 0x3fff_ffff] {
            let mut table = top;
            for shift in [39, 30] {
                let index = address >> shift & 0x1ff;
                let entry: u64 = mem.read_obj(GuestAddress(table + index * 8)).unwrap();
                assert_eq!(entry & 0x83, PRESENT | WRITABLE);
                table = entry & !0xfff;
            }
            let entry: u64 = mem.read_obj(GuestAddress(table + (address >> 21 & 0x1ff) * 8)).unwrap();
            assert_eq!(entry & 0xfff, PRESENT | WRITABLE | HUGE);
            assert_eq!(entry & !0xfff, address & !0x1f_ffff);
        }
    }
}
