//! The shim's address, as it lies in a bundle: a containerd that was restarted finds the shim by it.

use std::{fs, path::Path};

use husk_base::atomic::{self, Durable};
use serde::Deserialize;

use crate::error::Error;

/// The shim's address, for a containerd (1.6) that was restarted.
const ADDRESS: &str = "address";
/// What containerd 2.x notes of a shim. Containers of a sandbox have this alone: no shim is started for them.
const BOOTSTRAP: &str = "bootstrap.json";

/// Leaves the shim's address in a bundle.
///
/// # Errors
/// When it can't be written.
pub(crate) fn write(bundle: &Path, address: &str) -> Result<(), Error> {
    Ok(atomic::replace(&bundle.join(ADDRESS), address.as_bytes(), 0o600, Durable::No)?)
}

/// The shim's address, if a bundle has it.
pub(crate) fn read(bundle: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Bootstrap {
        address: String,
    }
    let by_containerd = || {
        let text = fs::read(bundle.join(BOOTSTRAP)).ok()?;
        Some(serde_json::from_slice::<Bootstrap>(&text).ok()?.address)
    };
    fs::read_to_string(bundle.join(ADDRESS)).ok().or_else(by_containerd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()), None);
        fs::write(dir.path().join(BOOTSTRAP), r#"{"version":3,"address":"unix:///y","protocol":"ttrpc"}"#)
            .unwrap();
        assert_eq!(read(dir.path()).as_deref(), Some("unix:///y"));
        write(dir.path(), "unix:///x").unwrap();
        assert_eq!(read(dir.path()).as_deref(), Some("unix:///x"));
    }
}
