//! Containers that join the VM of another, to share its network: `--network container:NAME`.
//!
//! The husk of the VM's own container listens on a socket in the sandbox's directory. Who wants to join connects, says its
//! id, and is told the machine's host name. It then attaches its disks and makes its container by itself. When its connection ends,
//! for whatever reason, the listening husk takes container and disks away again.

use serde::{Deserialize, Serialize};

mod guest;
mod host;

pub(crate) use guest::run;
pub(crate) use host::Host;

/// The socket in the sandbox's directory.
const SOCKET: &str = "join";
/// Most bytes of a line.
const MAX_LINE: u64 = 1024;
/// Digits of a container's id that tell its disks from others'.
const ID_DIGITS: usize = 12;

/// What a guest says first.
#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    /// Its container's id.
    id: String,
}

/// What a host answers.
#[derive(Debug, Serialize, Deserialize)]
struct Welcome {
    /// The machine's host name.
    hostname: String,
    /// What the VM's streams begin with.
    stream_token: String,
}

/// The ids of a container's two disks: its image's, and its own.
fn disk_ids(id: &str) -> [String; 2] {
    let id = id.get(..ID_DIGITS).unwrap_or(id);
    [format!("{id}-base"), format!("{id}-own")]
}
