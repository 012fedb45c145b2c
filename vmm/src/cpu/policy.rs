//! What of KVM's CPUID does not reach a guest, and why.
//!
//! KVM reports no more than it can give, but some of that is of no use to a guest in a VM this small, tells it of its
//! host, or could not work: nested virtualization, performance counters, power management, enclaves, tracing. All else
//! passes. Vendor, family, model and stepping are the host's own, since the guest's kernel needs them to choose its
//! workarounds for the processor's faults; so is the brand string, unless a [template](super::template) replaces it.

use kvm_bindings::{CpuId, kvm_cpuid_entry2};

/// A register of a CPUID leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Register {
    /// EAX.
    Eax,
    /// EBX.
    Ebx,
    /// ECX.
    Ecx,
    /// EDX.
    Edx,
}

impl Register {
    /// The register in an entry.
    pub fn of(self, entry: &kvm_cpuid_entry2) -> u32 {
        match self {
            Self::Eax => entry.eax,
            Self::Ebx => entry.ebx,
            Self::Ecx => entry.ecx,
            Self::Edx => entry.edx,
        }
    }

    /// The register in an entry, to be changed.
    pub fn of_mut(self, entry: &mut kvm_cpuid_entry2) -> &mut u32 {
        match self {
            Self::Eax => &mut entry.eax,
            Self::Ebx => &mut entry.ebx,
            Self::Ecx => &mut entry.ecx,
            Self::Edx => &mut entry.edx,
        }
    }
}

use Register::{Eax, Ebx, Ecx, Edx};

/// Leaves that read as zero, with all their subleaves.
const HIDDEN_LEAVES: [u32; 23] = [
    0x3,         // Serial number.
    0x5,         // MONITOR and MWAIT: a guest that waits by HLT lets others have the processor.
    0x9,         // Direct cache access.
    0xa,         // Performance counters.
    0xf,         // Monitoring of caches and memory bandwidth, and
    0x10,        // their allocation.
    0x12,        // SGX.
    0x14,        // Processor trace.
    0x16,        // Frequencies of the host, which change.
    0x17,        // Vendor of a system on a chip.
    0x19,        // Key locker.
    0x1a,        // Kind of core in a hybrid processor: vCPUs move between kinds.
    0x1b,        // PCONFIG.
    0x1c,        // Records of branches.
    0x1d,        // AMX tiles, and
    0x1e, // their multiplication: their state needs a permission per thread that the VMM does not ask for.
    0x23, // Performance counters, newer form.
    0x8000_000a, // SVM.
    0x8000_001b, // AMD's instruction based sampling.
    0x8000_001c, // AMD's lightweight profiling.
    0x8000_001f, // Encrypted memory.
    0x8000_0020, // AMD's quality of service.
    0x8000_0022, // AMD's performance counters.
];

/// Bits that read as zero: (leaf, subleaf, register, bits).
const HIDDEN_BITS: [(u32, u32, Register, u32); 10] = [
    // DTES64, MONITOR, DS-CPL, VMX, SMX, EST, TM2, CNXT-ID, SDBG, xTPR, PDCM (what performance counters can do), DCA.
    (0x1, 0, Ecx, 0x1fc | 1 << 10 | 1 << 11 | 1 << 14 | 1 << 15 | 1 << 18),
    // Serial number, debug store, ACPI thermal control, thermal monitor, PBE.
    (0x1, 0, Edx, 1 << 18 | 1 << 21 | 1 << 22 | 1 << 29 | 1 << 31),
    // SGX, HLE and RTM (transactions leak through timing and are off in most firmware), RDT-M, MPX, RDT-A, PT.
    (0x7, 0, Ebx, 1 << 2 | 1 << 4 | 1 << 11 | 1 << 12 | 1 << 14 | 1 << 15 | 1 << 25),
    // WAITPKG, memory encryption, key locker, SGX launch control.
    (0x7, 0, Ecx, 1 << 5 | 1 << 13 | 1 << 23 | 1 << 30),
    // Hybrid, TSXLDTRK, PCONFIG, architectural LBR, AMX.
    (0x7, 0, Edx, 1 << 15 | 1 << 16 | 1 << 18 | 1 << 19 | 1 << 22 | 1 << 24 | 1 << 25),
    // AMX-FP16.
    (0x7, 1, Eax, 1 << 21),
    // AMX-COMPLEX.
    (0x7, 1, Edx, 1 << 8),
    // SVM, extended APIC space, IBS, SKINIT, watchdog, LWP, performance counters of cores, northbridge and last-level
    // cache, performance TSC, MONITORX.
    (
        0x8000_0001,
        0,
        Ecx,
        1 << 2
            | 1 << 3
            | 1 << 10
            | 1 << 12
            | 1 << 13
            | 1 << 15
            | 1 << 23
            | 1 << 24
            | 1 << 27
            | 1 << 28
            | 1 << 29,
    ),
    // RDPRU reads counters of the processor's real frequency.
    (0x8000_0008, 0, Ebx, 1 << 4),
    // Of what KVM offers beside hardware: exits for asynchronous page faults of nested guests, interrupt ids beyond
    // 8 bits, and what only migration of encrypted guests needs.
    (0x4000_0001, 0, Eax, 1 << 10 | 1 << 15 | 1 << 16 | 1 << 17),
];

/// The processor's power management, of which only the always running APIC timer (ARAT) is left.
const POWER: u32 = 0x6;
const ARAT: u32 = 1 << 2;
/// AMD's power management, of which only the invariant TSC is left.
const AMD_POWER: u32 = 0x8000_0007;
const INVARIANT_TSC: u32 = 1 << 8;

/// Takes away what no guest gets.
pub fn apply(cpuid: &mut CpuId) {
    for entry in cpuid.as_mut_slice() {
        let (eax, edx) = (entry.eax, entry.edx);
        if HIDDEN_LEAVES.contains(&entry.function) || matches!(entry.function, POWER | AMD_POWER) {
            (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0);
        }
        match entry.function {
            POWER => entry.eax = eax & ARAT,
            AMD_POWER => entry.edx = edx & INVARIANT_TSC,
            _ => {}
        }
        for (function, index, register, bits) in HIDDEN_BITS {
            if (function, index) == (entry.function, entry.index) {
                *register.of_mut(entry) &= !bits;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_ones() -> CpuId {
        let leaves = (0..0x30).chain(0x4000_0000..0x4000_0002).chain(0x8000_0000..0x8000_0028);
        let subleaves = leaves.flat_map(|function| [(function, 0), (function, 1)]);
        let entries: Vec<_> = subleaves
            .filter(|(function, index)| *index == 0 || matches!(function, 7 | 0x14 | 0x12))
            .map(|(function, index)| {
                let all = u32::MAX;
                kvm_cpuid_entry2 {
                    function,
                    index,
                    eax: all,
                    ebx: all,
                    ecx: all,
                    edx: all,
                    ..Default::default()
                }
            })
            .collect();
        let mut cpuid = CpuId::from_entries(&entries).unwrap();
        apply(&mut cpuid);
        cpuid
    }

    fn leaf(cpuid: &CpuId, function: u32, index: u32) -> [u32; 4] {
        let found = cpuid.as_slice().iter().find(|entry| (entry.function, entry.index) == (function, index));
        [Eax, Ebx, Ecx, Edx].map(|register| register.of(found.unwrap()))
    }

    #[test]
    fn hidden_leaves_are_empty_and_others_are_not() {
        let cpuid = all_ones();
        for function in HIDDEN_LEAVES {
            assert_eq!(leaf(&cpuid, function, 0), [0; 4], "{function:#x}");
        }
        assert_eq!(leaf(&cpuid, 0x14, 1), [0; 4]);
        for function in [0, 2, 4, 0xb, 0xd, 0x15, 0x8000_0000, 0x8000_0002, 0x8000_001d] {
            assert_eq!(leaf(&cpuid, function, 0), [u32::MAX; 4], "{function:#x}");
        }
        assert_eq!(leaf(&cpuid, 6, 0), [4, 0, 0, 0]);
        assert_eq!(leaf(&cpuid, 0x8000_0007, 0), [0, 0, 0, 0x100]);
    }

    #[test]
    fn what_can_not_work_is_hidden_and_what_matters_is_not() {
        let cpuid = all_ones();
        // (leaf, subleaf, register, bits that are gone, bits that stay)
        for (function, index, register, gone, stay) in [
            // VMX, MONITOR; SSE3, SSSE3, FMA, x2APIC, AVX.
            (1, 0, 2, vec![3, 5, 15], vec![0, 1, 9, 12, 13, 17, 19, 20, 21, 23, 25, 26, 28, 30]),
            (1, 0, 3, vec![18, 21], vec![0, 4, 9, 11, 16, 24, 25, 26]),
            // SGX, TSX, MPX, PT; FSGSBASE, AVX2, SMEP, SMAP, AVX512F.
            (7, 0, 1, vec![2, 4, 11, 14, 25], vec![0, 3, 5, 7, 8, 9, 16, 20]),
            // AMX, hybrid; mitigations: MD_CLEAR, SPEC_CTRL, STIBP, ARCH_CAPABILITIES, SSBD.
            (7, 0, 3, vec![15, 22, 24, 25], vec![10, 26, 27, 28, 29, 31]),
            (0x8000_0001, 0, 2, vec![2, 10, 12, 23], vec![0, 5, 6, 8, 22]),
            (0x8000_0008, 0, 1, vec![4], vec![0, 12, 14, 15, 24]),
            // The clock and its stability, steal time, PV EOI, PV unhalt, TLB flushes, IPIs.
            (0x4000_0001, 0, 0, vec![10, 15, 16, 17], vec![0, 3, 5, 6, 7, 9, 11, 24]),
        ] {
            let value = leaf(&cpuid, function, index)[register];
            assert!(gone.iter().all(|bit| value & 1 << bit == 0), "{function:#x} {value:#x}");
            assert!(stay.iter().all(|bit| value & 1 << bit != 0), "{function:#x} {value:#x}");
        }
    }
}
