//! The machine's physical memory and registers, all of which this program owns, mapped to themselves up to 5 GiB.

use core::{
    arch::{asm, global_asm},
    ptr,
};

/// Where rings are, [`RING_STEP`] apart.
pub(crate) const RINGS: u64 = 32 << 20;
/// Space for one queue's rings.
pub(crate) const RING_STEP: u64 = 64 << 10;
/// Buffers, which devices may fill with whatever they like.
pub(crate) const SCRATCH: u64 = 40 << 20;
/// Bytes of [`SCRATCH`].
pub(crate) const SCRATCH_LEN: u64 = 16 << 20;
/// End of what is mapped.
pub(crate) const MAPPED: u64 = 5 << 30;

/// Reads memory. `address` is that of no Rust object that changes.
pub(crate) fn read<T: Copy>(address: u64) -> T {
    // SAFETY: the address is mapped; volatile and unaligned, it is read as it is, whoever else writes there.
    unsafe { ptr::read_volatile(ptr::with_exposed_provenance::<Unaligned<T>>(address as usize)).0 }
}

/// Writes memory. `address` is that of no Rust object.
pub(crate) fn write<T: Copy>(address: u64, value: T) {
    // SAFETY: the address is mapped, and no reference to anything there exists.
    unsafe { ptr::write_volatile(ptr::with_exposed_provenance_mut(address as usize), Unaligned(value)) }
}

#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Unaligned<T>(T);

/// Fills memory. `address` is that of no Rust object.
pub(crate) fn fill(address: u64, value: u8, len: u64) {
    // SAFETY: as for `write`.
    unsafe {
        asm!("rep stosb", inout("rdi") address => _, inout("rcx") len => _, in("al") value, options(nostack, preserves_flags));
    }
}

/// Reads a device's register with an access of `size` bytes: 1, 2, 4 or else 8.
pub(crate) fn read_register(address: u64, size: u8) -> u64 {
    let value: u64;
    // SAFETY: there is no memory at a device's address, and what reading does to the device is what is wanted.
    unsafe {
        match size {
            1 => asm!("movzx {0:e}, byte ptr [{1}]", out(reg) value, in(reg) address, options(nostack)),
            2 => asm!("movzx {0:e}, word ptr [{1}]", out(reg) value, in(reg) address, options(nostack)),
            4 => asm!("mov {0:e}, dword ptr [{1}]", out(reg) value, in(reg) address, options(nostack)),
            _ => asm!("mov {0}, qword ptr [{1}]", out(reg) value, in(reg) address, options(nostack)),
        }
    }
    value
}

/// Writes a device's register with an access of `size` bytes: 1, 2, 4 or else 8.
pub(crate) fn write_register(address: u64, size: u8, value: u64) {
    // SAFETY: as above; devices write only to memory that was given to them.
    unsafe {
        match size {
            1 => asm!("mov byte ptr [{1}], {0}", in(reg_byte) value as u8, in(reg) address, options(nostack)),
            2 => asm!("mov word ptr [{1}], {0:x}", in(reg) value, in(reg) address, options(nostack)),
            4 => asm!("mov dword ptr [{1}], {0:e}", in(reg) value, in(reg) address, options(nostack)),
            _ => asm!("mov qword ptr [{1}], {0}", in(reg) value, in(reg) address, options(nostack)),
        }
    }
}

// What the compiler expects of a C library.
global_asm!(
    ".global memcpy",
    "memcpy:",
    "mov rax, rdi",
    "mov rcx, rdx",
    "rep movsb",
    "ret",
    ".global memset",
    "memset:",
    "mov r8, rdi",
    "mov eax, esi",
    "mov rcx, rdx",
    "rep stosb",
    "mov rax, r8",
    "ret",
    ".global memmove",
    "memmove:",
    "mov rax, rdi",
    "mov rcx, rdx",
    "cmp rdi, rsi",
    "jbe 1f",
    "lea rdi, [rdi + rcx - 1]",
    "lea rsi, [rsi + rcx - 1]",
    "std",
    "rep movsb",
    "cld",
    "ret",
    "1:",
    "rep movsb",
    "ret",
    ".global bcmp",
    "bcmp:",
    ".global memcmp",
    "memcmp:",
    "xor eax, eax",
    "test rdx, rdx",
    "jz 3f",
    "2:",
    "movzx eax, byte ptr [rdi]",
    "movzx ecx, byte ptr [rsi]",
    "sub eax, ecx",
    "jnz 3f",
    "inc rdi",
    "inc rsi",
    "dec rdx",
    "jnz 2b",
    "3:",
    "ret",
);
