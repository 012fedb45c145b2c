//! Named CPUs for fleets of machines that differ: whatever host a guest runs on, its programs find the same instructions.
//!
//! A template names the features that a guest has; a host that lacks one of them does not start it. Beside those, what
//! programs do not choose their code by comes from the host: protection against the processor's own faults, supervisor
//! features, address widths, topology, caches, and what KVM offers. Everything else is hidden.

use kvm_bindings::CpuId;

use serde::{Deserialize, Serialize};

use super::policy::Register::{self, Eax, Ebx, Ecx, Edx};

/// The CPU that the guest sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CpuTemplate {
    /// What the host has, as far as KVM supports it and [`super::policy`] lets it through.
    #[default]
    #[serde(rename = "host")]
    Host,
    /// The instructions of the x86-64 psABI's second level.
    #[serde(rename = "x86-64-v2")]
    V2,
    /// Of its third level: AVX2.
    #[serde(rename = "x86-64-v3")]
    V3,
    /// Of its fourth level: AVX-512.
    #[serde(rename = "x86-64-v4")]
    V4,
}

/// The host can't be what a template promises.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the host lacks {feature}, which cpu_template {template} promises: choose a lower one")]
pub struct TemplateError {
    /// The template.
    pub template: &'static str,
    /// What is missing.
    pub feature: &'static str,
}

/// A register of feature bits and what is done with them.
struct Word {
    leaf: u32,
    index: u32,
    register: Register,
    /// Bits that the host decides about.
    passed: u32,
    /// Features: (bit, first level that has it, name).
    features: &'static [(u32, u8, &'static str)],
}

/// Bits that both vendors' leaves 1 and 0x80000001 have in EDX, where AMD repeats them.
const REPEATED: u32 = 0x0183_f3ff;

/// The registers that have features in them.
const WORDS: [Word; 13] = [
    Word {
        leaf: 0x1,
        index: 0,
        register: Ecx,
        // x2APIC and the timer's TSC deadline, which KVM has on every host; OSXSAVE, which KVM keeps; the hypervisor.
        passed: 1 << 17 | 1 << 21 | 1 << 24 | 1 << 27 | 1 << 31,
        features: &[
            (0, 2, "SSE3"),
            (1, 2, "PCLMULQDQ"),
            (9, 2, "SSSE3"),
            (12, 3, "FMA"),
            (13, 2, "CMPXCHG16B"),
            (19, 2, "SSE4.1"),
            (20, 2, "SSE4.2"),
            (22, 3, "MOVBE"),
            (23, 2, "POPCNT"),
            (25, 2, "AES"),
            (26, 2, "XSAVE"),
            (28, 3, "AVX"),
            (29, 3, "F16C"),
            (30, 2, "RDRAND"),
        ],
    },
    Word {
        leaf: 0x1,
        index: 0,
        register: Edx,
        // The whole baseline, and how many there are in the package.
        passed: REPEATED | 1 << 11 | 1 << 19 | 1 << 28,
        features: &[(25, 2, "SSE"), (26, 2, "SSE2")],
    },
    Word {
        leaf: 0x7,
        index: 0,
        register: Ebx,
        // FSGSBASE, TSC_ADJUST, FDP_EXCPTN_ONLY, SMEP, INVPCID, ZERO_FCS_FDS, SMAP.
        passed: 1 << 0 | 1 << 1 | 1 << 6 | 1 << 7 | 1 << 10 | 1 << 13 | 1 << 20,
        features: &[
            (3, 3, "BMI1"),
            (5, 3, "AVX2"),
            (8, 3, "BMI2"),
            (16, 4, "AVX512F"),
            (17, 4, "AVX512DQ"),
            (28, 4, "AVX512CD"),
            (30, 4, "AVX512BW"),
            (31, 4, "AVX512VL"),
        ],
    },
    // UMIP.
    Word { leaf: 0x7, index: 0, register: Ecx, passed: 1 << 2, features: &[] },
    // MD_CLEAR, RTM_ALWAYS_ABORT, SPEC_CTRL, STIBP, L1D_FLUSH, ARCH_CAPABILITIES, SSBD.
    Word {
        leaf: 0x7,
        index: 0,
        register: Edx,
        passed: 1 << 10 | 1 << 11 | 1 << 26 | 1 << 27 | 1 << 28 | 1 << 29 | 1 << 31,
        features: &[],
    },
    Word { leaf: 0x7, index: 1, register: Eax, passed: 0, features: &[] },
    Word { leaf: 0x7, index: 1, register: Edx, passed: 0, features: &[] },
    Word {
        leaf: 0xd,
        index: 1,
        register: Eax,
        passed: 0,
        features: &[(0, 2, "XSAVEOPT"), (1, 4, "XSAVEC"), (2, 4, "XGETBV1")],
    },
    // AVX10.
    Word { leaf: 0x24, index: 0, register: Ebx, passed: 0, features: &[] },
    Word {
        leaf: 0x8000_0001,
        index: 0,
        register: Ecx,
        // CMP_LEGACY, CR8_LEGACY, OSVW, TOPOEXT.
        passed: 1 << 1 | 1 << 4 | 1 << 9 | 1 << 22,
        features: &[(0, 2, "LAHF"), (5, 3, "LZCNT")],
    },
    Word {
        leaf: 0x8000_0001,
        index: 0,
        register: Edx,
        // SYSCALL, NX, 1 GiB pages, long mode.
        passed: REPEATED | 1 << 11 | 1 << 20 | 1 << 26 | 1 << 29,
        features: &[(27, 2, "RDTSCP")],
    },
    // XSAVEERPTR, and AMD's counterparts of the mitigations.
    Word {
        leaf: 0x8000_0008,
        index: 0,
        register: Ebx,
        passed: 1 << 2 | 1 << 12 | 1 << 14 | 1 << 15 | 0x1f << 16 | 0x7f << 24,
        features: &[],
    },
    // LFENCE_RDTSC, no nested breakpoints, VERW_CLEAR, NULL_SEL_CLR_BASE, automatic IBRS, and the mitigations.
    Word {
        leaf: 0x8000_0021,
        index: 0,
        register: Eax,
        passed: 1 << 0 | 1 << 2 | 1 << 5 | 1 << 6 | 1 << 8 | 0xf << 27,
        features: &[],
    },
];

/// First of the three leaves with the brand string, 16 bytes each.
const BRAND: u32 = 0x8000_0002;
const BRAND_LEN: usize = 48;

/// Makes what the host has into what the template promises.
///
/// # Errors
/// Names the first promised feature that the host lacks.
pub fn apply(cpuid: &mut CpuId, template: CpuTemplate) -> Result<(), TemplateError> {
    let (level, name) = match template {
        CpuTemplate::Host => return Ok(()),
        CpuTemplate::V2 => (2, "x86-64-v2"),
        CpuTemplate::V3 => (3, "x86-64-v3"),
        CpuTemplate::V4 => (4, "x86-64-v4"),
    };
    for word in &WORDS {
        let entry = cpuid
            .as_mut_slice()
            .iter_mut()
            .find(|entry| (entry.function, entry.index) == (word.leaf, word.index));
        let found = entry.as_ref().map_or(0, |entry| word.register.of(entry));
        let mut kept = word.passed;
        for (bit, first_level, feature) in word.features {
            if *first_level > level {
                continue;
            }
            if found & 1 << bit == 0 {
                return Err(TemplateError { template: name, feature });
            }
            kept |= 1 << bit;
        }
        if let Some(entry) = entry {
            *word.register.of_mut(entry) = found & kept;
        }
    }
    set_brand(cpuid, name);
    Ok(())
}

/// The processor's name as programs show it.
fn set_brand(cpuid: &mut CpuId, name: &str) {
    let mut brand = [0; BRAND_LEN];
    let text = format!("husk {name}");
    brand[..text.len()].copy_from_slice(text.as_bytes());
    let (words, _) = brand.as_chunks::<4>();
    for entry in cpuid.as_mut_slice() {
        let leaf = entry.function.checked_sub(BRAND).and_then(|leaf| words.chunks(4).nth(leaf as usize));
        if let Some([a, b, c, d]) = leaf {
            (entry.eax, entry.ebx) = (u32::from_le_bytes(*a), u32::from_le_bytes(*b));
            (entry.ecx, entry.edx) = (u32::from_le_bytes(*c), u32::from_le_bytes(*d));
        }
    }
}

#[cfg(test)]
mod tests {
    use kvm_bindings::kvm_cpuid_entry2;

    use super::*;

    /// A host that has everything, but for one bit.
    fn host(without: Option<(u32, u32, Register, u32)>) -> CpuId {
        let mut entries: Vec<kvm_cpuid_entry2> = Vec::new();
        for word in &WORDS {
            if !entries.iter().any(|entry| (entry.function, entry.index) == (word.leaf, word.index)) {
                entries.push(kvm_cpuid_entry2 {
                    function: word.leaf,
                    index: word.index,
                    ..Default::default()
                });
            }
            let entry = entries.last_mut().unwrap();
            *word.register.of_mut(entry) = u32::MAX;
            if let Some((leaf, index, register, bit)) = without
                && (leaf, index, register) == (word.leaf, word.index, word.register)
            {
                *word.register.of_mut(entry) &= !(1 << bit);
            }
        }
        entries.extend((0..3).map(|leaf| kvm_cpuid_entry2 { function: BRAND + leaf, ..Default::default() }));
        CpuId::from_entries(&entries).unwrap()
    }

    fn register(cpuid: &CpuId, leaf: u32, index: u32, register: Register) -> u32 {
        let found = cpuid.as_slice().iter().find(|entry| (entry.function, entry.index) == (leaf, index));
        register.of(found.unwrap())
    }

    #[test]
    fn the_host_as_it_is_stays_so() {
        let (mut cpuid, before) = (host(None), host(None));
        apply(&mut cpuid, CpuTemplate::Host).unwrap();
        assert_eq!(cpuid.as_slice(), before.as_slice());
    }

    #[test]
    fn levels_are_those_of_the_psabi_and_each_contains_the_one_below() {
        // (leaf, register, bits of level 2, 3, 4 beyond the baseline, as the psABI has them)
        for (leaf, word, v2, v3, v4) in [
            // SSE3, SSSE3, CMPXCHG16B, SSE4.1, SSE4.2, POPCNT; FMA, MOVBE, AVX, F16C.
            (1, Ecx, 0x0098_2201, 0x3040_1000, 0),
            // BMI1, AVX2, BMI2; AVX512F, DQ, CD, BW, VL.
            (7, Ebx, 0, 0x128, 0xd003_0000),
            // LAHF; LZCNT.
            (0x8000_0001, Ecx, 1, 1 << 5, 0),
        ] {
            for (template, there, gone) in [
                (CpuTemplate::V2, v2, v3 | v4),
                (CpuTemplate::V3, v2 | v3, v4),
                (CpuTemplate::V4, v2 | v3 | v4, 0),
            ] {
                let mut cpuid = host(None);
                apply(&mut cpuid, template).unwrap();
                let value = register(&cpuid, leaf, 0, word);
                assert_eq!((value & there, value & gone), (there, 0), "{leaf:#x} {template:?}");
            }
        }
    }

    #[test]
    fn hosts_of_different_make_look_the_same_to_programs() {
        // SHA, ADX, RDSEED, CLFLUSHOPT; VAES, GFNI; FSRM; AVX-VNNI: none is of any level.
        let mut rich = host(None);
        let mut poor = host(None);
        for (leaf, index, word, bits) in [
            (7, 0, Ebx, 1 << 29 | 1 << 19 | 1 << 18 | 1 << 23),
            (7, 0, Ecx, 1 << 9 | 1 << 8),
            (7, 0, Edx, 1 << 4),
            (7, 1, Eax, 1 << 4),
            (0x8000_0001, 0, Ecx, 1 << 6 | 1 << 8 | 1 << 11),
        ] {
            let entry = poor
                .as_mut_slice()
                .iter_mut()
                .find(|entry| (entry.function, entry.index) == (leaf, index))
                .unwrap();
            *word.of_mut(entry) &= !bits;
        }
        for cpuid in [&mut rich, &mut poor] {
            apply(cpuid, CpuTemplate::V3).unwrap();
        }
        assert_eq!(rich.as_slice(), poor.as_slice());
    }

    #[test]
    fn what_is_missing_is_named() {
        for word in &WORDS {
            for (bit, level, feature) in word.features {
                let without = Some((word.leaf, word.index, word.register, *bit));
                for (template, of_level) in [(CpuTemplate::V2, 2), (CpuTemplate::V3, 3), (CpuTemplate::V4, 4)]
                {
                    let result = apply(&mut host(without), template);
                    assert_eq!(result.is_err(), of_level >= *level, "{feature} {template:?}");
                    if let Err(error) = result {
                        assert_eq!(error.feature, *feature);
                    }
                }
            }
        }
        let error = apply(&mut CpuId::new(0).unwrap(), CpuTemplate::V3).unwrap_err();
        let text = "the host lacks SSE3, which cpu_template x86-64-v3 promises: choose a lower one";
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn the_brand_is_the_templates() {
        let mut cpuid = host(None);
        apply(&mut cpuid, CpuTemplate::V3).unwrap();
        let registers = (0..3).flat_map(|leaf| {
            [Eax, Ebx, Ecx, Edx].map(|word| register(&cpuid, BRAND + leaf, 0, word).to_le_bytes())
        });
        let bytes: Vec<u8> = registers.flatten().collect();
        assert_eq!(bytes.trim_ascii_end(), [&b"husk x86-64-v3"[..], &[0; 34]].concat());
    }
}
