//! What the agent tells the host when a call fails.

use std::{fmt, io};

use husk_protocol::agent::Reason;
use serde::{Deserialize, Serialize};

/// Why a call failed, in the API's terms. Crosses the pipe between a helper process and PID 1, too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    #[serde(with = "number")]
    pub(crate) reason: Reason,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Reason::INVALID_REQUEST, message)
    }

    pub(crate) fn state(message: impl Into<String>) -> Self {
        Self::new(Reason::WRONG_STATE, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(Reason::UNSPECIFIED, message)
    }

    /// An I/O error on what `what` names; a full disk has a reason of its own.
    pub(crate) fn io(what: impl fmt::Display, error: &io::Error) -> Self {
        let reason = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Reason::DISK_FULL,
            _ => Reason::UNSPECIFIED,
        };
        Self::new(reason, format!("{what}: {error}"))
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
        husk_protocol::failure::error(failure.reason, failure.message)
    }
}

/// A reason as its number.
mod number {
    use husk_protocol::agent::Reason;
    use protobuf::Enum;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(reason: &Reason, to: S) -> Result<S::Ok, S::Error> {
        reason.value().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Reason, D::Error> {
        Ok(Reason::from_i32(i32::deserialize(from)?).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_crosses_a_helpers_pipe_whole() {
        let failure = Failure::new(Reason::OUT_OF_INODES, "why");
        let json = serde_json::to_vec(&failure).unwrap();
        assert_eq!(serde_json::from_slice::<Failure>(&json).unwrap(), failure);
    }

    #[test]
    fn a_full_disk_is_told_apart() {
        let reason = |errno| Failure::io("x", &io::Error::from_raw_os_error(errno)).reason;
        assert_eq!(reason(libc::ENOSPC), Reason::DISK_FULL);
        assert_eq!(reason(libc::EIO), Reason::UNSPECIFIED);
    }
}
