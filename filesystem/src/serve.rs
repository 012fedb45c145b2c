//! The server itself: the virtiofsd library, and what is asked of it.

use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixListener},
    process,
    sync::Arc,
    thread,
    time::Duration,
};

use husk_jail::JailError;
use virtiofsd::{
    filesystem::{FileSystem, SerializableFileSystem},
    passthrough::{
        self, CachePolicy, InodeFileHandlesMode, NegotiationMode, PassthroughFs, read_only::PassthroughFsRo,
        xattrmap::XattrMap,
    },
    vhost_user::VhostUserFsBackendBuilder,
};
use virtiofsd_backend::VhostUserDaemon;
use virtiofsd_memory::{GuestMemoryAtomic, GuestMemoryMmap};
use virtiofsd_vhost::vhost_user::{Error as ProtocolError, Listener};

use crate::{filter, jail::Descriptors};

/// Descriptors for all but the guest's files: one for each region of memory, for queues, and some to spare.
const OWN_FILES: u64 = 640;
/// A guest's `trusted.` attributes, as its overlay file systems use, need more rights than the server has. They are kept
/// under another name, which the guest itself can't use.
const ATTRIBUTES: &str = ":map:trusted.:user.virtiofs.:";
/// What "always" comes to.
const A_DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The directory can't be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// A thread can't be made.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// The limit of open files is too low.
    #[error("the limit of open files is {0}, and the server itself needs {OWN_FILES}: raise fs.nr_open")]
    FileLimit(u64),
    /// The library refuses its configuration.
    #[error("cannot set up the file system")]
    FileSystem(#[source] io::Error),
    /// The library refuses to start.
    #[error("cannot start the server: {0}")]
    Start(String),
    /// The VMM broke the protocol.
    #[error("the VMM broke the protocol: {0}")]
    Protocol(String),
    /// The threads can't be bound to their system calls.
    #[error("cannot bind the server to its system calls")]
    Filter(#[from] JailError),
}

/// What the guest may keep of what it has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cache {
    /// Names and attributes for a second; a file's content until it is opened again (close-to-open consistency, as with
    /// NFS). For directories that others change, too: volumes, whose changes arrive.
    Auto,
    /// Everything. For directories that are the guest's alone, such as a container's root: most of its metadata then costs
    /// no request.
    Always,
    /// Nothing. For files that guest and others write at the same time. Slow, and such files can't be mapped for writing.
    Never,
}

/// How a directory is shared.
#[derive(Debug)]
pub(crate) struct Share {
    pub(crate) cache: Cache,
    pub(crate) read_only: bool,
    /// Most open files of this process.
    pub(crate) max_files: u64,
}

/// Ends this process when the other end of `lifeline` is closed.
pub(crate) fn end_with(lifeline: OwnedFd) -> Result<(), ServeError> {
    let wait = move || {
        // Only that is waited for, not what may be written. It is reported without being asked for.
        let mut fds = [rustix::event::PollFd::new(&lifeline, rustix::event::PollFlags::RDHUP)];
        while rustix::event::poll(&mut fds, None) == Err(rustix::io::Errno::INTR) {}
        process::exit(0);
    };
    thread::Builder::new().name("lifeline".into()).spawn(wait).map(drop).map_err(ServeError::Thread)
}

/// Serves the root directory to the first who connects, until that one hangs up.
pub(crate) fn serve(
    listener: UnixListener,
    descriptors: Descriptors,
    share: &Share,
) -> Result<(), ServeError> {
    let config = configure(descriptors, share)?;
    if share.read_only {
        run(PassthroughFsRo::new(config).map_err(ServeError::FileSystem)?, listener)
    } else {
        run(PassthroughFs::new(config).map_err(ServeError::FileSystem)?, listener)
    }
}

fn configure(descriptors: Descriptors, share: &Share) -> Result<passthrough::Config, ServeError> {
    let (cache_policy, timeout) = match share.cache {
        Cache::Auto => (CachePolicy::Auto, Duration::from_secs(1)),
        Cache::Always => (CachePolicy::Always, A_DAY),
        Cache::Never => (CachePolicy::Never, Duration::ZERO),
    };
    let attributes = XattrMap::try_from(ATTRIBUTES)
        .map_err(|error| ServeError::FileSystem(io::Error::other(format!("{error:?}"))))?;
    let guest_fd_limit =
        share.max_files.checked_sub(OWN_FILES).ok_or(ServeError::FileLimit(share.max_files))?;
    Ok(passthrough::Config {
        entry_timeout: timeout,
        attr_timeout: timeout,
        cache_policy,
        // What the guest has written is the host's at once: others see it, and a VM may be killed at any time.
        writeback: false,
        xattr: true,
        xattrmap: Some(attributes),
        proc_sfd_rawfd: Some(descriptors.own_fds),
        announce_submounts: true,
        // See the jail.
        inode_file_handles: InodeFileHandlesMode::Never,
        readdirplus: share.cache != Cache::Never,
        killpriv_v2: true,
        posix_acl: NegotiationMode::Auto,
        guest_fd_limit,
        ..passthrough::Config::default()
    })
}

fn run<F>(fs: F, listener: UnixListener) -> Result<(), ServeError>
where
    F: FileSystem + SerializableFileSystem + Send + Sync + 'static,
{
    let start = |error: &dyn std::fmt::Display| ServeError::Start(error.to_string());
    // One thread answers all requests, in order: with more, each request would be handed over to another.
    let backend = VhostUserFsBackendBuilder::default().build(fs).map_err(|error| start(&error))?;
    let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
    let mut daemon = VhostUserDaemon::new("vhost-user".into(), Arc::new(backend), memory)
        .map_err(|error| start(&error))?;
    let mut listener = Listener::from(listener);
    daemon.start(&mut listener).map_err(|error| start(&error))?;
    drop(listener);
    filter::apply_last()?;
    match daemon.wait() {
        Ok(()) => {}
        Err(virtiofsd_backend::Error::HandleRequest(
            ProtocolError::Disconnected | ProtocolError::PartialMessage,
        )) => {}
        Err(error) => return Err(ServeError::Protocol(error.to_string())),
    }
    // Without waiting for threads: a request under way is the kernel's to end.
    process::exit(0);
}
