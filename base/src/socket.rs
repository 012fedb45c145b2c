//! Unix sockets at paths of any length.
//!
//! The system takes at most 107 bytes. A longer path is replaced by one that leads through a descriptor of its
//! directory: `/proc/self/fd/N/NAME`.

use std::{
    fs::File,
    io,
    os::{
        fd::AsRawFd,
        unix::{
            ffi::OsStrExt,
            fs::OpenOptionsExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

use crate::{IoError, atomic::directory_of};

/// Most bytes of a socket's path that the system takes: `sun_path` has 108, the last one zero (unix(7)).
const MAX_PATH_LEN: usize = 107;

/// A socket can't be made or reached.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The system refused.
    #[error(transparent)]
    Io(#[from] IoError),
    /// The socket's own name is too long.
    #[error("the socket's name {} is too long: it may have {limit} bytes", path.display())]
    NameTooLong {
        /// The socket's path.
        path: PathBuf,
        /// Most bytes that its last component may have.
        limit: usize,
    },
}

/// Makes a listening socket. Its address, when asked for, is not `path` if that is long.
///
/// # Errors
/// When the path exists, the socket can't be made there, or the last component is too long (some 80 bytes).
pub fn bind(path: &Path) -> Result<UnixListener, SocketError> {
    with_short_path(path, "listen on", |path| UnixListener::bind(path))
}

/// Connects to a listening socket.
///
/// # Errors
/// When there is no listening socket, or the last component is too long (some 80 bytes).
pub fn connect(path: &Path) -> Result<UnixStream, SocketError> {
    with_short_path(path, "connect to", |path| UnixStream::connect(path))
}

fn with_short_path<T>(
    path: &Path,
    what: &'static str,
    call: impl FnOnce(&Path) -> io::Result<T>,
) -> Result<T, SocketError> {
    let failed = || IoError::of(what, path);
    if path.as_os_str().len() <= MAX_PATH_LEN {
        return Ok(call(path).map_err(failed())?);
    }
    let Some(name) = path.file_name() else {
        return Err(failed()(io::Error::from(io::ErrorKind::InvalidInput)).into());
    };
    let directory = open_directory(directory_of(path)).map_err(failed())?;
    let prefix = format!("/proc/self/fd/{}/", directory.as_raw_fd());
    let limit = MAX_PATH_LEN - prefix.len();
    if name.as_bytes().len() > limit {
        return Err(SocketError::NameTooLong { path: path.into(), limit });
    }
    Ok(call(&Path::new(&prefix).join(name)).map_err(failed())?)
}

fn open_directory(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY;
    File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::{Read, Write},
    };

    use super::*;

    /// A path of exactly this many bytes whose directory exists.
    fn path_of_len(root: &Path, len: usize, name: &str) -> PathBuf {
        let missing = len - root.as_os_str().len() - name.len() - 2;
        let directory = root.join("d".repeat(missing));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join(name);
        assert_eq!(path.as_os_str().len(), len);
        path
    }

    fn talk(path: &Path) {
        let listener = bind(path).unwrap();
        let mut client = connect(path).unwrap();
        client.write_all(b"x").unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let mut byte = [0];
        server.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
        assert!(path.exists());
    }

    #[test]
    fn paths_of_any_length_work() {
        let root = tempfile::tempdir().unwrap();
        for len in [MAX_PATH_LEN, MAX_PATH_LEN + 1, 200] {
            talk(&path_of_len(root.path(), len, "socket"));
        }
    }

    #[test]
    fn a_name_that_is_too_long_is_refused_with_the_limit() {
        let root = tempfile::tempdir().unwrap();
        let path = path_of_len(root.path(), 200, &"n".repeat(100));
        for error in [bind(&path).unwrap_err(), connect(&path).unwrap_err()] {
            let SocketError::NameTooLong { limit, .. } = &error else { panic!("{error}") };
            let fits = path.with_file_name("n".repeat(*limit));
            assert!(error.to_string().contains(&limit.to_string()), "{error}");
            // Descriptors of other tests may have made the limit smaller by a digit or two.
            talk(&fits.with_file_name("n".repeat(limit - 2)));
            fs::remove_file(fits.with_file_name("n".repeat(limit - 2))).unwrap();
        }
    }

    #[test]
    fn the_systems_reason_is_kept_and_the_path_is_the_callers() {
        let root = tempfile::tempdir().unwrap();
        let path = path_of_len(root.path(), 200, "socket");
        let SocketError::Io(error) = connect(&path).unwrap_err() else { panic!("no IoError") };
        assert_eq!((error.kind(), &error.path), (io::ErrorKind::NotFound, &path));
        let _listener = bind(&path).unwrap();
        let SocketError::Io(error) = bind(&path).unwrap_err() else { panic!("no IoError") };
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
