//! What the shim keeps of a container and of a process.

use husk_sandbox::pod::state;

use crate::error::Error;

/// A pod's containers.
pub(crate) type Containers = state::Containers<Entry, ProcessEntry>;
/// A container.
pub(crate) type Container = state::Container<Entry, ProcessEntry>;

/// Where a process's streams go: paths of FIFOs or URIs; empty: nowhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stdio {
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) terminal: bool,
}

/// What a container is to its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// One that runs programs in the guest.
    Member,
    /// It stands for its pod, and has no process in the guest: a pause container.
    Pause,
    /// The pod itself, as the Sandbox API has it: containerd knows no task of this id, and hears of none.
    Sandbox,
}

/// A container.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) bundle: String,
    pub(crate) role: Role,
}

impl Entry {
    /// A container that is about to be made.
    pub(crate) fn container(bundle: String, role: Role, stdio: Stdio) -> Container {
        Container::new(Self { bundle, role }, ProcessEntry::new(stdio, None))
    }

    /// Whether it stands for its pod, or is it.
    pub(crate) fn is_sandbox(&self) -> bool {
        self.role != Role::Member
    }
}

/// A process.
#[derive(Debug)]
pub(crate) struct ProcessEntry {
    /// The number that containerd knows; 0 while an exec does not run.
    pub(crate) pid: u32,
    pub(crate) stdio: Stdio,
    /// Its input was closed, maybe before it ran.
    pub(crate) stdin_closed: bool,
    /// An exec is described by this (OCI runtime spec, `process`).
    pub(crate) spec: Option<oci_spec::runtime::Process>,
    /// The window that its terminal shall have once it runs, rows and columns.
    pub(crate) window: Option<(u32, u32)>,
}

impl ProcessEntry {
    /// One that does not run yet.
    pub(crate) fn new(stdio: Stdio, spec: Option<oci_spec::runtime::Process>) -> Self {
        Self { pid: 0, stdio, stdin_closed: false, spec, window: None }
    }
}

impl From<state::StateError> for Error {
    fn from(error: state::StateError) -> Self {
        let text = error.to_string();
        match error {
            state::StateError::NoContainer(_)
            | state::StateError::NoProcess(_)
            | state::StateError::Finished => Self::NotFound(text),
            state::StateError::ContainerExists(_) | state::StateError::ProcessExists(_) => {
                Self::AlreadyExists(text)
            }
            state::StateError::NoExecId => Self::Invalid(text),
            state::StateError::NotAllowed { .. } => Self::State(text),
        }
    }
}
