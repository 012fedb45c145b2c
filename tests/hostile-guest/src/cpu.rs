//! Instructions that Rust has no words for.

use core::{arch::asm, cell::UnsafeCell};

use crate::mem;

const TABLE: u64 = 0x1000;
/// Present, writable.
const ENTRY: u64 = 3;
const HUGE: u64 = 1 << 7;
/// Tables of the last level but one, a GiB each.
const DIRECTORIES: u64 = mem::MAPPED >> 30;

#[repr(align(4096))]
struct PageTables(UnsafeCell<[u8; ((2 + DIRECTORIES) * TABLE) as usize]>);

// SAFETY: written before it is used, by the only CPU.
unsafe impl Sync for PageTables {}

static PAGE_TABLES: PageTables = PageTables(UnsafeCell::new([0; ((2 + DIRECTORIES) * TABLE) as usize]));

/// Maps more than the first GiB: devices, and what is above 4 GiB.
pub(crate) fn map_memory() {
    let top = PAGE_TABLES.0.get().expose_provenance() as u64;
    let (pointers, directories) = (top + TABLE, top + 2 * TABLE);
    mem::write(top, pointers | ENTRY);
    for gib in 0..DIRECTORIES {
        mem::write(pointers + gib * 8, (directories + gib * TABLE) | ENTRY);
    }
    for page in 0..DIRECTORIES * 512 {
        mem::write(directories + page * 8, page << 21 | ENTRY | HUGE);
    }
    // SAFETY: what was mapped stays mapped to the same addresses.
    unsafe { asm!("mov cr3, {}", in(reg) top, options(nostack, preserves_flags)) };
}

/// Writes an I/O port with an access of `size` bytes: 1, 2 or else 4.
pub(crate) fn port_write(port: u16, size: u8, value: u32) {
    // SAFETY: touches no memory.
    unsafe {
        match size {
            1 => {
                asm!("out dx, al", in("dx") port, in("al") value as u8, options(nomem, nostack, preserves_flags))
            }
            2 => {
                asm!("out dx, ax", in("dx") port, in("ax") value as u16, options(nomem, nostack, preserves_flags))
            }
            _ => {
                asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack, preserves_flags))
            }
        }
    }
}

/// Reads an I/O port with an access of `size` bytes: 1, 2 or else 4.
pub(crate) fn port_read(port: u16, size: u8) -> u32 {
    let value: u32;
    // SAFETY: touches no memory.
    unsafe {
        match size {
            1 => {
                asm!("in al, dx", in("dx") port, inout("eax") 0 => value, options(nomem, nostack, preserves_flags))
            }
            2 => {
                asm!("in ax, dx", in("dx") port, inout("eax") 0 => value, options(nomem, nostack, preserves_flags))
            }
            _ => {
                asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack, preserves_flags))
            }
        }
    }
    value
}

/// Writes `len` bytes from `address` to an I/O port by a string instruction.
pub(crate) fn port_write_string(port: u16, address: u64, len: u64) {
    // SAFETY: only reads memory, which is mapped.
    unsafe {
        asm!("rep outsb", in("dx") port, inout("rsi") address => _, inout("rcx") len => _, options(nostack, preserves_flags));
    }
}

/// Reads `len` bytes from an I/O port to `address`, which is that of no Rust object, by a string instruction.
pub(crate) fn port_read_string(port: u16, address: u64, len: u64) {
    // SAFETY: no reference to anything there exists.
    unsafe {
        asm!("rep insb", in("dx") port, inout("rdi") address => _, inout("rcx") len => _, options(nostack, preserves_flags));
    }
}

/// CPUID.
pub(crate) fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let leaf = core::arch::x86_64::__cpuid_count(leaf, subleaf);
    [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]
}

/// Reads a model-specific register; a fault is none.
pub(crate) fn read_msr(index: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: touches no memory; a fault is skipped by its handler.
    unsafe {
        asm!("rdmsr", in("ecx") index, inout("eax") 0 => low, inout("edx") 0 => high, options(nomem, nostack));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Writes a model-specific register; a fault is none. `value` makes no register that matters here do harm.
pub(crate) fn write_msr(index: u32, value: u64) {
    // SAFETY: as above, and the caller sees to the rest.
    unsafe {
        asm!("wrmsr", in("ecx") index, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack));
    }
}

/// The time stamp counter.
pub(crate) fn now() -> u64 {
    // SAFETY: always there in 64-bit mode.
    unsafe { core::arch::x86_64::_rdtsc() }
}

const RESET_FLAG: u64 = 0x472;
const WARM: u16 = 0x1234;

/// Ends the machine in order.
pub(crate) fn reset() -> ! {
    end(WARM)
}

/// Ends the machine as a panic does.
pub(crate) fn crash() -> ! {
    end(0)
}

fn end(flag: u16) -> ! {
    mem::write(RESET_FLAG, flag);
    loop {
        port_write(0x64, 1, 0xfe);
    }
}

/// Faults without a handler: the CPU gives up.
pub(crate) fn triple_fault() -> ! {
    let none = [0_u16; 5];
    // SAFETY: an empty table is a valid one; nothing runs after this.
    unsafe { asm!("lidt [{}]", "ud2", in(reg) &raw const none, options(noreturn)) }
}

/// Runs what is at `address`.
pub(crate) fn jump(address: u64) -> ! {
    // SAFETY: nothing of this program runs after this.
    unsafe { asm!("jmp {}", in(reg) address, options(noreturn)) }
}
