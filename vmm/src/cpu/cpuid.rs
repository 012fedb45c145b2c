//! CPUID: what KVM supports on this host, with a topology of our own: one socket, one thread per core.

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

/// Leaf 1, ECX: the local APIC's timer can be armed with a TSC value. KVM has it, but leaves saying so to its user.
const TSC_DEADLINE: u32 = 1 << 24;
/// Leaf 1, ECX: a hypervisor is present.
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 1, EDX: the package has several logical processors.
const MULTI_THREADED: u32 = 1 << 28;
/// Leaf 0x80000001, ECX: the logical processors of a package are cores.
const CMP_LEGACY: u32 = 1 << 1;
/// First of the hypervisor's leaves: its name and its last leaf.
const SIGNATURE: u32 = 0x4000_0000;
/// The hypervisor's leaf with frequencies in kHz.
const FREQUENCIES: u32 = 0x4000_0010;
/// The clock of KVM's local APIC.
const APIC_BUS_KHZ: u32 = 1_000_000;
/// Level types of the extended topology leaves.
const LEVEL_THREAD: u32 = 1;
const LEVEL_CORE: u32 = 2;

/// The topology of a VM.
#[derive(Debug, Clone, Copy)]
struct Topology {
    vcpus: u32,
    /// Bits of an APIC id that number the cores.
    core_bits: u32,
}

/// Turns what KVM supports into what the guests sees; [`for_vcpu`] then makes it one vCPU's.
pub fn normalize(cpuid: &mut CpuId, vcpus: u8) {
    let topology = Topology {
        vcpus: u32::from(vcpus),
        core_bits: u32::from(vcpus).next_power_of_two().trailing_zeros(),
    };
    // Subleaves of the topology are rewritten as a whole, below. 0x80000026 is AMD's newer form; without it, the
    // others count.
    cpuid.retain(|entry| !matches!(entry.function, 0xb | 0x1f | 0x8000_0026));
    for entry in cpuid.as_mut_slice() {
        adjust(entry, topology);
    }
    let max_leaf = cpuid.as_slice().iter().find(|entry| entry.function == 0).map_or(0, |entry| entry.eax);
    for function in [0xb, 0x1f].into_iter().filter(|function| *function <= max_leaf) {
        for entry in extended_topology(function, topology) {
            // The limit is KVM's; what does not fit is what a guest can do without.
            let _ = cpuid.push(entry);
        }
    }
}

fn adjust(entry: &mut kvm_cpuid_entry2, topology: Topology) {
    let Topology { vcpus, core_bits } = topology;
    match entry.function {
        0x1 => {
            entry.ecx |= TSC_DEADLINE | HYPERVISOR;
            // Most APIC ids in the package.
            entry.ebx = entry.ebx & !0x00ff_0000 | (1 << core_bits) << 16;
            entry.edx = entry.edx & !MULTI_THREADED | if vcpus > 1 { MULTI_THREADED } else { 0 };
        }
        // Intel's caches and cores (type 0 ends the list).
        0x4 if entry.eax & 0x1f != 0 => {
            entry.eax = entry.eax & 0x3fff | (cache_sharers(entry, topology) - 1) << 14 | (vcpus - 1) << 26;
        }
        0x8000_0001 => {
            entry.ecx = entry.ecx & !CMP_LEGACY | if vcpus > 1 { CMP_LEGACY } else { 0 };
        }
        // AMD's count of cores and size of the APIC id's core part.
        0x8000_0008 => entry.ecx = entry.ecx & !0xf0ff | core_bits << 12 | (vcpus - 1),
        // AMD's caches.
        0x8000_001d if entry.eax & 0x1f != 0 => {
            entry.eax = entry.eax & !0x03ff_c000 | (cache_sharers(entry, topology) - 1) << 14;
        }
        // AMD's ids: one thread per core, one node.
        0x8000_001e => (entry.ebx, entry.ecx) = (0, 0),
        _ => {}
    }
}

/// How many vCPUs share a cache: all the last level, none the others.
fn cache_sharers(entry: &kvm_cpuid_entry2, topology: Topology) -> u32 {
    if entry.eax >> 5 & 7 >= 3 { topology.vcpus } else { 1 }
}

/// The levels of a leaf 0xb or 0x1f, the end included.
fn extended_topology(function: u32, topology: Topology) -> [kvm_cpuid_entry2; 3] {
    let level = |index, shift, processors, kind: u32| kvm_cpuid_entry2 {
        function,
        index,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: shift,
        ebx: processors,
        ecx: kind << 8 | index,
        ..Default::default()
    };
    [
        level(0, 0, 1, LEVEL_THREAD),
        level(1, topology.core_bits, topology.vcpus, LEVEL_CORE),
        level(2, 0, 0, 0),
    ]
}

/// Tells how fast the TSC and the local APIC's timer run (leaf 0x40000010, which several hypervisors have). Linux takes the
/// TSC's from KVM's clock, and needs no other, as it arms the timer by the TSC.
pub fn set_frequencies(cpuid: &mut CpuId, tsc_khz: u32) {
    if let Some(signature) = cpuid.as_mut_slice().iter_mut().find(|entry| entry.function == SIGNATURE) {
        signature.eax = signature.eax.max(FREQUENCIES);
        let leaf =
            kvm_cpuid_entry2 { function: FREQUENCIES, eax: tsc_khz, ebx: APIC_BUS_KHZ, ..Default::default() };
        // As above.
        let _ = cpuid.push(leaf);
    }
}

/// Puts in what differs between vCPUs: the APIC id.
pub fn for_vcpu(cpuid: &mut CpuId, apic_id: u8) {
    let apic_id = u32::from(apic_id);
    for entry in cpuid.as_mut_slice() {
        match entry.function {
            0x1 => entry.ebx = entry.ebx & 0x00ff_ffff | apic_id << 24,
            0xb | 0x1f => entry.edx = apic_id,
            0x8000_001e => {
                entry.eax = apic_id;
                entry.ebx = entry.ebx & !0xff | apic_id;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(function: u32, index: u32, registers: [u32; 4]) -> kvm_cpuid_entry2 {
        let [eax, ebx, ecx, edx] = registers;
        kvm_cpuid_entry2 { function, index, eax, ebx, ecx, edx, ..Default::default() }
    }

    fn guest(vcpus: u8, apic_id: u8) -> CpuId {
        let mut cpuid = CpuId::from_entries(&[
            entry(0, 0, [0xd, 0, 0, 0]),
            entry(1, 0, [0x80_0f12, 0xff33_0844, 0x1, MULTI_THREADED | 1]),
            entry(4, 0, [0xfc00_c121, 1, 2, 3]),
            entry(4, 3, [0xffff_c163, 1, 2, 3]),
            entry(4, 4, [0, 0, 0, 0]),
            entry(0xb, 0, [7, 7, 7, 7]),
            entry(0x8000_0001, 0, [0, 0, 0x20, 0]),
            entry(0x8000_0008, 0, [0x3030, 0, 0x703f, 0]),
            entry(0x8000_001d, 3, [0xfc00_c163, 1, 2, 3]),
            entry(0x8000_001e, 0, [9, 0x109, 0x300, 0]),
            entry(0x8000_0026, 0, [1, 1, 1, 1]),
        ])
        .unwrap();
        normalize(&mut cpuid, vcpus);
        for_vcpu(&mut cpuid, apic_id);
        cpuid
    }

    fn find(cpuid: &CpuId, function: u32, index: u32) -> kvm_cpuid_entry2 {
        *cpuid.as_slice().iter().find(|entry| entry.function == function && entry.index == index).unwrap()
    }

    #[test]
    fn one_vcpu_is_alone() {
        let cpuid = guest(1, 0);
        let leaf = find(&cpuid, 1, 0);
        assert_eq!(leaf.ebx, 0x0001_0844);
        assert_eq!(leaf.ecx, 1 | TSC_DEADLINE | HYPERVISOR);
        assert_eq!(leaf.edx, 1);
        assert_eq!(find(&cpuid, 0x8000_0008, 0).ecx, 0);
        assert_eq!(find(&cpuid, 0x8000_0001, 0).ecx, 0x20);
        assert_eq!(find(&cpuid, 4, 3).eax, 0x163);
    }

    #[test]
    fn five_vcpus_are_five_cores_in_one_socket() {
        let cpuid = guest(5, 4);
        let leaf = find(&cpuid, 1, 0);
        assert_eq!(leaf.ebx, 0x0408_0844);
        assert_eq!(leaf.edx, MULTI_THREADED | 1);
        let (thread, core, end) = (find(&cpuid, 0xb, 0), find(&cpuid, 0xb, 1), find(&cpuid, 0xb, 2));
        assert_eq!([thread.eax, thread.ebx, thread.ecx, thread.edx], [0, 1, 0x100, 4]);
        assert_eq!([core.eax, core.ebx, core.ecx, core.edx], [3, 5, 0x201, 4]);
        assert_eq!([end.eax, end.ebx, end.ecx, end.edx], [0, 0, 2, 4]);
        assert_eq!(find(&cpuid, 0x8000_0008, 0).ecx, 0x3004);
        assert_eq!(find(&cpuid, 0x8000_0001, 0).ecx, 0x22);
        let amd = find(&cpuid, 0x8000_001e, 0);
        assert_eq!([amd.eax, amd.ebx, amd.ecx], [4, 4, 0]);
        // The first-level cache is a core's own, the last-level one is shared.
        assert_eq!(find(&cpuid, 4, 0).eax, 4 << 26 | 0x121);
        assert_eq!(find(&cpuid, 4, 3).eax, 4 << 26 | 4 << 14 | 0x163);
        assert_eq!(find(&cpuid, 4, 4).eax, 0);
    }

    #[test]
    fn leaves_beyond_the_last_one_are_gone() {
        let cpuid = guest(2, 0);
        assert!(!cpuid.as_slice().iter().any(|entry| matches!(entry.function, 0x1f | 0x8000_0026)));
    }

    /// How many bits number so many things.
    fn bits(count: u32) -> u32 {
        count.next_power_of_two().trailing_zeros()
    }

    #[test]
    fn every_way_to_ask_tells_the_same_topology() {
        for vcpus in 1..=crate::config::MAX_VCPUS {
            let all = u32::from(vcpus);
            for id in 0..vcpus {
                let (cpuid, apic_id) = (guest(vcpus, id), u32::from(id));
                let [thread, core] = [0, 1].map(|level| find(&cpuid, 0xb, level));
                assert_eq!(
                    (thread.eax, thread.ebx, core.ebx),
                    (0, 1, all),
                    "no threads, all cores in a package"
                );
                assert_eq!((apic_id >> core.eax, core.edx), (0, apic_id), "all in package 0");
                let basic = find(&cpuid, 1, 0);
                assert_eq!(basic.ebx >> 24, apic_id);
                assert_eq!(bits(basic.ebx >> 16 & 0xff), core.eax);
                assert_eq!(basic.edx & MULTI_THREADED != 0, vcpus > 1);
                let intel = find(&cpuid, 4, 3);
                assert_eq!([bits((intel.eax >> 26) + 1), bits((intel.eax >> 14 & 0xfff) + 1)], [core.eax; 2]);
                assert_eq!(find(&cpuid, 4, 0).eax >> 14 & 0xfff, 0, "a first-level cache is not shared");
                let amd = find(&cpuid, 0x8000_0008, 0);
                assert_eq!([amd.ecx & 0xff, amd.ecx >> 12 & 0xf], [all - 1, core.eax]);
                let amd_cache = find(&cpuid, 0x8000_001d, 3);
                assert_eq!(bits((amd_cache.eax >> 14 & 0xfff) + 1), core.eax);
                let amd_ids = find(&cpuid, 0x8000_001e, 0);
                assert_eq!([amd_ids.eax, amd_ids.ebx], [apic_id; 2], "core and thread are one");
            }
        }
    }

    #[test]
    fn frequencies_are_told_beside_kvms_own_leaves() {
        let signature = entry(0x4000_0000, 0, [0x4000_0001, 0x4b4d_564b, 0x564b_4d56, 0x4d]);
        let mut cpuid = CpuId::from_entries(&[signature]).unwrap();
        set_frequencies(&mut cpuid, 2_500_000);
        let kvm = find(&cpuid, 0x4000_0000, 0);
        assert_eq!([kvm.eax, kvm.ebx], [0x4000_0010, 0x4b4d_564b]);
        let timing = find(&cpuid, 0x4000_0010, 0);
        assert_eq!([timing.eax, timing.ebx, timing.ecx, timing.edx], [2_500_000, 1_000_000, 0, 0]);
    }
}
