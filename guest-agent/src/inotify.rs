//! inotify(7) in the event loop.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, RawFd},
    path::Path,
};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use tokio::io::unix::AsyncFd;

/// Tells of changes to files.
#[derive(Debug)]
pub(crate) struct Watcher(AsyncFd<Source>);

#[derive(Debug)]
struct Source(Inotify);

impl AsRawFd for Source {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Watcher {
    /// A watcher of nothing so far. Must be called in a Tokio runtime.
    pub(crate) fn new() -> io::Result<Self> {
        let source = Source(Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?);
        // SAFETY: the source owns its descriptor, which stays the same and open until the source is dropped.
        Ok(Self(unsafe { AsyncFd::register(source) }?))
    }

    /// Watches the contents of a file.
    pub(crate) fn add(&self, file: &Path) -> nix::Result<WatchDescriptor> {
        self.0.get_ref().0.add_watch(file, AddWatchFlags::IN_MODIFY)
    }

    /// Stops a watch. That its file is gone, and the watch with it, is fine.
    pub(crate) fn remove(&self, watch: WatchDescriptor) {
        let _ = self.0.get_ref().0.rm_watch(watch);
    }

    /// Waits for changes and returns which watches they are of.
    pub(crate) async fn changes(&self) -> io::Result<Vec<WatchDescriptor>> {
        loop {
            let mut ready = self.0.readable().await?;
            match self.0.get_ref().0.read_events() {
                Ok(events) => return Ok(events.into_iter().map(|event| event.wd).collect()),
                Err(nix::Error::EAGAIN) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
