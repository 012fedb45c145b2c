//! What a container uses, in containerd's message. The guest has cgroups of version 2; the message is that of the host's version, as
//! runc's shim has it, so that a client gets from all its containers what it understands.

mod v1;
mod v2;

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use husk_sandbox::pod::StatsResponse;

use husk_sandbox::cgroup;

use crate::{error::Error, message};

/// What cgroups say where there is no limit.
const UNLIMITED: u64 = u64::MAX;

/// Translates what was measured.
///
/// # Errors
/// When it can't be encoded, which does not happen.
pub(crate) fn message(stats: &StatsResponse) -> Result<Any, Error> {
    if cgroup::is_unified() { message::any(&v2::metrics(stats)) } else { message::any(&v1::metrics(stats)) }
}

fn limit(bytes: u64) -> u64 {
    if bytes == 0 { UNLIMITED } else { bytes }
}
