//! What can go wrong with networks of husk's own.

use std::{io, path::PathBuf};

use husk_base::{IoError, dirs::PrivateDirError, json_file::JsonFileError, netlink::Failed};

/// Result of the functions about husk's own networks.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a network could not be made, joined or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file system operation failed.
    #[error(transparent)]
    Io(#[from] IoError),
    /// A directory can't be made, or belongs to somebody else.
    #[error(transparent)]
    Directory(#[from] PrivateDirError),
    /// A network's definition or its leases can't be read or written.
    #[error(transparent)]
    State(#[from] JsonFileError),
    /// The kernel refused a link, an address or a rule.
    #[error("cannot {what} of {on}{words}")]
    Kernel {
        /// What was tried: "create bridge".
        what: &'static str,
        /// For which network or interface.
        on: String,
        /// The kernel's own words, after a colon; or empty.
        words: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A name that no network can have.
    #[error(
        "{0:?} cannot name a network: use 1 to 128 letters, digits, '_', '.' and '-', beginning with a letter or digit"
    )]
    InvalidName(String),
    /// A name that means something else.
    #[error("{0:?} cannot name a network: it has a meaning of its own for --network")]
    ReservedName(String),
    /// A network has this name.
    #[error("a network named {0:?} exists; remove it first or choose another name")]
    NameInUse(String),
    /// No network has this name or id.
    #[error("no network is named {0:?} or has such an id; see `husk network ls`")]
    NotFound(String),
    /// An id's beginning that several networks have.
    #[error("{0:?} begins the ids of several networks; give more of the id, or the name")]
    Ambiguous(String),
    /// A subnet, gateway or MTU that can't be.
    #[error("{what} {value} cannot be used: {why}")]
    Unusable {
        /// Which setting: "subnet", "gateway", "MTU", "address", ...
        what: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// A subnet that is in use.
    #[error("subnet {subnet} overlaps {used} of {by}; choose another subnet")]
    Overlap {
        /// The subnet asked for.
        subnet: String,
        /// What it overlaps.
        used: String,
        /// Whose that is: a network or an interface of the host.
        by: String,
    },
    /// Every subnet of the pool overlaps something.
    #[error(
        "no subnet is free in 10.208.0.0/12: the host's routes and other networks take all of it; give one with --subnet"
    )]
    NoSubnet,
    /// Every address of a network is taken.
    #[error(
        "network {network} has no free address in {subnet}; stop a container, or make a network with a larger subnet"
    )]
    NoAddress {
        /// The network.
        network: String,
        /// Its subnet.
        subnet: String,
    },
    /// An address that a container has.
    #[error("{what} {value} is in use on network {network} by {by}; choose another")]
    Taken {
        /// "address", "MAC address" or "interface".
        what: &'static str,
        /// Which.
        value: String,
        /// The network.
        network: String,
        /// Who has it.
        by: String,
    },
    /// A network that containers use.
    #[error("network {network} is in use by {by}; stop what uses it first")]
    InUse {
        /// The network.
        network: String,
        /// The containers.
        by: String,
    },
}

impl Error {
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let error = IoError::of(what, path);
        move |source: io::Error| Self::Io(error(source))
    }

    pub(crate) fn kernel(on: &str) -> impl FnOnce(Failed) -> Self {
        let on = on.to_owned();
        move |Failed { what, source, words, .. }| {
            let words = if words.is_empty() { words } else { format!(": {words}") };
            Self::Kernel { what, on, words, source }
        }
    }

    pub(crate) fn unusable(what: &'static str, value: impl ToString, why: impl Into<String>) -> Self {
        Self::Unusable { what, value: value.to_string(), why: why.into() }
    }
}
