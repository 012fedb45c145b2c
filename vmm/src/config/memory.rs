//! The guest's memory, and the balloon that gives it back.

use serde::{Deserialize, Serialize};

/// Least memory of a VM, in MiB.
pub const MIN_MEM_SIZE_MIB: u32 = 64;

/// Memory or balloon can't be had like this.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryConfigError {
    /// Memory that does not consist of whole huge pages.
    #[error("mem_size_mib is {mem_size_mib}, must be a multiple of {page_mib} for memory.backing {backing}")]
    HugePages {
        /// Size of the memory.
        mem_size_mib: u32,
        /// Size of a huge page.
        page_mib: u32,
        /// What was asked for.
        backing: Backing,
    },
    /// A balloon for memory that can't be given back.
    #[error("a balloon needs memory.backing anonymous: huge pages of the pool can't be given back in parts")]
    BalloonBacking,
    /// A balloon that leaves too little.
    #[error("balloon.target_mib is {target_mib}, must leave {MIN_MEM_SIZE_MIB} MiB of {mem_size_mib}")]
    BalloonTarget {
        /// What the balloon is to hold.
        target_mib: u32,
        /// Size of the memory.
        mem_size_mib: u32,
    },
}

/// Where the guest's memory comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryConfig {
    /// Its pages.
    #[serde(default)]
    pub backing: Backing,
    /// Whether other processes can map it, as back ends of devices that live in processes of their own do.
    #[serde(default)]
    pub shared: bool,
    /// Whether the host gives all of it before the guest starts, so that it never has to wait for memory later.
    #[serde(default)]
    pub prefault: bool,
}

/// The pages of which the guest's memory consists.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Backing {
    /// Ordinary ones, taken from the host as the guest touches them. The sum of all guests may exceed the host's memory.
    #[default]
    #[serde(rename = "anonymous")]
    Anonymous,
    /// Of the host's pool of 2 MiB pages, reserved before the guest starts.
    #[serde(rename = "hugetlb_2m")]
    Hugetlb2M,
    /// Of the host's pool of 1 GiB pages, reserved before the guest starts.
    #[serde(rename = "hugetlb_1g")]
    Hugetlb1G,
}

impl Backing {
    /// Size of a page of the pool, in MiB.
    pub fn huge_page_mib(self) -> Option<u32> {
        match self {
            Self::Anonymous => None,
            Self::Hugetlb2M => Some(2),
            Self::Hugetlb1G => Some(1024),
        }
    }
}

impl std::fmt::Display for Backing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "anonymous",
            Self::Hugetlb2M => "hugetlb_2m",
            Self::Hugetlb1G => "hugetlb_1g",
        })
    }
}

/// A balloon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BalloonConfig {
    /// How much memory the guest is to give up from the start, in MiB.
    #[serde(default)]
    pub target_mib: u32,
    /// Whether the guest tells of its memory. Yes, unless told otherwise.
    #[serde(default = "yes")]
    pub stats: bool,
    /// Whether the guest gives back free memory by itself. Yes, unless told otherwise.
    #[serde(default = "yes")]
    pub free_page_reporting: bool,
    /// The guest is not told of the balloon at its start, but by whoever steers it, with the place that
    /// [`BalloonState`](crate::virtio::balloon::BalloonState) has: so its boot does not wait for it.
    #[serde(default)]
    pub late: bool,
}

fn yes() -> bool {
    true
}

/// Checks what the types can't say.
pub(super) fn validate(
    mem_size_mib: u32,
    memory: MemoryConfig,
    balloon: Option<&BalloonConfig>,
) -> Result<(), MemoryConfigError> {
    let backing = memory.backing;
    match backing.huge_page_mib() {
        Some(page_mib) if !mem_size_mib.is_multiple_of(page_mib) => {
            return Err(MemoryConfigError::HugePages { mem_size_mib, page_mib, backing });
        }
        Some(_) if balloon.is_some() => return Err(MemoryConfigError::BalloonBacking),
        _ => {}
    }
    balloon.map_or(Ok(()), |balloon| validate_target(mem_size_mib, balloon.target_mib))
}

/// Checks how much memory a balloon is to hold.
pub(super) fn validate_target(mem_size_mib: u32, target_mib: u32) -> Result<(), MemoryConfigError> {
    if target_mib > mem_size_mib.saturating_sub(MIN_MEM_SIZE_MIB) {
        return Err(MemoryConfigError::BalloonTarget { target_mib, mem_size_mib });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(mem_size_mib: u32, target_mib: u32, backing: Backing) -> Result<(), MemoryConfigError> {
        let balloon = BalloonConfig { target_mib, stats: true, free_page_reporting: true, late: false };
        validate(mem_size_mib, MemoryConfig { backing, ..MemoryConfig::default() }, Some(&balloon))
    }

    #[test]
    fn a_balloon_leaves_the_guest_enough_and_needs_ordinary_memory() {
        let too_much =
            |mem_size_mib, target_mib| Err(MemoryConfigError::BalloonTarget { target_mib, mem_size_mib });
        assert_eq!(check(256, 192, Backing::Anonymous), Ok(()));
        assert_eq!(check(256, 193, Backing::Anonymous), too_much(256, 193));
        assert_eq!(check(64, 1, Backing::Anonymous), too_much(64, 1));
        assert_eq!(check(256, 0, Backing::Hugetlb2M), Err(MemoryConfigError::BalloonBacking));
    }

    #[test]
    fn a_balloon_has_defaults() {
        let balloon = serde_json::from_str::<BalloonConfig>("{}").unwrap();
        let expected = BalloonConfig { target_mib: 0, stats: true, free_page_reporting: true, late: false };
        assert_eq!(balloon, expected);
    }

    #[test]
    fn huge_pages_must_fit() {
        let check = |mem_size_mib, backing| {
            validate(mem_size_mib, MemoryConfig { backing, ..MemoryConfig::default() }, None)
        };
        assert_eq!(check(64, Backing::Hugetlb2M), Ok(()));
        let error = check(64, Backing::Hugetlb1G).unwrap_err().to_string();
        assert_eq!(error, "mem_size_mib is 64, must be a multiple of 1024 for memory.backing hugetlb_1g");
    }
}
