//! Why a call of the agent's API failed: a ttrpc status with a [`Reason`] in its details.

use protobuf::Message;
use ttrpc::{Code, proto::Any};

use crate::agent::{Failure, Reason};

/// The type URL by which a [`Failure`] is found in a status.
const TYPE_URL: &str = "husk.agent.v1.Failure";
/// Details of a status beyond these are not looked at.
const MAX_DETAILS: usize = 8;

/// The error that a failed call returns. Its status code follows from the reason.
#[must_use]
pub fn error(reason: Reason, message: impl Into<String>) -> ttrpc::Error {
    let mut status = ttrpc::get_status(code(reason), message.into());
    let failure = Failure { reason: reason.into(), ..Default::default() };
    // A message of one number always fits.
    let value = failure.write_to_bytes().unwrap_or_default();
    status.details.push(Any { type_url: TYPE_URL.into(), value, ..Default::default() });
    ttrpc::Error::RpcStatus(status)
}

/// The reason in an error; [`Reason::UNSPECIFIED`] where it carries no reason that is known here.
#[must_use]
pub fn reason(error: &ttrpc::Error) -> Reason {
    let ttrpc::Error::RpcStatus(status) = error else { return Reason::UNSPECIFIED };
    let detail = status.details.iter().take(MAX_DETAILS).find(|any| any.type_url == TYPE_URL);
    let failure = detail.and_then(|any| Failure::parse_from_bytes(&any.value).ok());
    failure.map_or(Reason::UNSPECIFIED, |failure| failure.reason.enum_value_or_default())
}

fn code(reason: Reason) -> Code {
    match reason {
        Reason::UNSPECIFIED => Code::INTERNAL,
        Reason::INVALID_REQUEST
        | Reason::EXECUTABLE_NOT_FOUND
        | Reason::EXECUTABLE_NOT_PERMITTED
        | Reason::NO_SUCH_USER => Code::INVALID_ARGUMENT,
        Reason::NO_SUCH_CONTAINER
        | Reason::NO_SUCH_PROCESS
        | Reason::NO_SUCH_DEVICE
        | Reason::NO_SUCH_SETTING => Code::NOT_FOUND,
        Reason::ALREADY_EXISTS => Code::ALREADY_EXISTS,
        Reason::WRONG_STATE => Code::FAILED_PRECONDITION,
        Reason::DAMAGED_LAYER => Code::DATA_LOSS,
        Reason::DISK_FULL | Reason::OUT_OF_INODES => Code::RESOURCE_EXHAUSTED,
    }
}

#[cfg(test)]
mod tests {
    use protobuf::Enum;

    use super::*;

    #[test]
    fn every_reason_arrives_with_its_message() {
        for wanted in Reason::VALUES {
            let error = error(*wanted, "why");
            assert_eq!(reason(&error), *wanted);
            let ttrpc::Error::RpcStatus(status) = error else { panic!("not a status") };
            // As it crosses the wire.
            let bytes = status.write_to_bytes().unwrap();
            let status = ttrpc::Status::parse_from_bytes(&bytes).unwrap();
            assert_eq!((status.code(), status.message()), (code(*wanted), "why"));
            assert_eq!(reason(&ttrpc::Error::RpcStatus(status)), *wanted);
        }
    }

    #[test]
    fn an_error_without_a_known_reason_is_unspecified() {
        let with = |type_url: &str, value: &[u8]| {
            let mut status = ttrpc::get_status(Code::NOT_FOUND, "x");
            let any = Any { type_url: type_url.into(), value: value.into(), ..Default::default() };
            status.details.push(any);
            ttrpc::Error::RpcStatus(status)
        };
        assert_eq!(reason(&with(TYPE_URL, &[8, 5])), Reason::NO_SUCH_CONTAINER);
        for other in [
            ttrpc::Error::LocalClosed,
            ttrpc::Error::RpcStatus(ttrpc::get_status(Code::NOT_FOUND, "x")),
            with(TYPE_URL, &[8, 99]),
            with(TYPE_URL, &[0xff]),
            with("other", &[8, 5]),
        ] {
            assert_eq!(reason(&other), Reason::UNSPECIFIED, "{other:?}");
        }
    }
}
