//! `delete`: what containerd calls when a shim is gone, and after each container that it has deleted.

use std::{env, time::SystemTime};

use containerd_shim_protos::{api::DeleteResponse, protobuf::Message};

use crate::{bundle, error::Error, flags::Flags, message, socket};

/// Exit code of what was killed.
const KILLED: u32 = 128 + libc::SIGKILL.unsigned_abs();

/// Removes what a dead shim left, and returns what containerd wants to read. A shim that lives is left alone: its own
/// requests have removed the container.
///
/// # Errors
/// When the answer can't be encoded.
pub(crate) fn delete(flags: &Flags) -> Result<Vec<u8>, Error> {
    let bundle = if flags.bundle.as_os_str().is_empty() {
        env::current_dir().unwrap_or_default()
    } else {
        flags.bundle.clone()
    };
    if let Some(address) = bundle::read_address(&bundle) {
        socket::remove_dead(&address);
    }
    // TODO-POD sweep
    let response = DeleteResponse {
        exit_status: KILLED,
        exited_at: Some(message::timestamp(SystemTime::now())).into(),
        ..DeleteResponse::default()
    };
    response.write_to_bytes().map_err(|error| Error::invalid(error.to_string()))
}
