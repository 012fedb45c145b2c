//! Waiting for changes of a file, or of the files in a directory.

use std::{io, os::fd::OwnedFd, path::Path};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::{Interest, unix::AsyncFd};

/// Learns of each change of one file, or of each file that is made, written, renamed or removed in one directory.
#[derive(Debug)]
pub(crate) struct Watch(AsyncFd<OwnedFd>);

impl Watch {
    /// From now on, no change is missed. Needs a tokio runtime with I/O.
    ///
    /// # Errors
    /// When it can't be watched.
    pub(crate) fn begin(path: &Path) -> io::Result<Self> {
        let changes = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let wanted = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVE | WatchFlags::DELETE;
        inotify::add_watch(&changes, path, wanted)?;
        // SAFETY: `AsyncFd` owns the descriptor, and an `OwnedFd` is one and the same descriptor as long as it lives.
        Ok(Self(unsafe { AsyncFd::register_with_interest(changes, Interest::READABLE) }?))
    }

    /// Waits for a change, and takes all that are known. Which ones they are does not matter.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub(crate) async fn changed(&self) -> io::Result<()> {
        let mut ready = self.0.readable().await?;
        let mut events = [0; 4096];
        while let Ok(read) = ready.try_io(|changes| Ok(rustix::io::read(changes.get_ref(), &mut events)?)) {
            read?;
        }
        Ok(())
    }
}
