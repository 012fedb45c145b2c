//! What the agent tells the host when a call fails.

use std::{fmt, io};

use serde::{Deserialize, Serialize};
use ttrpc::Code;

/// Why a call failed, in the API's terms. Crosses the pipe between a helper process and PID 1, too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) message: String,
}

/// The status codes that the API uses (see agent.proto).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    NotFound,
    AlreadyExists,
    InvalidArgument,
    FailedPrecondition,
    ResourceExhausted,
    Internal,
}

impl Failure {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::InvalidArgument, message)
    }

    pub(crate) fn state(message: impl Into<String>) -> Self {
        Self::new(Kind::FailedPrecondition, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
    }

    /// An I/O error on what `what` names; a full disk is told apart.
    pub(crate) fn io(what: impl fmt::Display, error: &io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Kind::ResourceExhausted,
            _ => Kind::Internal,
        };
        Self::new(kind, format!("{what}: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<Failure> for ttrpc::Error {
    fn from(failure: Failure) -> Self {
        let code = match failure.kind {
            Kind::NotFound => Code::NOT_FOUND,
            Kind::AlreadyExists => Code::ALREADY_EXISTS,
            Kind::InvalidArgument => Code::INVALID_ARGUMENT,
            Kind::FailedPrecondition => Code::FAILED_PRECONDITION,
            Kind::ResourceExhausted => Code::RESOURCE_EXHAUSTED,
            Kind::Internal => Code::INTERNAL,
        };
        ttrpc::Error::RpcStatus(ttrpc::get_status(code, failure.message))
    }
}
