//! The control socket: a unix stream on which each line is a JSON object. One line asks, one line answers.
//!
//! | ask | answer |
//! |---|---|
//! | `{"op":"state"}` | `{"ok":{...}}` with a [`State`] |
//! | `{"op":"metrics"}` | `{"ok":{...}}` with [`crate::metrics::Counters`] |
//! | `{"op":"metrics","format":"prometheus"}` | `{"ok":"..."}` with the same as [Prometheus text](crate::metrics::prometheus) |
//! | `{"op":"pause"}` | `{"ok":{}}` when no vCPU runs any more |
//! | `{"op":"resume"}` | `{"ok":{}}` |
//! | `{"op":"balloon"}` | `{"ok":{...}}` with a [`BalloonState`](crate::virtio::balloon::BalloonState), and the guest is asked for new statistics |
//! | `{"op":"set_balloon","target_mib":64}` | `{"ok":{}}`, and the guest is asked to give up so much memory in all |
//! | `{"op":"shutdown"}` | `{"ok":{}}`, and the VM ends at once |
//!
//! What is wrong is answered with `{"error":"..."}`.

use serde::{Deserialize, Serialize};

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
}
