//! What can be wrong with a bundle, or with what its spec asks of the host.

use std::{io, path::PathBuf, process::ExitStatus};

use husk_base::IoError;

use crate::sizing::SizeError;

/// Why what a bundle asks for could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file system operation failed.
    #[error(transparent)]
    Io(#[from] IoError),
    /// The bundle has no spec.
    #[error("there is no {}", path.display())]
    NoSpec {
        /// Where it should be.
        path: PathBuf,
    },
    /// The bundle's spec is malformed.
    #[error("{} is no OCI runtime spec", path.display())]
    NotASpec {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// An annotation is set that the configuration does not allow.
    #[error(
        "annotation {name} may not be set here: /etc/husk/config.toml lists those that may, as pod.annotations"
    )]
    AnnotationNotAllowed {
        /// Which annotation.
        name: &'static str,
    },
    /// An annotation's value is not a number.
    #[error("annotation {name}: {value:?} is no number above 0")]
    AnnotationNotANumber {
        /// Which annotation.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// The spec asks for the host's network.
    #[error(
        "the pod wants the host's own network (hostNetwork, --net-host, --network host), which a virtual machine can't have: use another runtime for it, or a network of its own"
    )]
    HostNetwork,
    /// The spec asks for another namespace of the host.
    #[error(
        "the container wants {what} ({options}), which a virtual machine can't have: use another runtime for it"
    )]
    HostNamespace {
        /// What is in that namespace.
        what: &'static str,
        /// The settings by which users ask for it.
        options: &'static str,
    },
    /// The spec asks for a VM of an impossible size.
    #[error("{0} for a pod")]
    Size(SizeError),
    /// The thread that keeps a network namespace ended before it said a word.
    #[error("cannot enter the network namespace: its thread has ended")]
    AnchorLost,
    /// A hook failed.
    #[error("the {kind} hook {} failed", path.display())]
    Hook {
        /// Which kind of hook.
        kind: &'static str,
        /// Its program.
        path: PathBuf,
        /// How it failed.
        #[source]
        source: HookFailure,
    },
}

/// How a hook failed.
#[derive(Debug, thiserror::Error)]
pub enum HookFailure {
    /// Its path is relative, which the runtime-spec forbids.
    #[error("its path is not absolute")]
    RelativePath,
    /// The container's state, which it receives, can't be written.
    #[error("the container's state can't be written")]
    State(#[source] serde_json::Error),
    /// The container's root can't be shown to it, or it can't be started there.
    #[error(transparent)]
    View(Box<crate::Error>),
    /// It can't be started, or waited for.
    #[error(transparent)]
    Run(#[from] io::Error),
    /// It ran for too long.
    #[error("it did not end within its {seconds} s")]
    Timeout {
        /// The spec's limit, in seconds.
        seconds: u64,
    },
    /// It ended with a failure.
    #[error("{status}{}{said}", if .said.is_empty() { "" } else { ": " })]
    Exit {
        /// How it ended.
        status: ExitStatus,
        /// What it printed, on standard error or else on standard output.
        said: String,
    },
}

impl From<crate::Error> for HookFailure {
    fn from(error: crate::Error) -> Self {
        Self::View(Box::new(error))
    }
}
