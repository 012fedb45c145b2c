//! Follows the log of a container that may still run.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;

use super::{
    ReadOptions, Record,
    reader::{Walk, unreadable},
};
use crate::{Result, watch::Watch};

/// The records that a log holds, and then those that are written, across rotations, until the container has ended.
///
/// A record is lost only if as many rotations as there are files happen before it is read: the files are held open
/// from the moment that they are seen.
#[derive(Debug)]
pub struct Follower<E> {
    path: PathBuf,
    walk: Walk,
    changes: Watch,
    until: Option<Timestamp>,
    ended: Ended<E>,
}

#[derive(Debug)]
enum Ended<E> {
    NotYet(E),
    Yes,
}

impl<E: Future<Output = ()> + Unpin> Follower<E> {
    /// Opens all files of the log at `path`. The log need not exist yet, but its directory.
    ///
    /// `ended` completes when the writer has finished: what is in the log then is still delivered. Reading also ends at
    /// the time `until`, if the options have one.
    ///
    /// Needs a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// The directory can't be watched, or a file can't be opened or read.
    pub fn open(path: &Path, options: &ReadOptions, ended: E) -> Result<Self> {
        let error = |source| unreadable(path, source);
        // Before the files are read: a change after that is not missed.
        let changes = Watch::begin(path.parent().unwrap_or(Path::new("/"))).map_err(error)?;
        let walk = Walk::open(path, options, true).map_err(error)?;
        let ended = Ended::NotYet(ended);
        Ok(Self { path: path.to_owned(), walk, changes, until: options.until, ended })
    }

    /// Waits for the next record. `None`: the container has ended, and all is delivered. The future may be dropped, and
    /// no record is lost.
    ///
    /// # Errors
    /// A file can't be opened or read.
    pub async fn next(&mut self) -> Result<Option<Record>> {
        self.advance().await.map_err(|source| unreadable(&self.path, source))
    }

    async fn advance(&mut self) -> io::Result<Option<Record>> {
        // A container that writes without a pause must not stop the runtime's other tasks.
        tokio::task::consume_budget().await;
        loop {
            if let Some(record) = self.walk.next(matches!(self.ended, Ended::Yes))? {
                return Ok(Some(record));
            }
            let Ended::NotYet(ended) = &mut self.ended else { return Ok(None) };
            if self.walk.is_finished() {
                return Ok(None);
            }
            tokio::select! {
                changed = self.changes.changed() => changed?,
                () = ended => self.ended = Ended::Yes,
                () = reached(self.until) => self.ended = Ended::Yes,
            }
        }
    }
}

/// Waits until the time `until`; without one, for ever.
async fn reached(until: Option<Timestamp>) {
    let Some(until) = until else { return std::future::pending().await };
    let left = until.duration_since(Timestamp::now());
    tokio::time::sleep(Duration::try_from(left).unwrap_or_default()).await;
}
