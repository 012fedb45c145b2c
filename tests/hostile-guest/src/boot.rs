//! The first instructions, and what the boot parameters say (Linux x86 boot protocol).

use core::arch::global_asm;

use crate::mem;

// Without SSE the compiler's own code does not run.
global_asm!(
    ".pushsection .text.start, \"ax\"",
    ".global start",
    "start:",
    "cli",
    "cld",
    "lea rsp, [rip + {stack} + {stack_len}]",
    "mov rax, cr0",
    "and rax, ~4",
    "or rax, 2",
    "mov cr0, rax",
    "mov rax, cr4",
    "or rax, 0x600",
    "mov cr4, rax",
    "mov rdi, rsi",
    "call {main}",
    "ud2",
    ".popsection",
    stack = sym STACK,
    stack_len = const STACK_LEN,
    main = sym crate::main,
);

const STACK_LEN: usize = 64 << 10;
static STACK: Stack = Stack(core::cell::UnsafeCell::new([0; STACK_LEN]));

#[repr(align(16))]
struct Stack(
    #[expect(dead_code, reason = "used by the first instructions")] core::cell::UnsafeCell<[u8; STACK_LEN]>,
);

// SAFETY: only the stack pointer knows of it, and there is one CPU.
unsafe impl Sync for Stack {}

const E820_COUNT: u64 = 0x1e8;
const COMMAND_LINE: u64 = 0x228;
const COMMAND_LINE_LEN: u64 = 0x238;
const E820_TABLE: u64 = 0x2d0;
const E820_LEN: u64 = 20;
const RAM: u32 = 1;

/// Where the guest's memory ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// End of that below 4 GiB.
    pub(crate) low_end: u64,
    /// End of that above, or 0.
    pub(crate) high_end: u64,
}

/// What the VMM says of memory.
pub(crate) fn memory(boot_params: u64) -> Memory {
    let mut memory = Memory { low_end: 0, high_end: 0 };
    for entry in 0..u64::from(mem::read::<u8>(boot_params + E820_COUNT)) {
        let at = boot_params + E820_TABLE + entry * E820_LEN;
        let end = mem::read::<u64>(at) + mem::read::<u64>(at + 8);
        if mem::read::<u32>(at + 16) == RAM {
            let known = if end <= 1 << 32 { &mut memory.low_end } else { &mut memory.high_end };
            *known = end.max(*known);
        }
    }
    memory
}

/// The command line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CommandLine(&'static str);

/// What the VMM gave.
pub(crate) fn command_line(boot_params: u64) -> CommandLine {
    let (start, len) =
        (mem::read::<u32>(boot_params + COMMAND_LINE), mem::read::<u32>(boot_params + COMMAND_LINE_LEN));
    // SAFETY: the boot protocol says that the text is there; nobody writes to it.
    let bytes = unsafe { core::slice::from_raw_parts(start as usize as *const u8, len as usize) };
    CommandLine(str::from_utf8(bytes).unwrap_or_default())
}

impl CommandLine {
    fn value(self, name: &str) -> Option<&'static str> {
        self.0.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }

    /// The words of `name=word,word`.
    pub(crate) fn words(self, name: &str) -> impl Iterator<Item = &'static str> {
        self.value(name).unwrap_or_default().split(',')
    }

    /// The number of `name=number`.
    pub(crate) fn number(self, name: &str) -> Option<u64> {
        self.value(name)?.parse().ok()
    }
}
