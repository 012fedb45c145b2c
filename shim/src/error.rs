//! What can go wrong in the shim, and the code that containerd sees.

use std::{io, path::PathBuf};

use husk_base::{IoError, chain};
use husk_sandbox::{Error as Sandbox, oci::Error as Oci};
use ttrpc::Code;

/// Why a request could not be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A file system operation failed.
    #[error(transparent)]
    Io(#[from] IoError),
    /// The pod failed.
    #[error(transparent)]
    Sandbox(#[from] Sandbox),
    /// The bundle is damaged, or what its spec asks of the host can't be done.
    #[error(transparent)]
    Oci(#[from] Oci),
    /// The request, the spec or the configuration makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// There is no such container or process, or it has ended.
    #[error("{0}")]
    NotFound(String),
    /// The id is taken.
    #[error("{0}")]
    AlreadyExists(String),
    /// The container or process is in a state that does not allow it.
    #[error("{0}")]
    State(String),
    /// The pod is in a state that does not allow it.
    #[error("{0}")]
    FailedPrecondition(String),
    /// husk can't do that.
    #[error("{0}")]
    Unimplemented(String),
}

impl Error {
    /// An [`Error::Io`] made from its parts, for `map_err`.
    pub(crate) fn io<E: Into<io::Error>>(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(E) -> Self {
        let error = IoError::of(what, path);
        move |source| Self::Io(error(source))
    }

    /// An [`Error::Invalid`].
    pub(crate) fn invalid(text: impl Into<String>) -> Self {
        Self::Invalid(text.into())
    }

    fn code(&self) -> Code {
        match self {
            Self::Invalid(_)
            | Self::Oci(
                Oci::NotASpec { .. }
                | Oci::AnnotationNotAllowed { .. }
                | Oci::AnnotationNotANumber { .. }
                | Oci::HostNetwork
                | Oci::HostNamespace { .. }
                | Oci::Size(_),
            ) => Code::INVALID_ARGUMENT,
            Self::NotFound(_) | Self::Oci(Oci::NoSpec { .. }) | Self::Sandbox(Sandbox::NotFound(_)) => {
                Code::NOT_FOUND
            }
            Self::AlreadyExists(_) | Self::Sandbox(Sandbox::AlreadyExists(_)) => Code::ALREADY_EXISTS,
            Self::FailedPrecondition(_) => Code::FAILED_PRECONDITION,
            Self::Unimplemented(_) => Code::UNIMPLEMENTED,
            // As runc's shim: whatever is none of containerd's own kinds of errors.
            Self::State(_)
            | Self::Io(_)
            | Self::Sandbox(_)
            | Self::Oci(Oci::Io(_) | Oci::AnchorLost | Oci::Hook { .. }) => Code::UNKNOWN,
        }
    }

    /// The text with all its causes. Docker reads the exit codes 126 and 127 out of runc's words, so they are there.
    pub(crate) fn text(&self) -> String {
        let text = chain::text(self);
        match self {
            Self::Sandbox(Sandbox::ExecutableNotFound(_)) => {
                format!("OCI runtime create failed: {text}: executable file not found in $PATH")
            }
            Self::Sandbox(Sandbox::ExecutableNotPermitted(_)) => {
                format!("OCI runtime create failed: {text}: permission denied")
            }
            _ => text,
        }
    }
}

impl From<Error> for ttrpc::Error {
    fn from(error: Error) -> Self {
        let (code, mut text) = (error.code(), error.text());
        // As runc's shim: the kind is also in the words, and containerd 1.x takes it out again.
        let kind = match code {
            Code::INVALID_ARGUMENT => "invalid argument",
            Code::NOT_FOUND => "not found",
            Code::ALREADY_EXISTS => "already exists",
            Code::FAILED_PRECONDITION => "failed precondition",
            Code::UNIMPLEMENTED => "not implemented",
            _ => "",
        };
        if !text.ends_with(kind) {
            text = format!("{text}: {kind}");
        }
        Self::RpcStatus(ttrpc::get_status(code, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_once_and_codes_are_containerds() {
        let error = Error::io("open", "/x")(io::Error::from_raw_os_error(libc::ENOENT));
        assert_eq!(error.text(), "cannot open /x: No such file or directory (os error 2)");
        let ttrpc::Error::RpcStatus(status) = Error::NotFound("no".into()).into() else {
            panic!("no status")
        };
        assert_eq!((status.code(), status.message()), (Code::NOT_FOUND, "no: not found"));
    }

    #[test]
    fn docker_finds_the_words_that_it_looks_for() {
        let error = Error::from(Sandbox::ExecutableNotFound("executable not found: x".into()));
        assert!(error.text().contains("executable file not found"));
    }
}
