//! Small conversions between our types and containerd's messages.

use std::time::{SystemTime, UNIX_EPOCH};

use containerd_shim_protos::protobuf::{
    MessageFull,
    well_known_types::{any::Any, timestamp::Timestamp},
};

use crate::error::Error;

/// A point in time.
pub(crate) fn timestamp(at: SystemTime) -> Timestamp {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0),
        ..Timestamp::default()
    }
}

/// A message with its type, named without a host as containerd's `typeurl` does.
///
/// # Errors
/// When it can't be encoded.
pub(crate) fn any<M: MessageFull>(message: &M) -> Result<Any, Error> {
    let value = message.write_to_bytes().map_err(|error| Error::invalid(error.to_string()))?;
    Ok(Any { type_url: M::descriptor().full_name().to_owned(), value, ..Any::default() })
}

/// The JSON that containerd puts into an `Any` in the place of a message.
///
/// # Errors
/// When it is missing, or not what is wanted.
pub(crate) fn json<T: serde::de::DeserializeOwned>(any: Option<&Any>, what: &str) -> Result<T, Error> {
    let any = any.ok_or_else(|| Error::invalid(format!("the request has no {what}")))?;
    serde_json::from_slice(&any.value)
        .map_err(|error| Error::invalid(format!("the {what} is malformed: {error}")))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use containerd_shim_protos::cgroups_v2::metrics::Metrics;

    use super::*;

    #[test]
    fn types_are_named_as_containerd_looks_them_up() {
        assert_eq!(any(&Metrics::default()).unwrap().type_url, "io.containerd.cgroups.v2.Metrics");
    }

    #[test]
    fn time_is_kept_to_the_nanosecond() {
        let stamp = timestamp(UNIX_EPOCH + Duration::new(5, 6));
        assert_eq!((stamp.seconds, stamp.nanos), (5, 6));
    }

    #[test]
    fn json_in_an_any_is_read_and_a_lack_of_it_told() {
        let any = Any { value: b"[1]".to_vec(), ..Any::default() };
        assert_eq!(json::<Vec<u8>>(Some(&any), "list").unwrap(), [1]);
        assert!(json::<String>(Some(&any), "text").is_err());
        assert!(json::<String>(None, "text").is_err());
    }
}
