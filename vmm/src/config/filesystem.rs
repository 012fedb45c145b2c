//! Directories of the host, served by processes of their own.

use std::{collections::HashSet, os::fd::RawFd, path::PathBuf};

use serde::{Deserialize, Serialize};

/// Most bytes of a tag (virtio 1.2, section 5.11.4).
pub const MAX_TAG_LEN: usize = 36;
/// Descriptors up to here are the standard streams.
const LAST_STANDARD_FD: RawFd = 2;

/// A file system can't be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilesystemConfigError {
    /// Its tag does not fit.
    #[error("file system tag {0:?} must have 1 to {MAX_TAG_LEN} bytes, all printable ASCII without spaces")]
    Tag(String),
    /// Two with the same tag.
    #[error("two file systems have the tag {0:?}")]
    DuplicateTag(String),
    /// Not a descriptor that could be inherited for this.
    #[error("socket.fd of file system {0:?} is {1}, must be 3 or more")]
    Fd(String, RawFd),
    /// A descriptor that is named twice.
    #[error("the descriptor {0} is named twice")]
    DuplicateFd(RawFd),
    /// The server could not reach the guest's memory.
    #[error(
        "file system {0:?} needs memory.shared true: its server works in the guest's memory from another process"
    )]
    PrivateMemory(String),
}

/// A file system that the guest mounts by its tag (`mount -t virtiofs TAG DIR`). A process of the host serves it, over
/// vhost-user: `husk-fs`, or another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilesystemConfig {
    /// The name by which the guest mounts it: 1 to 36 bytes of printable ASCII.
    pub tag: String,
    /// Where its server is.
    pub socket: FilesystemSocket,
}

/// The way to a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FilesystemSocket {
    /// `{"path":"/run/fs.sock"}`: the unix socket on which it listens.
    Path(PathBuf),
    /// `{"fd":5}`: an inherited descriptor of a unix stream socket that is connected with it.
    Fd(RawFd),
}

/// Checks what the types can't say. `shared` is whether other processes can map the guest's memory.
pub(super) fn validate(filesystems: &[FilesystemConfig], shared: bool) -> Result<(), FilesystemConfigError> {
    let (mut tags, mut fds) = (HashSet::new(), HashSet::new());
    for FilesystemConfig { tag, socket } in filesystems {
        if !(1..=MAX_TAG_LEN).contains(&tag.len()) || !tag.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(FilesystemConfigError::Tag(tag.clone()));
        }
        if !tags.insert(tag) {
            return Err(FilesystemConfigError::DuplicateTag(tag.clone()));
        }
        if let FilesystemSocket::Fd(fd) = *socket {
            if fd <= LAST_STANDARD_FD {
                return Err(FilesystemConfigError::Fd(tag.clone(), fd));
            }
            if !fds.insert(fd) {
                return Err(FilesystemConfigError::DuplicateFd(fd));
            }
        }
        if !shared {
            return Err(FilesystemConfigError::PrivateMemory(tag.clone()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{FilesystemConfigError::*, *};

    fn with_fd(tag: &str, fd: RawFd) -> FilesystemConfig {
        FilesystemConfig { tag: tag.into(), socket: FilesystemSocket::Fd(fd) }
    }

    #[test]
    fn both_sockets_have_a_json_form() {
        let parsed: Vec<FilesystemConfig> = serde_json::from_str(
            r#"[{"tag":"root","socket":{"path":"/run/fs.sock"}},{"tag":"data","socket":{"fd":5}}]"#,
        )
        .unwrap();
        let path = FilesystemSocket::Path("/run/fs.sock".into());
        let root = FilesystemConfig { tag: "root".into(), socket: path };
        assert_eq!(parsed, [root, with_fd("data", 5)]);
        assert_eq!(validate(&parsed, true), Ok(()));
        for bad in [
            r#"{"tag":"root"}"#,
            r#"{"tag":"root","socket":{}}"#,
            r#"{"tag":"root","socket":{"fd":5,"path":"x"}}"#,
            r#"{"tag":"root","socket":{"fd":5},"cache":"auto"}"#,
        ] {
            assert!(serde_json::from_str::<FilesystemConfig>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for bad in ["", "a b", "\u{e4}", &"x".repeat(37)] {
            assert_eq!(validate(&[with_fd(bad, 5)], true), Err(Tag(bad.into())));
        }
        assert_eq!(validate(&[with_fd(&"x".repeat(36), 5)], true), Ok(()));
        assert_eq!(validate(&[with_fd("a", 5), with_fd("a", 6)], true), Err(DuplicateTag("a".into())));
        assert_eq!(validate(&[with_fd("a", 5), with_fd("b", 5)], true), Err(DuplicateFd(5)));
        for fd in [-1, 0, 2] {
            assert_eq!(validate(&[with_fd("a", fd)], true), Err(Fd("a".into(), fd)));
        }
        assert_eq!(validate(&[with_fd("a", 5)], false), Err(PrivateMemory("a".into())));
        assert_eq!(validate(&[], false), Ok(()));
    }
}
