//! The command line.

use std::{
    ffi::OsString,
    os::{
        fd::{OwnedFd, RawFd},
        unix::net::UnixListener,
    },
    path::PathBuf,
};

use husk_jail::inherited;

use crate::serve::Cache;

pub(crate) const USAGE: &str =
    "usage: husk-fs --root DIR --listen FD [--lifeline FD] [--lock FD] [--cgroup DIR] [--cache auto|always|never]
               [--read-only]
       husk-fs --version

Serves DIR to the one VMM that connects (vhost-user), and ends when it hangs up. Must be started by root.
--listen: an inherited descriptor of a unix socket that listens.
--lifeline: end when the other end of this inherited descriptor is closed.
--lock: keep this inherited descriptor open until the end. All that are not named are closed.
--cgroup: the directory of a cgroup (version 2) for the process that serves.
--cache: what the guest may keep. auto: names and attributes for a second, a file's content while it is open; others may
         change DIR meanwhile. always: all, for a day; nobody else may change DIR. never: nothing.
--read-only: the guest can change nothing.
Exit codes: 0 the VMM or the lifeline hung up, 1 failure, 2 bad usage.";

/// The command line is no good.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArgsError {
    /// An option that there is not.
    #[error("unknown option {0:?}")]
    Unknown(OsString),
    /// An option at the end without what belongs to it.
    #[error("{0} needs a value")]
    NoValue(&'static str),
    /// An option that must be there.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A value that can't be.
    #[error("--cache {0:?} is not auto, always or never")]
    Cache(OsString),
    /// Not a number of an open descriptor, or one of the standard streams.
    #[error("{0} {1:?} is not an inherited descriptor")]
    Descriptor(&'static str, OsString),
    /// Named for two purposes.
    #[error("{0} and {1} name the same descriptor")]
    SameDescriptor(&'static str, &'static str),
    /// Not a socket that listens.
    #[error("--listen {0} is not a unix socket that listens")]
    NotListening(RawFd),
}

/// What to do.
#[derive(Debug)]
pub(crate) enum Command {
    Help,
    Version,
    Serve(Options),
}

/// What to serve, to whom and how.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) root: PathBuf,
    pub(crate) listener: UnixListener,
    pub(crate) lifeline: Option<OwnedFd>,
    /// Held open until this process and the one in the jail have ended.
    pub(crate) lock: Option<OwnedFd>,
    pub(crate) cgroup: Option<PathBuf>,
    pub(crate) cache: Cache,
    pub(crate) read_only: bool,
}

/// Reads the command line and takes over the descriptors that it names.
pub(crate) fn parse(args: Vec<OsString>) -> Result<Command, ArgsError> {
    let mut args = args.into_iter();
    let (mut root, mut listen, mut lifeline, mut lock, mut cgroup) = (None, None, None, None, None);
    let (mut cache, mut read_only) = (Cache::Auto, false);
    while let Some(option) = args.next() {
        let mut value = |name| args.next().ok_or(ArgsError::NoValue(name));
        match option.to_str() {
            Some("--help" | "-h") => return Ok(Command::Help),
            Some("--version") => return Ok(Command::Version),
            Some("--root") => root = Some(PathBuf::from(value("--root")?)),
            Some("--listen") => listen = Some(number("--listen", value("--listen")?)?),
            Some("--lifeline") => lifeline = Some(number("--lifeline", value("--lifeline")?)?),
            Some("--lock") => lock = Some(number("--lock", value("--lock")?)?),
            Some("--cgroup") => cgroup = Some(PathBuf::from(value("--cgroup")?)),
            Some("--cache") => {
                let value = value("--cache")?;
                cache = match value.to_str() {
                    Some("auto") => Cache::Auto,
                    Some("always") => Cache::Always,
                    Some("never") => Cache::Never,
                    _ => return Err(ArgsError::Cache(value)),
                };
            }
            Some("--read-only") => read_only = true,
            _ => return Err(ArgsError::Unknown(option)),
        }
    }
    let root = root.ok_or(ArgsError::Missing("--root"))?;
    let listen = listen.ok_or(ArgsError::Missing("--listen"))?;
    let named = [("--listen", Some(listen)), ("--lifeline", lifeline), ("--lock", lock)];
    for (index, (option, fd)) in named.iter().enumerate() {
        if let Some((other, _)) =
            named[..index].iter().find(|(_, earlier)| earlier.is_some() && earlier == fd)
        {
            return Err(ArgsError::SameDescriptor(other, option));
        }
    }
    let listener = UnixListener::from(inherit("--listen", listen)?);
    if !rustix::net::sockopt::socket_acceptconn(&listener).is_ok_and(|listens| listens)
        || listener.local_addr().is_err()
    {
        return Err(ArgsError::NotListening(listen));
    }
    let lifeline = lifeline.map(|fd| inherit("--lifeline", fd)).transpose()?;
    let lock = lock.map(|fd| inherit("--lock", fd)).transpose()?;
    Ok(Command::Serve(Options { root, listener, lifeline, lock, cgroup, cache, read_only }))
}

fn number(option: &'static str, text: OsString) -> Result<RawFd, ArgsError> {
    let number = text.to_str().and_then(|text| text.parse().ok());
    number.filter(|fd| *fd > libc::STDERR_FILENO).ok_or(ArgsError::Descriptor(option, text))
}

fn inherit(option: &'static str, fd: RawFd) -> Result<OwnedFd, ArgsError> {
    // SAFETY: nothing in this process uses it: it was named on the command line for this, once.
    unsafe { inherited::take(fd) }.map_err(|_| ArgsError::Descriptor(option, fd.to_string().into()))
}

#[cfg(test)]
mod tests {
    use std::os::{fd::IntoRawFd, linux::net::SocketAddrExt, unix::net::SocketAddr};

    use super::*;

    fn error(args: &[&str]) -> String {
        parse(args.iter().map(OsString::from).collect()).unwrap_err().to_string()
    }

    fn listener(name: &str) -> String {
        let address = SocketAddr::from_abstract_name(format!("husk-fs-{}-{name}", std::process::id()));
        UnixListener::bind_addr(&address.unwrap()).unwrap().into_raw_fd().to_string()
    }

    #[test]
    fn all_options_are_understood() {
        let (listen, (lifeline, _other)) = (listener("all"), std::io::pipe().unwrap());
        let lifeline = lifeline.into_raw_fd().to_string();
        let lock = tempfile::tempfile().unwrap().into_raw_fd().to_string();
        let more = ["--lock", &lock, "--cache", "never", "--read-only"];
        let args = ["--root", "/r", "--listen", &listen, "--lifeline", &lifeline, "--cgroup", "/c"];
        let args = args.iter().chain(&more);
        match parse(args.map(OsString::from).collect()).unwrap() {
            Command::Serve(options) => {
                assert_eq!(options.root, PathBuf::from("/r"));
                assert_eq!(options.cgroup, Some(PathBuf::from("/c")));
                assert_eq!((options.cache, options.read_only), (Cache::Never, true));
                assert!(options.lifeline.is_some() && options.lock.is_some());
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(error(&["--listen", "3"]), "--root is missing");
        assert_eq!(error(&["--root", "/r"]), "--listen is missing");
        assert_eq!(error(&["--root"]), "--root needs a value");
        assert_eq!(error(&["--share", "/r"]), r#"unknown option "--share""#);
        assert_eq!(error(&["--cache", "x"]), r#"--cache "x" is not auto, always or never"#);
        for bad in ["x", "-1", "2", "99999999999"] {
            assert_eq!(error(&["--listen", bad]), format!("--listen {bad:?} is not an inherited descriptor"));
        }
        assert_eq!(
            error(&["--root", "/r", "--listen", "999999"]),
            r#"--listen "999999" is not an inherited descriptor"#
        );
        assert_eq!(
            error(&["--root", "/r", "--listen", "9", "--lifeline", "9"]),
            "--listen and --lifeline name the same descriptor"
        );
        assert_eq!(
            error(&["--root", "/r", "--listen", "8", "--lock", "9", "--lifeline", "9"]),
            "--lifeline and --lock name the same descriptor"
        );
        let (pipe, _other) = std::io::pipe().unwrap();
        let pipe = pipe.into_raw_fd().to_string();
        let message = error(&["--root", "/r", "--listen", &pipe]);
        assert!(message.ends_with("is not a unix socket that listens"), "{message}");
    }
}
