//! The control socket: a unix stream on which each line is a JSON object. One line asks, one line answers.
//!
//! | ask | answer |
//! |---|---|
//! | `{"op":"state"}` | `{"ok":{...}}` with a [`State`] |
//! | `{"op":"metrics"}` | `{"ok":{...}}` with [`crate::counters::Counters`] |
//! | `{"op":"metrics","format":"prometheus"}` | `{"ok":"..."}` with the same as [Prometheus text](crate::metrics::prometheus) |
//! | `{"op":"pause"}` | `{"ok":{}}` when no vCPU runs any more |
//! | `{"op":"resume"}` | `{"ok":{}}` |
//! | `{"op":"balloon"}` | `{"ok":{...}}` with a [`BalloonState`](crate::virtio::balloon::BalloonState), and the guest is asked for new statistics |
//! | `{"op":"set_balloon","target_mib":64}` | `{"ok":{}}`, and the guest is asked to give up so much memory in all |
//! | `{"op":"set_net_limit","id":"eth0","rx":{...},"tx":{...}}` | `{"ok":{}}`; the limits are [`RateLimit`]s, `{}` for none, and left as they are where left out |
//! | `{"op":"attach_net","id":"eth1","mac":"02:00:00:00:00:02"}`, also with `mtu`, `limit_rx` and `limit_tx`, and a tap's descriptor passed along | `{"ok":{"slot":"sparenet0","device":"4K@0xd0003000:8"}}`: the slot has this interface now, for good |
//! | `{"op":"attach_disk","id":"data","path":"/p","read_only":false}`, also with a `limit` | `{"ok":{"slot":"spare0","device":"4K@0xd0002000:7"}}`: the slot has a disk with this serial number now |
//! | `{"op":"detach_disk","id":"data"}` | `{"ok":{}}` when the disk's file is closed |
//! | `{"op":"set_disk_limit","id":"data","limit":{...}}` | `{"ok":{}}` |
//! | `{"op":"retry_disks"}` | `{"ok":{}}`, and all disks that wait for room on the host's file system try again at once |
//! | `{"op":"shutdown"}` | `{"ok":{}}`, and the VM ends at once |
//!
//! What is wrong is answered with `{"error":"..."}`. Instead of naming a disk's path, an open descriptor of it may be passed
//! along with the line (SCM_RIGHTS), for a VMM that can open no files; earlier lines of the connection must have been
//! answered by then.

use std::path::PathBuf;

use husk_base::Mac;
use serde::{Deserialize, Serialize};

use crate::rate_limit::RateLimit;

mod receive;
mod server;
#[cfg(any(test, fuzzing))]
pub(crate) use server::fuzz;
pub(crate) use server::to_line;

pub use server::{MAX_CONNECTIONS, Progress, Server};

/// Most bytes of a line.
pub const MAX_LINE: usize = 4096;

/// What is asked.
// Braces make fields that are not known errors, where there are no fields as well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Tell the state.
    State {},
    /// Tell the counters.
    Metrics {
        /// In which form.
        #[serde(default)]
        format: MetricsFormat,
    },
    /// Stop all vCPUs.
    Pause {},
    /// Let all vCPUs go on.
    Resume {},
    /// Tell of the balloon.
    Balloon {},
    /// Ask the guest to give up memory.
    SetBalloon {
        /// How much in all, in MiB.
        target_mib: u32,
    },
    /// Change a network interface's rate limits.
    SetNetLimit {
        /// The interface.
        id: String,
        /// Of what the guest receives.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rx: Option<RateLimit>,
        /// Of what the guest sends.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tx: Option<RateLimit>,
    },
    /// Put a network interface into a spare slot. Its tap's descriptor is passed along: one of `IFF_TAP`, `IFF_NO_PI` and
    /// `IFF_VNET_HDR`.
    AttachNet {
        /// What it is called, as of [`crate::config::NetConfig`]; so for all others.
        id: String,
        /// The guest's address.
        mac: Mac,
        /// Most bytes of a packet.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mtu: Option<u16>,
        /// Of what the guest receives.
        #[serde(default)]
        limit_rx: RateLimit,
        /// Of what the guest sends.
        #[serde(default)]
        limit_tx: RateLimit,
    },
    /// Put a disk into a spare slot.
    AttachDisk {
        /// Its serial number, as of [`crate::config::DiskConfig`].
        id: String,
        /// Where it is; a descriptor is passed if this is left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<PathBuf>,
        /// Whether writes are refused.
        read_only: bool,
        /// How much it may do.
        #[serde(default)]
        limit: RateLimit,
    },
    /// Take a disk out of its slot.
    DetachDisk {
        /// Its serial number.
        id: String,
    },
    /// Change how much a disk may do.
    SetDiskLimit {
        /// Its serial number.
        id: String,
        /// No limit where it has none.
        limit: RateLimit,
    },
    /// Have all disks that wait for room on the host's file system try again at once.
    RetryDisks {},
    /// End the VM at once.
    Shutdown {},
}

/// The form of the counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricsFormat {
    /// A JSON object.
    #[default]
    Json,
    /// A string of Prometheus text.
    Prometheus,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response<T> {
    /// It was done.
    #[serde(rename = "ok")]
    Ok(T),
    /// It was not, and why.
    #[serde(rename = "error")]
    Error(String),
}

/// Where a disk or a network interface was attached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// The slot. A disk's counters are found by its name, an interface's by the interface's id.
    pub slot: String,
    /// Where the slot's device is, as the parameter `device` of the guest's driver `virtio_mmio` takes it. The guest finds
    /// what was attached when that parameter has been set, once for each slot.
    pub device: String,
}

/// Nothing to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nothing {}

/// Whether the vCPUs run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// They run.
    Running,
    /// They were asked to pause.
    Paused,
}

/// The state of a VM. Times are nanoseconds of `CLOCK_MONOTONIC`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Whether the vCPUs run.
    pub status: Status,
    /// How many vCPUs there are.
    pub vcpus: u8,
    /// Size of the guest's memory in MiB.
    pub mem_size_mib: u32,
    /// When the VMM's `main` began.
    pub started_ns: u64,
    /// When the VM was complete.
    pub configured_ns: u64,
    /// When the first vCPU entered the guest; 0 before that.
    pub first_instruction_ns: u64,
    /// The disks that wait for room on the host's file system, in the order of their slots.
    #[serde(default)]
    pub stalled_disks: Vec<StalledDisk>,
}

/// A disk that waits: the guest's requests to write stay unanswered until the host has room for them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StalledDisk {
    /// Its id.
    pub id: String,
    /// What it waits for.
    pub reason: StallReason,
}

/// Why the host's file system has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StallReason {
    /// It is full.
    NoSpace,
    /// The quota of the VMM's user or of the directory is used up.
    Quota,
}

impl std::fmt::Display for StallReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NoSpace => "no space left on its host file system",
            Self::Quota => "the quota on its host file system is used up",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rate_limit::BucketConfig;

    #[test]
    fn limits_are_set_removed_or_left_alone() {
        let line = r#"{"op":"set_net_limit","id":"eth0","rx":{"ops":{"size":5,"refill_ms":10}},"tx":{}}"#;
        let ops = Some(BucketConfig { size: 5, burst: 0, refill_ms: 10 });
        let request = Request::SetNetLimit {
            id: "eth0".into(),
            rx: Some(RateLimit { ops, bytes: None }),
            tx: Some(RateLimit::default()),
        };
        assert_eq!(serde_json::from_str::<Request>(line).unwrap(), request);
        let left_out = serde_json::to_string(&Request::SetNetLimit { id: "a".into(), rx: None, tx: None });
        assert_eq!(left_out.unwrap(), r#"{"op":"set_net_limit","id":"a"}"#);
    }
}
