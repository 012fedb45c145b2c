//! Segments and exceptions: a fault at an access to a model-specific register is skipped, any other is the end.

use core::{arch::asm, arch::global_asm, cell::UnsafeCell};

use crate::{
    cpu, mem,
    serial::{self, say},
};

const VECTORS: usize = 256;
const CODE_SELECTOR: u64 = 0x10;
/// Present, 64-bit interrupt gate.
const GATE: u64 = 0x8e00;
const NMI: u64 = 2;
const GENERAL_PROTECTION: u64 = 13;
/// Exceptions are below, interrupts from here on.
const FIRST_INTERRUPT: u64 = 32;
/// Bytes between two entry points.
const STUB_LEN: u64 = 16;
/// RDMSR and WRMSR.
const MSR_INSTRUCTIONS: [u16; 2] = [0x320f, 0x300f];

// Each entry leaves an error code, if need be a made-up one, and the vector on the stack.
global_asm!(
    ".balign 16",
    "exception_stubs:",
    ".set vector, 0",
    ".rept 256",
    ".balign 16",
    ".if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30)",
    "push 0",
    ".endif",
    "push vector",
    "jmp exception_common",
    ".set vector, vector + 1",
    ".endr",
    "exception_common:",
    "push rax", "push rcx", "push rdx", "push rsi", "push rdi", "push r8", "push r9", "push r10", "push r11", "push rbp",
    "mov rbp, rsp",
    "mov rdi, [rbp + 80]",
    "lea rsi, [rbp + 96]",
    "sub rsp, 512",
    "and rsp, -16",
    "fxsave [rsp]",
    "call {handle}",
    "fxrstor [rsp]",
    "mov rsp, rbp",
    "pop rbp", "pop r11", "pop r10", "pop r9", "pop r8", "pop rdi", "pop rsi", "pop rdx", "pop rcx", "pop rax",
    "add rsp, 16",
    "iretq",
    handle = sym handle,
);

// SAFETY: the symbol is defined by the assembly above; only its address is used.
unsafe extern "C" {
    safe static exception_stubs: u8;
}

#[repr(align(16))]
struct Table(UnsafeCell<[u64; VECTORS * 2]>);

// SAFETY: written before it is used, by the only CPU.
unsafe impl Sync for Table {}

static TABLE: Table = Table(UnsafeCell::new([0; VECTORS * 2]));

/// Null, unused, code and data: what the VMM gives as well, but in memory that no attack has devices write to.
static SEGMENTS: [u64; 4] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];

/// Installs the handlers.
pub(crate) fn install() {
    let table = TABLE.0.get().expose_provenance() as u64;
    let stubs = (&raw const exception_stubs).expose_provenance() as u64;
    for vector in 0..VECTORS as u64 {
        let entry = stubs + vector * STUB_LEN;
        let low = entry & 0xffff | CODE_SELECTOR << 16 | GATE << 32 | (entry >> 16 & 0xffff) << 48;
        mem::write(table + vector * 16, low);
        mem::write(table + vector * 16 + 8, entry >> 32);
    }
    let limit = (VECTORS * 16 - 1) as u64;
    let register = [limit | table << 16, table >> 48];
    let segments = (&raw const SEGMENTS).expose_provenance() as u64;
    let segments_register = [(size_of_val(&SEGMENTS) - 1) as u64 | segments << 16, segments >> 48];
    // SAFETY: the table has the segments that are in use, and stays.
    unsafe {
        asm!("lgdt [{}]", in(reg) &raw const segments_register, options(nostack, readonly, preserves_flags));
    }
    // SAFETY: limit and address are those of a complete table that stays.
    unsafe { asm!("lidt [{}]", in(reg) &raw const register, options(nostack, readonly, preserves_flags)) };
}

/// `instruction` is where the CPU keeps the address to return to.
extern "C" fn handle(vector: u64, instruction: *mut u64) {
    if vector == NMI || vector >= FIRST_INTERRUPT {
        return;
    }
    // SAFETY: the entry point gives the address of its own stack frame.
    let at = unsafe { *instruction };
    if vector == GENERAL_PROTECTION && MSR_INSTRUCTIONS.contains(&mem::read(at)) {
        // SAFETY: as above; both instructions have two bytes.
        unsafe { *instruction = at + 2 };
        return;
    }
    serial::restore();
    say!("exception {vector} at {at:#x}");
    cpu::crash()
}
