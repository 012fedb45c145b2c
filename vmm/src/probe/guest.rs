//! The tiny guest: 64-bit instructions that any kernel executes and an interpreter may not know.

use std::{fmt, io};

use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryMmap};

use crate::{
    boot::{Entry, gdt, paging},
    cpu, layout,
};

const KVM_API_VERSION: i32 = 12;
const MEMORY: usize = 1 << 20;
/// Where the code is.
const CODE: u64 = 0x1_0000;
/// Where the interrupt table is, how long a gate is, and the offset of the last byte that is needed.
const IDT: u64 = 0x1_2000;
const GATE_LEN: u64 = 16;
const IDT_LIMIT: u16 = 4 * 16 - 1;
/// The port and the value by which the guest says that all went well.
const PORT: u16 = 0xf4;
const PASSED: u8 = 0x34;
/// Vector of `int3`, and where in [`PROGRAM`] its handler starts.
const BREAKPOINT: u64 = 3;
const HANDLER: u64 = 0x21;
const CODE_SELECTOR: u64 = 0x10;
/// Present, 64-bit interrupt gate.
const INTERRUPT_GATE: u64 = 0x8e00;
/// Interruptions by signals before it counts as hung.
const MAX_INTERRUPTIONS: u32 = 1000;

/// 64-bit code for [`CODE`].
const PROGRAM: [u8; 0x26] = [
    0xbf, 0x00, 0x10, 0x01, 0x00, // mov edi, 0x11000          zeros, aligned to 16 bytes
    0x31, 0xc0, // xor eax, eax
    0x31, 0xd2, // xor edx, edx
    0xbb, 0x55, 0x00, 0x00, 0x00, // mov ebx, 0x55
    0x31, 0xc9, // xor ecx, ecx
    0xf0, 0x48, 0x0f, 0xc7, 0x0f, // lock cmpxchg16b [rdi]     zero as expected: becomes 0x55
    0xf3, 0x48, 0x0f, 0xb8, 0x37, // popcnt rsi, [rdi]         4 bits
    0xcc, // int3                                              the handler adds 0x10
    0x9b, // fwait
    0x8d, 0x46, 0x20, // lea eax, [rsi + 0x20]                 0x34 by now
    0xe6, 0xf4, // out 0xf4, al
    // The handler.
    0x83, 0xc6, 0x10, // add esi, 0x10
    0x48, 0xcf, // iretq
];

/// What the guest did.
#[derive(Debug)]
pub(super) enum Outcome {
    /// All that it should.
    Passed,
    /// KVM could not execute an instruction.
    Internal { suberror: u32 },
    /// It did something else.
    Unexpected(String),
    /// KVM refused to set it up or to run it.
    Refused { what: &'static str, source: kvm_ioctls::Error },
    /// It did not end.
    Hung,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => write!(f, "the test guest passed"),
            Self::Internal { suberror } => {
                write!(f, "KVM gave up on an instruction of the test guest (suberror {suberror})")
            }
            Self::Unexpected(what) => write!(f, "the test guest went wrong ({what})"),
            Self::Refused { what, source } => write!(f, "KVM cannot {what} ({source})"),
            Self::Hung => write!(f, "the test guest did not end"),
        }
    }
}

/// Opens `/dev/kvm`.
pub(super) fn open() -> io::Result<Kvm> {
    Ok(Kvm::new()?)
}

/// Runs the guest.
pub(super) fn run(kvm: &Kvm) -> Outcome {
    let version = kvm.get_api_version();
    if version != KVM_API_VERSION {
        return Outcome::Unexpected(format!("KVM's API has version {version}"));
    }
    set_up(kvm).map_or_else(|refused| refused, |mut guest| guest.enter())
}

/// A guest that is ready to run.
struct Guest {
    // Dropped in this order: what uses memory goes before the memory.
    vcpu: VcpuFd,
    _vm: VmFd,
    _memory: GuestMemoryMmap,
}

fn set_up(kvm: &Kvm) -> Result<Guest, Outcome> {
    let refused = |what| move |source| Outcome::Refused { what, source };
    let no_memory = || refused("have memory")(kvm_ioctls::Error::new(libc::ENOMEM));
    let vm = kvm.create_vm().map_err(refused("create a VM"))?;
    vm.set_tss_address(layout::KVM_TSS).map_err(refused("place its TSS"))?;
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]).map_err(|_| no_memory())?;
    let page_tables = fill(&memory).map_err(|_| no_memory())?;
    let host = memory.get_host_address(GuestAddress(0)).map_err(|_| no_memory())?;
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: MEMORY as u64,
        userspace_addr: host as u64,
    };
    // SAFETY: the range is a mapping of this length, which is kept together with the VM and unmapped after it.
    unsafe { vm.set_user_memory_region(region) }.map_err(refused("add memory"))?;
    let vcpu = vm.create_vcpu(0).map_err(refused("create a vCPU"))?;
    let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(refused("tell its CPUID"))?;
    vcpu.set_cpuid2(&cpuid).map_err(refused("set a vCPU's CPUID"))?;
    cpu::set_entry(&vcpu, Entry { address: CODE, page_tables }).map_err(refused("set a vCPU's registers"))?;
    set_interrupt_table(&vcpu).map_err(refused("set a vCPU's registers"))?;
    Ok(Guest { vcpu, _vm: vm, _memory: memory })
}

/// Writes code and tables; returns the page tables' address.
fn fill(memory: &GuestMemoryMmap) -> Result<u64, GuestMemoryError> {
    let handler = CODE + HANDLER;
    let gate = handler & 0xffff | CODE_SELECTOR << 16 | INTERRUPT_GATE << 32 | (handler >> 16 & 0xffff) << 48;
    memory.write_slice(&PROGRAM, GuestAddress(CODE))?;
    memory.write_obj(gate, GuestAddress(IDT + BREAKPOINT * GATE_LEN))?;
    memory.write_slice(&gdt::table(), GuestAddress(layout::GDT))?;
    paging::write(memory)
}

fn set_interrupt_table(vcpu: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
    let mut sregs = vcpu.get_sregs()?;
    sregs.idt.base = IDT;
    sregs.idt.limit = IDT_LIMIT;
    vcpu.set_sregs(&sregs)
}

impl Guest {
    fn enter(&mut self) -> Outcome {
        for _ in 0..MAX_INTERRUPTIONS {
            return match self.vcpu.run() {
                Ok(VcpuExit::IoOut(PORT, [PASSED])) => Outcome::Passed,
                Ok(VcpuExit::InternalError) => {
                    let run = self.vcpu.get_kvm_run();
                    // SAFETY: the exit reason says that this member of the union is valid; any bits are a valid number.
                    let suberror = unsafe { run.__bindgen_anon_1.internal.suberror };
                    Outcome::Internal { suberror }
                }
                Ok(other) => Outcome::Unexpected(format!("{other:?}")),
                Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => continue,
                Err(source) => Outcome::Refused { what: "run a vCPU", source },
            };
        }
        Outcome::Hung
    }
}
