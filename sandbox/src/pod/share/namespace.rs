//! A thread in a mount namespace of its own.
//!
//! The namespace is a copy of the host's, and slave to it: mounts made here are seen by nobody else but by processes that are
//! started from here.

use std::{
    io,
    sync::mpsc::{Sender, channel},
    thread,
};

use rustix::mount::{MountPropagationFlags, mount_change};
use tokio::sync::oneshot;

use crate::{Error, Result};

/// Enough for mounting, and too little for a huge page, with which the thread would take 2 MiB.
const STACK: usize = 256 * 1024;

type Job = Box<dyn FnOnce() + Send>;

/// The thread. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Namespace {
    jobs: Sender<Job>,
}

impl Namespace {
    /// Makes namespace and thread.
    pub(super) async fn start() -> Result<Self> {
        let (jobs, queue) = channel::<Job>();
        let work = move || {
            for job in queue {
                job();
            }
        };
        let thread = thread::Builder::new().name("mounts".into()).stack_size(STACK).spawn(work);
        thread.map_err(Error::io("start", "a thread for mounts"))?;
        let this = Self { jobs };
        this.run(enter).await??;
        Ok(this)
    }

    /// Does something there.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let (sender, done) = oneshot::channel();
        let job = Box::new(move || drop(sender.send(work())));
        let gone = || Error::io("reach", "the thread for mounts")(io::ErrorKind::BrokenPipe.into());
        self.jobs.send(job).map_err(|_| gone())?;
        done.await.map_err(|_| gone())
    }
}

fn enter() -> Result<()> {
    let failed = |error: io::Error| Error::io("make", "a mount namespace")(error);
    // SAFETY: takes no pointers; it changes what this thread alone sees of mounts, and gives it a working directory of its own.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } < 0 {
        return Err(failed(io::Error::last_os_error()));
    }
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change(c"/", slave).map_err(|error| failed(error.into()))
}
