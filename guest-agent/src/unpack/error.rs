//! What can go wrong, and the reason that the host receives.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use husk_protocol::agent;
use rustix::fs::fstatvfs;
use rustix::io::Errno;
use thiserror::Error;

/// Longest part of an entry's path that an error shows, in bytes.
const SHOWN_PATH: usize = 256;

/// Failure to unpack an image.
#[derive(Debug, Error)]
pub(crate) enum UnpackError {
    /// One of the layers could not be applied.
    #[error("layer {number} of {total}: {error}")]
    Layer {
        /// Position of the layer, counted from 1 (the lowest).
        number: usize,
        /// Number of layers.
        total: usize,
        /// What was wrong.
        error: LayerError,
    },
    /// The target disk could not be prepared or finished.
    #[error("can't {action} the target disk {}: {errno}", device.display())]
    Target {
        /// What was tried, as a verb.
        action: &'static str,
        /// The disk.
        device: PathBuf,
        /// What the kernel said.
        errno: Errno,
    },
}

impl UnpackError {
    /// The API's reason.
    pub(crate) fn api_reason(&self) -> agent::Reason {
        match self {
            Self::Layer { error, .. } => error.api_reason(),
            Self::Target { errno, .. } if is_full(*errno) => agent::Reason::DISK_FULL,
            Self::Target { .. } => agent::Reason::UNSPECIFIED,
        }
    }
}

/// Failure to apply one layer.
#[derive(Debug, Error)]
#[error("{}{reason}", entry.as_ref().map(|e| format!("entry \"{e}\": ")).unwrap_or_default())]
pub(crate) struct LayerError {
    /// Path of the entry at fault, escaped and shortened for display, if it is one entry's fault.
    pub(crate) entry: Option<String>,
    /// What was wrong.
    pub(crate) reason: Reason,
}

impl LayerError {
    /// An error at the entry called `path` in the tar.
    pub(super) fn at(path: &[u8], reason: Reason) -> Self {
        let shown = &path[..path.len().min(SHOWN_PATH)];
        let dots = if shown.len() < path.len() { "..." } else { "" };
        Self { entry: Some(format!("{}{dots}", shown.escape_ascii())), reason }
    }

    /// The API's reason.
    pub(crate) fn api_reason(&self) -> agent::Reason {
        match &self.reason {
            Reason::Malformed { .. } | Reason::Rule(_) | Reason::Truncated | Reason::Digest { .. } => {
                agent::Reason::DAMAGED_LAYER
            }
            Reason::DiffId => agent::Reason::INVALID_REQUEST,
            // An errno comes from the device; anything else was made up by a decompressor.
            Reason::Stream(error) if error.raw_os_error().is_some() => agent::Reason::UNSPECIFIED,
            Reason::Stream(_) => agent::Reason::DAMAGED_LAYER,
            Reason::Inodes { .. } => agent::Reason::OUT_OF_INODES,
            Reason::Open(_) => agent::Reason::UNSPECIFIED,
            Reason::System { errno, .. } => reason_of(*errno),
        }
    }
}

impl From<Reason> for LayerError {
    fn from(reason: Reason) -> Self {
        Self { entry: None, reason }
    }
}

/// Why a layer could not be applied.
#[derive(Debug, Error)]
pub(crate) enum Reason {
    /// The bytes are not a tar.
    #[error("damaged tar: {what} (header at byte {offset})")]
    Malformed {
        /// What is wrong with it.
        what: &'static str,
        /// Where the header in question begins, in the uncompressed stream.
        offset: u64,
    },
    /// The tar is well formed, but asks for what no layer may ask for.
    #[error("{0}")]
    Rule(&'static str),
    /// The stream ends in the middle of an entry.
    #[error("the layer ends too early")]
    Truncated,
    /// The layer can't be read or decompressed.
    #[error("can't read the layer: {0}")]
    Stream(io::Error),
    /// The layer's disk can't be opened.
    #[error("can't open the layer's disk: {0}")]
    Open(io::Error),
    /// The contents are not what the image says they are.
    #[error("digest of the contents is sha256:{actual}, the image says sha256:{expected}")]
    Digest {
        /// Digest in the image's config, in hexadecimal.
        expected: String,
        /// Digest of what was there.
        actual: String,
    },
    /// The diff id is not a SHA-256 digest.
    #[error("diff id must be \"sha256:\" and 64 lower-case hexadecimal digits")]
    DiffId,
    /// The target has no inode left, and perhaps space.
    #[error("can't {action}: the disk has no inodes left, the image has too many files for it")]
    Inodes {
        /// What was tried, as a verb.
        action: &'static str,
    },
    /// A system call on the target failed.
    #[error("can't {action}: {errno}")]
    System {
        /// What was tried, as a verb.
        action: &'static str,
        /// What the kernel said.
        errno: Errno,
    },
}

impl Reason {
    /// Names the system call's purpose; for `map_err`.
    pub(super) fn system(action: &'static str) -> impl Fn(Errno) -> Self {
        move |errno| Self::System { action, errno }
    }

    /// Tells a target without inodes from one without space: the kernel has one errno for both.
    pub(super) fn on(self, target: BorrowedFd<'_>) -> Self {
        match self {
            Self::System { action, errno: Errno::NOSPC }
                if fstatvfs(target).is_ok_and(|usage| usage.f_files > 0 && usage.f_ffree == 0) =>
            {
                Self::Inodes { action }
            }
            other => other,
        }
    }

    /// Sorts a reader's errors.
    pub(super) fn stream(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof { Self::Truncated } else { Self::Stream(error) }
    }
}

fn is_full(errno: Errno) -> bool {
    matches!(errno, Errno::NOSPC | Errno::DQUOT | Errno::FBIG)
}

/// A layer chooses names, types and values; the errors it can provoke by that are the layer's fault.
fn reason_of(errno: Errno) -> agent::Reason {
    match errno {
        _ if is_full(errno) => agent::Reason::DISK_FULL,
        Errno::NAMETOOLONG
        | Errno::LOOP
        | Errno::NOTDIR
        | Errno::ISDIR
        | Errno::NOENT
        | Errno::EXIST
        | Errno::INVAL
        | Errno::MLINK
        | Errno::RANGE
        | Errno::TOOBIG => agent::Reason::DAMAGED_LAYER,
        _ => agent::Reason::UNSPECIFIED,
    }
}
