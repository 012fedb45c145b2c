//! The socket on which a shim is reached, named as containerd's own shims name theirs.

use std::{
    fs, io,
    os::unix::{
        fs::DirBuilderExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::error::Error;

/// The socket of the shim of `group` (a pod, or a container alone): of a fixed length, since those of sockets are limited.
pub(crate) fn path(dir: &str, grpc_address: &str, namespace: &str, group: &str) -> PathBuf {
    let name = Path::new(grpc_address).join(namespace).join(group);
    let digest = Sha256::digest(name.as_os_str().as_encoded_bytes());
    let mut hex = String::with_capacity(64);
    for byte in digest {
        use std::fmt::Write;
        let _ = write!(hex, "{byte:02x}");
    }
    Path::new(dir).join(hex)
}

/// As containerd wants to hear it.
pub(crate) fn address(path: &Path) -> String {
    format!("unix://{}", path.display())
}

/// Listens there, or finds that somebody answers there already (`None`). What a dead shim left is replaced.
///
/// # Errors
/// When the socket can't be made.
pub(crate) fn claim(path: &Path) -> Result<Option<UnixListener>, Error> {
    if let Some(dir) = path.parent() {
        let made = fs::DirBuilder::new().recursive(true).mode(0o711).create(dir);
        made.map_err(Error::io("create", dir))?;
    }
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if UnixStream::connect(path).is_ok() {
                return Ok(None);
            }
            fs::remove_file(path).map_err(Error::io("remove", path))?;
            UnixListener::bind(path)
        }
        other => other,
    }
    .map(Some)
    .map_err(Error::io("listen on", path))
}

/// Removes the socket of a dead shim, named by its address. Returns whether it is dead: whether nobody answers there.
pub(crate) fn remove_dead(address: &str) -> bool {
    let path = address.trim().trim_start_matches("unix://");
    let Err(error) = UnixStream::connect(path) else { return false };
    if error.kind() == io::ErrorKind::ConnectionRefused {
        let _ = fs::remove_file(path);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_containerds() {
        // sha256 of "/run/containerd/containerd.sock/default/123"
        let hash = "0ddfbd72d02b3551e75f3a0ed90b9965b533401be618f43a568bc522764e0ad0";
        let path = path("/s", "/run/containerd/containerd.sock", "default", "123");
        assert_eq!(path, Path::new("/s").join(hash));
    }

    #[test]
    fn a_living_shim_is_found_and_a_dead_ones_socket_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s/socket");
        let listener = claim(&path).unwrap().unwrap();
        assert!(claim(&path).unwrap().is_none());
        assert!(!remove_dead(&address(&path)));
        assert!(path.exists());
        drop(listener);
        assert!(claim(&path).unwrap().is_some());
        assert!(remove_dead(&address(&path)));
        assert!(!path.exists());
    }
}
