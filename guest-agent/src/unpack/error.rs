//! What can go wrong, and who is to blame for it.

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;
use thiserror::Error;

/// Longest part of an entry's path that an error shows, in bytes.
const SHOWN_PATH: usize = 256;

/// Whose fault an [`UnpackError`] is; the agent's API turns it into a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// The layer is damaged, or breaks the rules of tar or of OCI layers.
    DataLoss,
    /// The target disk is full.
    ResourceExhausted,
    /// A device, the file system or the agent failed.
    Internal,
    /// The caller asked for something meaningless.
    InvalidArgument,
}

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
    /// Whose fault it is.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Layer { error, .. } => error.code(),
            Self::Target { errno, .. } if is_full(*errno) => Code::ResourceExhausted,
            Self::Target { .. } => Code::Internal,
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

    /// Whose fault it is.
    pub(crate) fn code(&self) -> Code {
        match &self.reason {
            Reason::Malformed { .. } | Reason::Rule(_) | Reason::Truncated | Reason::Digest { .. } => {
                Code::DataLoss
            }
            Reason::DiffId => Code::InvalidArgument,
            // An errno comes from the device; anything else was made up by a decompressor.
            Reason::Stream(error) if error.raw_os_error().is_some() => Code::Internal,
            Reason::Stream(_) => Code::DataLoss,
            Reason::Open(_) => Code::Internal,
            Reason::System { errno, .. } => code_of(*errno),
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

    /// Sorts a reader's errors.
    pub(super) fn stream(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof { Self::Truncated } else { Self::Stream(error) }
    }
}

fn is_full(errno: Errno) -> bool {
    matches!(errno, Errno::NOSPC | Errno::DQUOT | Errno::FBIG)
}

/// A layer chooses names, types and values; the errors it can provoke by that are the layer's fault.
fn code_of(errno: Errno) -> Code {
    match errno {
        _ if is_full(errno) => Code::ResourceExhausted,
        Errno::NAMETOOLONG
        | Errno::LOOP
        | Errno::NOTDIR
        | Errno::ISDIR
        | Errno::NOENT
        | Errno::EXIST
        | Errno::INVAL
        | Errno::MLINK
        | Errno::RANGE
        | Errno::TOOBIG => Code::DataLoss,
        _ => Code::Internal,
    }
}
