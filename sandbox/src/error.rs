//! What can go wrong in a sandbox, and the exit code that each failure has.

use std::{io, path::PathBuf};

use husk_base::{IoError, dirs::PrivateDirError, json_file::JsonFileError, socket::SocketError};
use husk_protocol::{agent::Reason, failure};

use crate::{sizing::SizeError, untrusted};

/// Result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a sandbox could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file system operation failed.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried, as a verb: "create", "lock", ...
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A piece of husk itself is not where it should be.
    #[error("{what} not found (looked in {looked_in}): run `make build`, or install husk completely")]
    AssetMissing {
        /// Which piece.
        what: &'static str,
        /// Where it was looked for.
        looked_in: String,
    },
    /// A program could not be run.
    #[error("cannot run {program}: {hint}")]
    Spawn {
        /// Which program.
        program: String,
        /// What to do.
        hint: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// mke2fs refused.
    #[error("cannot format disk {}: mke2fs said: {stderr}", path.display())]
    Format {
        /// The disk.
        path: PathBuf,
        /// What mke2fs printed.
        stderr: String,
    },
    /// The VM ended before its agent answered.
    #[error("the virtual machine ended before its agent answered: {reason}")]
    VmDied {
        /// What the VMM said, and the console's last lines.
        reason: String,
    },
    /// The agent did not answer in time.
    #[error("the agent in the virtual machine did not answer within {seconds} s{console}")]
    AgentTimeout {
        /// The limit, in seconds.
        seconds: u64,
        /// The console's last lines.
        console: String,
    },
    /// The VM ended while the container ran.
    #[error("the virtual machine ended unexpectedly: {reason}")]
    VmLost {
        /// What the VMM said, and the console's last lines.
        reason: String,
    },
    /// A pod's supervisor ended before it answered.
    #[error("the pod's supervisor ended unexpectedly: {}", if .said.is_empty() { "it said nothing" } else { .said.as_str() })]
    SupervisorDied {
        /// What it has written to its log.
        said: String,
    },
    /// The agent refused or failed.
    #[error("{0}")]
    Agent(String),
    /// There is no such container or process.
    #[error("{0}")]
    NotFound(String),
    /// There is one of this id already.
    #[error("{0}")]
    AlreadyExists(String),
    /// It is in a state in which this can't be done.
    #[error("{0}")]
    WrongState(String),
    /// The container's program does not exist.
    #[error("{0}")]
    ExecutableNotFound(String),
    /// The container's program can't be executed.
    #[error("{0}")]
    ExecutableNotPermitted(String),
    /// A layer is damaged or breaks the image layer rules.
    #[error("cannot unpack image {image}: {reason}")]
    BadLayer {
        /// Which image.
        image: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The image is larger than a disk may be.
    #[error(
        "cannot unpack image {image}: it does not fit into {limit_mib} MiB ({reason}); raise --storage-size if you trust it"
    )]
    ImageTooLarge {
        /// Which image.
        image: String,
        /// The limit in MiB.
        limit_mib: u64,
        /// What the guest saw.
        reason: String,
    },
    /// The host's own disk is full.
    #[error("no space left on the file system of {}: free some and try again", path.display())]
    HostDiskFull {
        /// Where space is needed.
        path: PathBuf,
    },
    /// The name is taken by another container.
    #[error(
        "Conflict. The container name \"/{name}\" is already in use by container \"{id}\". You have to remove (or rename) that container to be able to reuse that name."
    )]
    NameInUse {
        /// The name.
        name: String,
        /// The container that has it.
        id: String,
    },
    /// There is no such container.
    #[error("No such container: {name}")]
    NoContainer {
        /// Its name, or what its id begins with.
        name: String,
    },
    /// Several containers' ids begin so.
    #[error("multiple IDs found with provided prefix: {prefix}")]
    AmbiguousId {
        /// The beginning.
        prefix: String,
    },
    /// A container's record was written by a newer husk.
    #[error("{} is of version {version}, which this husk does not know: use the newer husk", path.display())]
    NewerRecord {
        /// The record.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// A record or a configuration can't be read or written.
    #[error(transparent)]
    Json(JsonFileError),
    /// A directory is not this user's alone.
    #[error(transparent)]
    PrivateDir(PrivateDirError),
    /// A socket can't be made or reached.
    #[error(transparent)]
    Socket(SocketError),
    /// A network of husk's own can't be used.
    #[error(transparent)]
    Network(#[from] husk_network::Error),
    /// A CNI network can't be joined or left.
    #[error(transparent)]
    Cni(#[from] husk_network::cni::Error),
    /// A network namespace can't be made, entered or removed.
    #[error(transparent)]
    Netns(#[from] husk_network::netns::Error),
    /// The interfaces of a network namespace can't be connected.
    #[error(transparent)]
    Takeover(#[from] husk_network::takeover::Error),
    /// A running VM can't be given an interface.
    #[error("cannot give the virtual machine a network interface")]
    AttachNic {
        /// What its VMM said.
        #[source]
        source: husk_vmm::client::ClientError,
    },
    /// Ports of the host can't be claimed.
    #[error(transparent)]
    Ports(#[from] husk_network::publish::BindError),
    /// What a container shall know of name servers makes no sense.
    #[error(transparent)]
    Resolvers(#[from] husk_network::names::resolvers::ResolversError),
    /// What a container shall know of other hosts makes no sense.
    #[error(transparent)]
    Hosts(#[from] husk_network::names::hosts::HostsError),
    /// Other containers' names can't be followed.
    #[error(transparent)]
    Names(#[from] husk_network::names::table::TableError),
    /// Something can't be mounted for a container.
    #[error("cannot mount {} on {}", source_path.display(), on.display())]
    Mount {
        /// What.
        source_path: PathBuf,
        /// Where.
        on: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The source of a bind mount is nothing that a VM can see.
    #[error(
        "cannot mount {} on {}: it is {kind}, which does not reach into a virtual machine; mount a directory or a file", source_path.display(), on.display()
    )]
    NotShareable {
        /// What.
        source_path: PathBuf,
        /// Where.
        on: PathBuf,
        /// Which kind of file it is, with an article.
        kind: &'static str,
    },
    /// A running VM can't be given a disk.
    #[error("cannot give the virtual machine the disk {}", path.display())]
    AttachDisk {
        /// The disk.
        path: PathBuf,
        /// What its VMM said.
        #[source]
        source: husk_vmm::client::ClientError,
    },
    /// A disk can't be taken from a running VM.
    #[error("cannot take a container's disk from the virtual machine")]
    DetachDisk {
        /// What its VMM said.
        #[source]
        source: husk_vmm::client::ClientError,
    },
    /// A VM can't have the size that an option asks for.
    #[error(transparent)]
    Size(#[from] SizeError),
    /// An option has a value that can't be used.
    #[error("{0}")]
    InvalidOption(String),
    /// The configuration makes no sense.
    #[error("the configuration {} is wrong: {reason}", path.display())]
    Config {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The image can't be run as asked.
    #[error("image {image}: {reason}")]
    InvalidImage {
        /// Which image.
        image: String,
        /// Why not.
        reason: String,
    },
}

impl Error {
    /// An [`Error::Io`] made from its parts, for `map_err`.
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| match source.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => Self::HostDiskFull { path },
            _ => Self::Io { what, path, source },
        }
    }

    /// The error for a reason that another process gives, and its text.
    pub fn of_reason(reason: Reason, text: String) -> Self {
        match reason {
            Reason::EXECUTABLE_NOT_FOUND => Self::ExecutableNotFound(text),
            Reason::EXECUTABLE_NOT_PERMITTED => Self::ExecutableNotPermitted(text),
            Reason::NO_SUCH_CONTAINER | Reason::NO_SUCH_PROCESS => Self::NotFound(text),
            Reason::ALREADY_EXISTS => Self::AlreadyExists(text),
            Reason::WRONG_STATE => Self::WrongState(text),
            Reason::UNSPECIFIED
            | Reason::INVALID_REQUEST
            | Reason::NO_SUCH_USER
            | Reason::NO_SUCH_DEVICE
            | Reason::NO_SUCH_SETTING
            | Reason::DAMAGED_LAYER
            | Reason::DISK_FULL
            | Reason::OUT_OF_INODES => Self::Agent(text),
        }
    }

    /// Docker's exit code for this failure: 126 can't execute, 127 not found, 125 husk's own.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::ExecutableNotPermitted(_) => 126,
            Self::ExecutableNotFound(_) => 127,
            _ => 125,
        }
    }
}

impl From<IoError> for Error {
    fn from(IoError { what, path, source }: IoError) -> Self {
        Self::io(what, path)(source)
    }
}

impl From<JsonFileError> for Error {
    fn from(error: JsonFileError) -> Self {
        match error {
            JsonFileError::Io(error) => error.into(),
            other => Self::Json(other),
        }
    }
}

impl From<PrivateDirError> for Error {
    fn from(error: PrivateDirError) -> Self {
        match error {
            PrivateDirError::Io(error) => error.into(),
            other => Self::PrivateDir(other),
        }
    }
}

impl From<SocketError> for Error {
    fn from(error: SocketError) -> Self {
        match error {
            SocketError::Io(error) => error.into(),
            other => Self::Socket(other),
        }
    }
}

/// Most bytes of a message of the agent's.
const MAX_MESSAGE: usize = 1024;

impl From<ttrpc::Error> for Error {
    fn from(error: ttrpc::Error) -> Self {
        let reason = failure::reason(&error);
        let text = match error {
            ttrpc::Error::RpcStatus(status) => untrusted::line(&status.message, MAX_MESSAGE),
            other => {
                let other = untrusted::line(&other.to_string(), MAX_MESSAGE);
                format!("the agent in the virtual machine does not answer: {other}")
            }
        };
        Self::of_reason(reason, text)
    }
}

impl From<Error> for ttrpc::Error {
    /// For a front end's own API: what [`Error::of_reason`] makes an error of this kind of again.
    fn from(error: Error) -> Self {
        let reason = match &error {
            Error::ExecutableNotFound(_) => Reason::EXECUTABLE_NOT_FOUND,
            Error::ExecutableNotPermitted(_) => Reason::EXECUTABLE_NOT_PERMITTED,
            Error::NotFound(_) => Reason::NO_SUCH_PROCESS,
            Error::NoContainer { .. } => Reason::NO_SUCH_CONTAINER,
            Error::AlreadyExists(_) | Error::NameInUse { .. } => Reason::ALREADY_EXISTS,
            Error::WrongState(_) => Reason::WRONG_STATE,
            Error::InvalidOption(_) | Error::Size(_) => Reason::INVALID_REQUEST,
            _ => Reason::UNSPECIFIED,
        };
        failure::error(reason, husk_base::chain::text(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent_says(reason: Reason, text: &str) -> Error {
        failure::error(reason, text).into()
    }

    #[test]
    fn exit_codes_are_dockers() {
        assert_eq!(agent_says(Reason::EXECUTABLE_NOT_FOUND, "nope").exit_code(), 127);
        assert_eq!(agent_says(Reason::EXECUTABLE_NOT_PERMITTED, "/etc").exit_code(), 126);
        assert_eq!(agent_says(Reason::NO_SUCH_USER, "unable to find user x").exit_code(), 125);
        // The words alone decide nothing.
        assert_eq!(agent_says(Reason::UNSPECIFIED, "executable not found: x").exit_code(), 125);
        assert_eq!(Error::InvalidOption(String::new()).exit_code(), 125);
    }

    #[test]
    fn reasons_become_kinds_of_errors() {
        let error = |reason| agent_says(reason, "x");
        for reason in [Reason::NO_SUCH_CONTAINER, Reason::NO_SUCH_PROCESS] {
            assert!(matches!(error(reason), Error::NotFound(text) if text == "x"));
        }
        assert!(matches!(error(Reason::ALREADY_EXISTS), Error::AlreadyExists(_)));
        assert!(matches!(error(Reason::WRONG_STATE), Error::WrongState(_)));
        assert!(matches!(error(Reason::NO_SUCH_DEVICE), Error::Agent(_)));
    }

    #[test]
    fn what_a_guest_says_is_cut_and_cleaned() {
        let Error::NotFound(text) = agent_says(Reason::NO_SUCH_CONTAINER, &"\x1b[2J\n".repeat(1 << 20))
        else {
            panic!("another kind of error");
        };
        assert!(text.len() <= MAX_MESSAGE && !text.contains(char::is_control), "{text:?}");
        let silent = Error::from(ttrpc::Error::Others("\x1b".repeat(5000))).to_string();
        assert!(silent.len() < 2 * MAX_MESSAGE && !silent.contains(char::is_control), "{silent:?}");
    }

    #[test]
    fn a_full_disk_has_its_own_error() {
        let error = Error::io("write", "/x")(io::Error::from_raw_os_error(libc::ENOSPC));
        assert!(matches!(error, Error::HostDiskFull { .. }));
    }
}
