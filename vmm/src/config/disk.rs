//! Disks.

use std::{collections::HashSet, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::rate_limit::{RateLimit, RateLimitError};

/// Most bytes of a disk's id: the size of a serial number in virtio-blk (virtio 1.2, section 5.2.6).
pub const MAX_DISK_ID_LEN: usize = 20;

/// A disk can't be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskConfigError {
    /// Its id does not fit.
    #[error("disk id {0:?} must have 1 to {MAX_DISK_ID_LEN} bytes, all printable ASCII without spaces")]
    Id(String),
    /// Two with the same id, or one with the name of an empty slot.
    #[error("two disks have the id {0:?}")]
    DuplicateId(String),
    /// Number of queues out of range.
    #[error("the disk {id:?} has {queues} queues, must be 1 to the number of vCPUs")]
    Queues {
        /// The disk.
        id: String,
        /// Its queues.
        queues: u8,
    },
    /// A limit out of range.
    #[error("the limit of the disk {id:?} is no good")]
    Limit {
        /// The disk.
        id: String,
        /// Why.
        #[source]
        source: RateLimitError,
    },
}

/// A disk: a raw file or block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskConfig {
    /// The serial number by which the guest knows the disk: 1 to 20 bytes of printable ASCII.
    pub id: String,
    /// Where it is.
    pub path: PathBuf,
    /// Whether writes are refused. The length of such a disk need not be a multiple of 512 bytes: it is filled up with
    /// zeros.
    pub read_only: bool,
    /// How its content is laid out. Never guessed from the content, which a guest may have written.
    #[serde(default)]
    pub format: DiskFormat,
    /// Number of queues, each with a thread: 1 to the number of vCPUs.
    #[serde(default = "one")]
    pub queues: u8,
    /// How much it may do in a time.
    #[serde(default)]
    pub limit: RateLimit,
    /// What becomes of a request to write when the host's file system has no room for it.
    #[serde(default)]
    pub when_full: WhenFull,
}

impl DiskConfig {
    /// A raw disk with one queue and no limit, whose requests to write wait for room.
    pub fn new(id: impl Into<String>, path: impl Into<PathBuf>, read_only: bool) -> Self {
        let (id, path) = (id.into(), path.into());
        let (format, limit, when_full) = Default::default();
        Self { id, path, read_only, format, queues: 1, limit, when_full }
    }
}

/// How a disk's content is laid out in its file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskFormat {
    /// As it is.
    #[default]
    Raw,
}

/// What becomes of a request to write when the host's file system has no room for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// It waits, with all of its queue, until there is room. The guest sees a slow disk.
    #[default]
    Wait,
    /// It fails. The guest sees an I/O error, which programs that do not flush what they write never hear of.
    Fail,
}

/// Whether this can be a disk's id.
pub fn is_disk_id(id: &str) -> bool {
    (1..=MAX_DISK_ID_LEN).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
}

fn one() -> u8 {
    1
}

/// Checks what the types can't say. `spares` are the names of the empty slots.
pub(super) fn validate(
    disks: &[DiskConfig],
    spares: impl Iterator<Item = String>,
    vcpus: u8,
) -> Result<(), DiskConfigError> {
    let mut ids: HashSet<_> = spares.collect();
    for disk in disks {
        let id = &disk.id;
        if !is_disk_id(id) {
            return Err(DiskConfigError::Id(id.clone()));
        }
        if !ids.insert(id.clone()) {
            return Err(DiskConfigError::DuplicateId(id.clone()));
        }
        if !(1..=vcpus).contains(&disk.queues) {
            return Err(DiskConfigError::Queues { id: id.clone(), queues: disk.queues });
        }
        disk.limit.validate().map_err(|source| DiskConfigError::Limit { id: id.clone(), source })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(id: &str) -> DiskConfig {
        DiskConfig::new(id, "/d", false)
    }

    #[test]
    fn ids_are_checked() {
        let check = |ids: &[&str]| {
            let disks: Vec<_> = ids.iter().map(|id| disk(id)).collect();
            validate(&disks, ["spare0".to_owned()].into_iter(), 1)
        };
        assert_eq!(check(&["a", &"twenty-bytes-of-id-xx"[..20]]), Ok(()));
        for bad in ["", "twenty-one-bytes-of-i", "a b", "ä"] {
            assert_eq!(check(&[bad]), Err(DiskConfigError::Id(bad.into())));
        }
        assert_eq!(check(&["a", "b", "a"]), Err(DiskConfigError::DuplicateId("a".into())));
        assert_eq!(check(&["spare0"]), Err(DiskConfigError::DuplicateId("spare0".into())));
    }

    #[test]
    fn queues_and_limits_are_checked() {
        let check = |disk| validate(&[disk], std::iter::empty(), 2);
        for queues in [0, 3] {
            let error = DiskConfigError::Queues { id: "a".into(), queues };
            assert_eq!(check(DiskConfig { queues, ..disk("a") }), Err(error));
        }
        assert_eq!(check(DiskConfig { queues: 2, ..disk("a") }), Ok(()));
        let ops = Some(crate::rate_limit::BucketConfig { size: 0, burst: 0, refill_ms: 1 });
        let limited = DiskConfig { limit: RateLimit { bytes: None, ops }, ..disk("a") };
        assert!(matches!(check(limited), Err(DiskConfigError::Limit { .. })));
    }

    #[test]
    fn a_disk_is_raw_and_waits_for_room_unless_told_otherwise() {
        let json = |extra: &str| {
            let text = format!(r#"{{"id":"a","path":"/d","read_only":false{extra}}}"#);
            serde_json::from_str::<DiskConfig>(&text).map_err(|error| error.to_string())
        };
        assert_eq!(json(""), Ok(disk("a")));
        assert_eq!(json(r#","format":"raw","when_full":"wait","queues":1"#), Ok(disk("a")));
        assert_eq!(json(r#","when_full":"fail""#), Ok(DiskConfig { when_full: WhenFull::Fail, ..disk("a") }));
        let error = json(r#","format":"qcow2""#).unwrap_err();
        assert!(error.contains("unknown variant `qcow2`, expected `raw`"), "{error}");
    }
}
