//! Waits for a text in a file that a VMM writes a guest's console to.

use std::{
    fs::{self, File},
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::inotify::{AddWatchFlags, InitFlags, Inotify},
};

use super::process::Running;

/// How long a guest may say nothing, in milliseconds of its host.
const TIMEOUT_MS: u16 = 5_000;

/// An empty file and a watch on it.
#[derive(Debug)]
pub(crate) struct Console {
    path: PathBuf,
    watch: Inotify,
}

impl Console {
    /// Makes the file anew.
    pub(crate) fn new(path: &Path) -> Result<Self> {
        if path.exists() {
            fs::remove_file(path)?;
        }
        File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        let watch = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        watch.add_watch(path, AddWatchFlags::IN_MODIFY)?;
        Ok(Self { path: path.into(), watch })
    }

    /// Returns as soon as a line of the file is `text`.
    ///
    /// # Errors
    /// When the writer ends before, or takes too long.
    pub(crate) fn wait_for(&self, text: &str, writer: &Running) -> Result<()> {
        let ended = writer.pidfd()?;
        loop {
            let said = fs::read_to_string(&self.path).unwrap_or_default();
            if said.lines().any(|line| line.trim() == text) {
                return Ok(());
            }
            let mut polled = [
                PollFd::new(self.watch.as_fd(), PollFlags::POLLIN),
                PollFd::new(ended.as_fd(), PollFlags::POLLIN),
            ];
            ensure!(
                poll(&mut polled, PollTimeout::from(TIMEOUT_MS))? > 0,
                "the guest said {said:?} and no more"
            );
            if polled[1].revents().is_some_and(|events| !events.is_empty()) {
                bail!("the VMM ended, and its guest had said {said:?}");
            }
            // What is read counts for nothing: that there was something did.
            let _ = self.watch.read_events();
        }
    }
}
