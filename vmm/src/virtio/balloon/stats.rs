//! The guest's statistics about its memory (virtio 1.2, section 5.5.6.4).

use std::collections::BTreeMap;

/// Names by tag. Amounts of memory are in bytes.
const NAMES: [&str; 16] = [
    "swap_in_bytes",
    "swap_out_bytes",
    "major_faults",
    "minor_faults",
    "free_bytes",
    "total_bytes",
    "available_bytes",
    "cache_bytes",
    "hugetlb_allocations",
    "hugetlb_failures",
    "oom_kills",
    "allocation_stalls",
    "async_scan_bytes",
    "direct_scan_bytes",
    "async_reclaim_bytes",
    "direct_reclaim_bytes",
];

/// What a guest said of its memory. It may say anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Stats([Option<u64>; NAMES.len()]);

impl Stats {
    /// A tag of 16 bits and a value of 64.
    const ENTRY_LEN: usize = 10;
    /// Most bytes that are looked at: each tag once.
    pub(super) const MAX_LEN: usize = NAMES.len() * Self::ENTRY_LEN;

    /// Reads the entries; tags that are not known are left out.
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let mut stats = Self::default();
        let (entries, _) = bytes.as_chunks::<{ Self::ENTRY_LEN }>();
        for [tag_low, tag_high, value @ ..] in entries {
            let tag = u16::from_le_bytes([*tag_low, *tag_high]);
            if let Some(slot) = stats.0.get_mut(usize::from(tag)) {
                *slot = Some(u64::from_le_bytes(*value));
            }
        }
        stats
    }

    /// The values that the guest gave, by name.
    pub(super) fn by_name(&self) -> BTreeMap<String, u64> {
        NAMES.iter().zip(self.0).filter_map(|(name, value)| Some(((*name).to_owned(), value?))).collect()
    }
}
