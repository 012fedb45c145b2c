//! A thread that stays in a pod's network namespace. An engine takes its number for that of a container's process: a number of
//! this host, as clients expect, whose `/proc/<pid>/ns/net` is the pod's network, while the container's processes have numbers
//! only inside the VM.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
};

use husk_base::IoError;
use nix::{
    sched::{CloneFlags, setns, unshare},
    unistd::gettid,
};

use super::error::Error;

/// Where a pod's network comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Network {
    /// This namespace's interfaces become the pod's.
    Namespace(PathBuf),
    /// A namespace that is still to be made, with nothing in it.
    New,
}

/// The thread. It ends with the process, or when this is dropped.
#[derive(Debug)]
pub struct Anchor {
    tid: u32,
    _stay: mpsc::Sender<()>,
}

impl Anchor {
    /// Starts the thread in the namespace, which it makes if need be.
    ///
    /// # Errors
    /// When the namespace can't be made or entered.
    pub fn new(network: &Network) -> Result<Self, Error> {
        let (stay, leave) = mpsc::channel::<()>();
        let (say, hear) = mpsc::sync_channel(1);
        let network = network.clone();
        let run = move || {
            let entered = enter(&network).map(|()| gettid().as_raw().unsigned_abs());
            let failed = entered.is_err();
            let _ = say.send(entered);
            if !failed {
                // Nobody sends: this returns when the other end is gone.
                let _ = leave.recv();
            }
        };
        let thread = thread::Builder::new().name("netns".into()).stack_size(64 * 1024).spawn(run);
        thread.map_err(IoError::of("start", "a thread"))?;
        let tid = hear.recv().map_err(|_| Error::AnchorLost)??;
        Ok(Self { tid, _stay: stay })
    }

    /// The thread's number, which is that of a process to those who look into `/proc`.
    pub fn pid(&self) -> u32 {
        self.tid
    }

    /// The namespace.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.tid).into()
    }
}

fn enter(network: &Network) -> Result<(), Error> {
    match network {
        Network::New => {
            Ok(unshare(CloneFlags::CLONE_NEWNET).map_err(IoError::of("make", "a network namespace"))?)
        }
        Network::Namespace(path) => enter_path(path),
    }
}

fn enter_path(path: &Path) -> Result<(), Error> {
    let namespace = File::open(path).map_err(IoError::of("open the network namespace", path))?;
    Ok(setns(namespace, CloneFlags::CLONE_NEWNET)
        .map_err(IoError::of("enter the network namespace", path))?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_thread_is_in_the_namespace() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: only root can make network namespaces");
            return;
        }
        let ours = fs::read_link("/proc/thread-self/ns/net").unwrap();
        let fresh = Anchor::new(&Network::New).unwrap();
        let theirs = fs::read_link(fresh.path()).unwrap();
        assert_ne!(theirs, ours);
        let again = Anchor::new(&Network::Namespace(fresh.path())).unwrap();
        assert_eq!(fs::read_link(again.path()).unwrap(), theirs);
        assert_eq!(fs::read_link("/proc/thread-self/ns/net").unwrap(), ours);
        assert!(Anchor::new(&Network::Namespace("/nonexistent".into())).is_err());
    }
}
