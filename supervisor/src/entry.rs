//! What the supervisor keeps of a container and of a process.

use std::sync::Arc;

use husk_sandbox::{
    pod::state,
    store::{Config, State},
};
use oci_spec::runtime::Spec;
use tokio::sync::Notify;

use crate::hub::{Hub, Log};

/// A pod's containers.
pub(crate) type Containers = state::Containers<Entry, ProcessEntry>;

/// A container.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) config: Config,
    /// As its record has it.
    pub(crate) state: State,
    /// Its spec, once it was made: what execs begin with.
    pub(crate) spec: Option<Spec>,
    pub(crate) log: Log,
    /// A client asked for its end: no restart policy applies.
    pub(crate) stopping: bool,
    /// The client that asked for its end starts it again.
    pub(crate) starts_again: bool,
    /// Wakes the wait before a restart.
    pub(crate) stop: Arc<Notify>,
    /// It has ended for good.
    pub(crate) stopped: Arc<Notify>,
    /// It is removed at its end: its record is not written any more.
    pub(crate) removed: bool,
    /// When its stages were reached, if that is wanted.
    pub(crate) timeline: Vec<(&'static str, u64)>,
    pub(crate) wants_timeline: bool,
}

/// A process.
#[derive(Debug)]
pub(crate) struct ProcessEntry {
    pub(crate) hub: Arc<Hub>,
    /// An exec that does not run yet.
    pub(crate) exec: Option<husk_protocol::pod::ExecRequest>,
    /// Its number in the VM; 0 before it runs.
    pub(crate) pid: u32,
}

impl ProcessEntry {
    pub(crate) fn new(stdin_once: bool, exec: Option<husk_protocol::pod::ExecRequest>) -> Self {
        Self { hub: Hub::new(stdin_once), exec, pid: 0 }
    }
}

/// A container that does not run.
pub(crate) fn container(config: Config, state: State) -> state::Container<Entry, ProcessEntry> {
    let stdin_once = config.options.stdin_once;
    let own = Entry {
        config,
        state,
        spec: None,
        log: Log::default(),
        stopping: false,
        starts_again: false,
        stop: Arc::default(),
        stopped: Arc::default(),
        removed: false,
        timeline: Vec::new(),
        wants_timeline: false,
    };
    state::Container::new(own, ProcessEntry::new(stdin_once, None))
}
