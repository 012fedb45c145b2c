//! Leaf 0xd: which registers XSAVE saves, and how much room they need. It has to agree with the instruction sets that are
//! left, or a kernel gives up on all of them.

use kvm_bindings::{CpuId, kvm_cpuid_entry2};

/// Leaf 1, ECX.
const XSAVE: u32 = 1 << 26;
const AVX: u32 = 1 << 28;
/// Leaf 7, EBX.
const AVX512F: u32 = 1 << 16;
/// Leaf 7, ECX.
const PKU: u32 = 1 << 3;
/// Leaf 0xd, subleaf 1, EAX.
const XSAVEC: u32 = 1 << 1;
const XSAVES: u32 = 1 << 3;
/// ECX of a component's subleaf: it belongs to XSS, not to XCR0; and it starts at a multiple of 64 in the compacted form.
const SUPERVISOR: u32 = 1;
const ALIGNED: u32 = 1 << 1;

/// x87 and SSE, which come together with XSAVE.
const LEGACY: u64 = 3;
/// Size of the area without any component: the legacy region and the header.
const HEADER_END: u32 = 512 + 64;

/// Takes away the components whose instructions are not there, and computes the sizes anew. KVM replaces the sizes that
/// depend on what is switched on as the guest switches it.
pub fn make_consistent(cpuid: &mut CpuId) {
    let user = allowed_components(cpuid) & offered_components(cpuid);
    let features = find(cpuid, 0xd, 1).map_or(0, |entry| entry.eax);
    let supervisor = match find(cpuid, 0xd, 1) {
        Some(entry) if user != 0 && features & XSAVES != 0 => {
            u64::from(entry.ecx) | u64::from(entry.edx) << 32
        }
        _ => 0,
    };
    cpuid.retain(|entry| {
        entry.function != 0xd || entry.index < 2 || (user | supervisor) & bit(entry.index) != 0
    });
    let compacted = compacted_size(cpuid);
    let standard = standard_size(cpuid);
    for entry in cpuid.as_mut_slice().iter_mut().filter(|entry| entry.function == 0xd) {
        match entry.index {
            _ if user == 0 => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0),
            0 => {
                (entry.eax, entry.edx) = halves(user);
                (entry.ebx, entry.ecx) = (standard, standard);
            }
            1 => {
                entry.ebx = if features & (XSAVEC | XSAVES) != 0 { compacted } else { 0 };
                (entry.ecx, entry.edx) = halves(supervisor);
            }
            _ => {}
        }
    }
}

/// What XCR0 may hold; `None` without XSAVE.
pub fn offered_xcr0(cpuid: &CpuId) -> Option<u64> {
    Some(offered_components(cpuid)).filter(|components| *components != 0)
}

fn offered_components(cpuid: &CpuId) -> u64 {
    find(cpuid, 0xd, 0).map_or(0, |entry| u64::from(entry.eax) | u64::from(entry.edx) << 32)
}

/// The components of XCR0 that the instruction sets need. Those of MPX and AMX are never let through.
fn allowed_components(cpuid: &CpuId) -> u64 {
    let basic = find(cpuid, 1, 0).map_or(0, |entry| entry.ecx);
    let (extended_b, extended_c) = find(cpuid, 7, 0).map_or((0, 0), |entry| (entry.ebx, entry.ecx));
    if basic & XSAVE == 0 {
        return 0;
    }
    let needs =
        [(basic & AVX != 0, 1 << 2), (extended_b & AVX512F != 0, 7 << 5), (extended_c & PKU != 0, 1 << 9)];
    needs.iter().filter(|(there, _)| *there).fold(LEGACY, |all, (_, components)| all | components)
}

fn find(cpuid: &CpuId, function: u32, index: u32) -> Option<&kvm_cpuid_entry2> {
    cpuid.as_slice().iter().find(|entry| (entry.function, entry.index) == (function, index))
}

/// The subleaves of components, which are left in order.
fn components(cpuid: &CpuId) -> impl Iterator<Item = &kvm_cpuid_entry2> {
    cpuid.as_slice().iter().filter(|entry| entry.function == 0xd && entry.index >= 2)
}

/// Where the last component ends, each at its own place.
fn standard_size(cpuid: &CpuId) -> u32 {
    let user = components(cpuid).filter(|entry| entry.ecx & SUPERVISOR == 0);
    user.map(|entry| entry.ebx.saturating_add(entry.eax)).max().unwrap_or(0).max(HEADER_END)
}

/// Where the last component ends, one after the other.
fn compacted_size(cpuid: &CpuId) -> u32 {
    components(cpuid).fold(HEADER_END, |end, entry| {
        let start = if entry.ecx & ALIGNED != 0 { end.next_multiple_of(64) } else { end };
        start.saturating_add(entry.eax)
    })
}

fn bit(index: u32) -> u64 {
    1_u64.checked_shl(index).unwrap_or(0)
}

/// Low and high 32 bits.
fn halves(value: u64) -> (u32, u32) {
    let [low, high] = [value & 0xffff_ffff, value >> 32].map(|half| u32::try_from(half).unwrap_or(0));
    (low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(function: u32, index: u32, [eax, ebx, ecx, edx]: [u32; 4]) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 { function, index, eax, ebx, ecx, edx, ..Default::default() }
    }

    /// A server's processor with everything, as KVM reports it.
    fn server(basic: u32, extended: [u32; 2], features: u32) -> CpuId {
        let [ebx, ecx] = extended;
        let mut cpuid = CpuId::from_entries(&[
            entry(1, 0, [0, 0, basic, 0]),
            entry(7, 0, [0, ebx, ecx, 0]),
            entry(0xd, 0, [0x602e7, 11008, 11008, 0]),
            entry(0xd, 1, [features, 10000, 1 << 11, 0]),
            entry(0xd, 2, [256, 576, 0, 0]),
            entry(0xd, 5, [64, 1088, 0, 0]),
            entry(0xd, 6, [512, 1152, 0, 0]),
            entry(0xd, 7, [1024, 1664, 0, 0]),
            entry(0xd, 9, [8, 2688, 0, 0]),
            entry(0xd, 11, [16, 0, 1, 0]),
            entry(0xd, 17, [64, 2752, 2, 0]),
            entry(0xd, 18, [8192, 2816, 6, 0]),
        ])
        .unwrap();
        make_consistent(&mut cpuid);
        cpuid
    }

    fn subleaves(cpuid: &CpuId) -> Vec<u32> {
        cpuid.as_slice().iter().filter(|entry| entry.function == 0xd).map(|entry| entry.index).collect()
    }

    #[test]
    fn components_follow_the_instruction_sets() {
        for (basic, extended, xcr0, size, expected) in [
            (XSAVE, [0, 0], 3, 576, vec![0, 1, 11]),
            (XSAVE | AVX, [0, 0], 7, 832, vec![0, 1, 2, 11]),
            (XSAVE | AVX, [AVX512F, 0], 0xe7, 2688, vec![0, 1, 2, 5, 6, 7, 11]),
            (XSAVE | AVX, [AVX512F, PKU], 0x2e7, 2696, vec![0, 1, 2, 5, 6, 7, 9, 11]),
        ] {
            let cpuid = server(basic, extended, 0xf);
            assert_eq!(subleaves(&cpuid), expected);
            let main = find(&cpuid, 0xd, 0).unwrap();
            assert_eq!((main.eax, main.ebx, main.ecx, main.edx), (xcr0, size, size, 0));
            assert_eq!(offered_xcr0(&cpuid), Some(xcr0.into()));
        }
    }

    #[test]
    fn the_compacted_size_is_there_with_the_instructions_that_use_it() {
        let size = |features| find(&server(XSAVE | AVX, [0, PKU], features), 0xd, 1).unwrap().ebx;
        // XSAVES saves supervisor state as well.
        assert_eq!(size(0xf), 576 + 256 + 8 + 16);
        assert_eq!(size(0x7), 576 + 256 + 8);
        assert_eq!(size(0x5), 0);
        assert_eq!(find(&server(XSAVE | AVX, [0, PKU], 0x7), 0xd, 1).unwrap().ecx, 0);
    }

    #[test]
    fn without_xsave_there_is_nothing() {
        let cpuid = server(AVX, [AVX512F, 0], 0xf);
        assert_eq!(subleaves(&cpuid), [0, 1]);
        assert_eq!(offered_xcr0(&cpuid), None);
        assert!(cpuid.as_slice().iter().filter(|entry| entry.function == 0xd).all(|entry| entry.eax == 0));
    }
}
