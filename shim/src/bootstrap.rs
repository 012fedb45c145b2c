//! How containerd tells a shim what to start, and what it wants to hear.
//!
//! containerd 1.6 to 2.2 gives flags and environment, and reads the address of the socket; what it may have on stdin are
//! the runtime's options. A bare address, rather than the JSON that 1.7 takes as well, is the one answer that all of them
//! accept; it means version 2 of the task API. containerd 2.3 and later gives a `BootstrapParams` message on stdin and
//! reads a `BootstrapResult`; it is offered version 3. Both versions are served on the same socket.

use std::{env, io::Read};

use containerd_shim_protos::{
    TASK_API_VERSION,
    bootstrap_api::{BootstrapParams, BootstrapResult, LogLevel},
    protobuf::{Message, well_known_types::any::Any},
};
use husk_protocol::runtimeoptions::Options;
use husk_sandbox::config::Own;

use crate::{error::Error, flags::Flags};

/// Nothing that containerd writes to a shim is longer, in bytes.
const MAX_INPUT: u64 = 10 << 20;

/// Where sockets of shims lie, unless containerd says otherwise.
const SOCKET_DIR: &str = "/run/containerd/s";

/// The type of the options that a runtime class may have, as the end of its name: older containerds put `cri.` before it.
const OPTIONS: &str = "runtimeoptions.v1.Options";
/// How errors call the options that are not in a file.
const OPTIONS_NAME: &str = "the options of the runtime class, in containerd's configuration";

/// What to start, whichever way it was said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Params {
    /// containerd's socket for events.
    pub(crate) ttrpc_address: String,
    /// containerd's gRPC socket: part of what makes a shim's address its own.
    pub(crate) grpc_address: String,
    /// Where to put the shim's socket.
    pub(crate) socket_dir: String,
    /// More to be logged.
    pub(crate) debug: bool,
    /// What the runtime class adds to the configuration.
    pub(crate) own: Option<Own>,
    /// It was said by a message, and a message is the answer.
    by_message: bool,
}

/// Reads what containerd says to `start`.
///
/// # Errors
/// When stdin can't be read, or its message is meant for another shim, or containerd's socket is not named.
pub(crate) fn read(input: impl Read, flags: &Flags) -> Result<Params, Error> {
    let mut bytes = Vec::new();
    input.take(MAX_INPUT).read_to_end(&mut bytes).map_err(Error::io("read", "standard input"))?;
    let variable = |name: &str| env::var(name).unwrap_or_default();
    parse(&bytes, flags, variable)
}

fn parse(input: &[u8], flags: &Flags, variable: impl Fn(&str) -> String) -> Result<Params, Error> {
    let mut params = match message(input, flags)? {
        Some(message) => Params {
            own: own(message.extensions.iter().filter_map(|extension| extension.value.as_ref()))?,
            ttrpc_address: message.containerd_ttrpc_address,
            grpc_address: message.containerd_grpc_address,
            socket_dir: message.socket_dir.filter(|dir| !dir.is_empty()).unwrap_or(SOCKET_DIR.into()),
            debug: flags.debug || message.log_level.value() <= LogLevel::LOG_LEVEL_DEBUG as i32,
            by_message: true,
        },
        None => Params {
            ttrpc_address: String::new(),
            grpc_address: flags.address.clone(),
            socket_dir: SOCKET_DIR.into(),
            debug: flags.debug,
            own: own(Any::parse_from_bytes(input).iter())?,
            by_message: false,
        },
    };
    if params.ttrpc_address.is_empty() {
        params.ttrpc_address = variable("TTRPC_ADDRESS");
    }
    if params.ttrpc_address.is_empty() {
        return Err(Error::invalid("containerd did not say where its ttrpc socket is (TTRPC_ADDRESS)"));
    }
    Ok(params)
}

/// What the options among these messages say. Those of other runtimes say nothing to this one.
fn own<'a>(messages: impl IntoIterator<Item = &'a Any>) -> Result<Option<Own>, Error> {
    let Some(any) = messages.into_iter().find(|any| any.type_url.ends_with(OPTIONS)) else { return Ok(None) };
    let wrong =
        |error: &dyn std::fmt::Display| Error::invalid(format!("{OPTIONS_NAME}, are malformed: {error}"));
    let options = Options::parse_from_bytes(&any.value).map_err(|error| wrong(&error))?;
    if !options.config_path.is_empty() {
        return Ok(Some(Own::File(options.config_path.into())));
    }
    let text = String::from_utf8(options.config_body).map_err(|error| wrong(&error))?;
    Ok(Some(Own::Text(text, OPTIONS_NAME.into())).filter(|_| !any.value.is_empty()))
}

/// The message, if that is what `input` is: the options of the older ways, a message of type `Any`, parse as one, too, with
/// its type in the place of the id.
fn message(input: &[u8], flags: &Flags) -> Result<Option<BootstrapParams>, Error> {
    let Some(message) = BootstrapParams::parse_from_bytes(input).ok().filter(|_| !input.is_empty()) else {
        return Ok(None);
    };
    if message.instance_id == flags.id && message.namespace == flags.namespace {
        return Ok(Some(message));
    }
    if message.containerd_ttrpc_address.is_empty() {
        return Ok(None);
    }
    Err(Error::invalid(format!(
        "containerd speaks to the shim of {}/{}, but this is that of {}/{}",
        message.namespace, message.instance_id, flags.namespace, flags.id
    )))
}

impl Params {
    /// The answer to `start`: where the shim is.
    ///
    /// # Errors
    /// When the message can't be encoded, which does not happen.
    pub(crate) fn reply(&self, address: &str) -> Result<Vec<u8>, Error> {
        if !self.by_message {
            return Ok(address.as_bytes().to_vec());
        }
        let result = BootstrapResult {
            version: TASK_API_VERSION,
            address: address.to_owned(),
            protocol: "ttrpc".into(),
            ..BootstrapResult::default()
        };
        result.write_to_bytes().map_err(|error| Error::invalid(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use containerd_shim_protos::bootstrap_api::Extension;
    use proptest::prelude::*;

    use super::*;

    fn flags() -> Flags {
        Flags {
            id: "c1".into(),
            namespace: "default".into(),
            address: "/run/c.sock".into(),
            ..Flags::default()
        }
    }

    fn environment(name: &str) -> String {
        if name == "TTRPC_ADDRESS" { "/run/c.sock.ttrpc".into() } else { String::new() }
    }

    fn given() -> BootstrapParams {
        BootstrapParams {
            instance_id: "c1".into(),
            namespace: "default".into(),
            containerd_ttrpc_address: "/t".into(),
            socket_dir: Some("/s".into()),
            ..BootstrapParams::default()
        }
    }

    #[test]
    fn older_containerds_get_a_bare_address() {
        let options =
            Any { type_url: "containerd.runc.v1.Options".into(), value: vec![8, 1], ..Any::default() };
        for input in [Vec::new(), options.write_to_bytes().unwrap()] {
            let params = parse(&input, &flags(), environment).unwrap();
            assert_eq!(params.ttrpc_address, "/run/c.sock.ttrpc");
            assert_eq!(params.reply("unix:///s").unwrap(), b"unix:///s");
        }
    }

    #[test]
    fn newer_ones_get_a_message() {
        let params = parse(&given().write_to_bytes().unwrap(), &flags(), |_| String::new()).unwrap();
        assert_eq!((params.ttrpc_address.as_str(), params.socket_dir.as_str()), ("/t", "/s"));
        let reply = BootstrapResult::parse_from_bytes(&params.reply("unix:///s").unwrap()).unwrap();
        assert_eq!(
            (reply.version, reply.address.as_str(), reply.protocol.as_str()),
            (3, "unix:///s", "ttrpc")
        );
    }

    #[test]
    fn a_message_without_a_ttrpc_address_leaves_it_to_the_environment() {
        let message = BootstrapParams { containerd_ttrpc_address: String::new(), ..given() };
        let bytes = message.write_to_bytes().unwrap();
        assert_eq!(parse(&bytes, &flags(), environment).unwrap().ttrpc_address, "/run/c.sock.ttrpc");
        assert!(parse(&bytes, &flags(), |_| String::new()).is_err());
    }

    #[test]
    fn the_options_of_a_runtime_class_are_heard_either_way() {
        let options = |options: &Options| Any {
            type_url: format!("type.googleapis.com/{OPTIONS}"),
            value: options.write_to_bytes().unwrap(),
            ..Any::default()
        };
        let older = |any: &Any| parse(&any.write_to_bytes().unwrap(), &flags(), environment);
        let newer = |any: &Any| {
            let extension = Extension { value: Some(any.clone()).into(), ..Extension::default() };
            let message = BootstrapParams { extensions: vec![extension], ..given() };
            parse(&message.write_to_bytes().unwrap(), &flags(), environment)
        };
        let file = options(&Options { config_path: "/etc/big.toml".into(), ..Options::default() });
        let text = options(&Options { config_body: b"[pod]\n".to_vec(), ..Options::default() });
        let nothing = options(&Options::default());
        let other = Any { type_url: "containerd.runc.v1.Options".into(), ..file.clone() };
        for parse in [&older as &dyn Fn(&Any) -> Result<Params, Error>, &newer] {
            assert_eq!(parse(&file).unwrap().own, Some(Own::File("/etc/big.toml".into())));
            assert_eq!(parse(&text).unwrap().own, Some(Own::Text("[pod]\n".into(), OPTIONS_NAME.into())));
            assert_eq!(parse(&nothing).unwrap().own, None);
            assert_eq!(parse(&other).unwrap().own, None);
            let broken = Any { value: vec![0xff], ..file.clone() };
            assert!(parse(&broken).is_err());
        }
    }

    #[test]
    fn anothers_message_and_no_address_are_refused() {
        let other = BootstrapParams { instance_id: "c2".into(), ..given() };
        assert!(parse(&other.write_to_bytes().unwrap(), &flags(), environment).is_err());
        assert!(parse(&[], &flags(), |_| String::new()).is_err());
    }

    proptest! {
        #[test]
        fn no_input_makes_it_panic(input in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = parse(&input, &flags(), environment);
        }
    }
}
