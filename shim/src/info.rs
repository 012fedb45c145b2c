//! `-info`: what this runtime is, for containerd 2.x.

use containerd_shim_protos::{
    protobuf::Message,
    types::introspection::{RuntimeInfo, RuntimeVersion},
};

use crate::error::Error;

/// The runtime's name.
pub(crate) const RUNTIME: &str = "io.containerd.husk.v2";

/// The message that containerd wants to read. It names no features, so containerd refuses no spec by them.
///
/// # Errors
/// When it can't be encoded, which does not happen.
pub(crate) fn info() -> Result<Vec<u8>, Error> {
    let version = RuntimeVersion { version: env!("CARGO_PKG_VERSION").into(), ..RuntimeVersion::default() };
    let info = RuntimeInfo { name: RUNTIME.into(), version: Some(version).into(), ..RuntimeInfo::default() };
    info.write_to_bytes().map_err(|error| Error::invalid(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtime_has_its_name() {
        let info = RuntimeInfo::parse_from_bytes(&info().unwrap()).unwrap();
        assert_eq!((info.name.as_str(), info.version.version.as_str()), (RUNTIME, env!("CARGO_PKG_VERSION")));
    }
}
