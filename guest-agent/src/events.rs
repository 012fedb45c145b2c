//! Tells the host of OOM kills, as the kernel counts them in each container's memory.events.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use nix::sys::inotify::WatchDescriptor;
use tokio::sync::{Mutex as AsyncMutex, mpsc};

use crate::{container::Cgroup, failure::Failure, inotify::Watcher};

/// Events that are kept while nobody asks for them. Later ones are dropped: the host sees the counts all the same.
const MAX_PENDING: usize = 256;

/// The watched containers and the events that have happened.
#[derive(Debug)]
pub(crate) struct Events {
    watcher: Arc<Watcher>,
    watched: Arc<Mutex<Watches>>,
    happened: AsyncMutex<mpsc::Receiver<String>>,
}

type Watches = HashMap<WatchDescriptor, Watch>;

#[derive(Debug)]
struct Watch {
    container_id: String,
    cgroup: Cgroup,
    oom_kills: u64,
}

impl Events {
    /// Starts to watch. Must be called in a Tokio runtime.
    pub(crate) fn start() -> std::io::Result<Self> {
        let (watcher, watched) = (Arc::new(Watcher::new()?), Arc::new(Mutex::new(Watches::new())));
        let (sender, happened) = mpsc::channel(MAX_PENDING);
        tokio::spawn(follow(Arc::clone(&watcher), Arc::clone(&watched), sender));
        Ok(Self { watcher, watched, happened: AsyncMutex::new(happened) })
    }

    /// Watches a container.
    pub(crate) fn watch(&self, container_id: &str, cgroup: Cgroup) -> Result<(), Failure> {
        let descriptor = match self.watcher.add(&cgroup.memory_events()) {
            Ok(descriptor) => descriptor,
            // A kernel without the memory controller kills no container for its memory.
            Err(nix::Error::ENOENT) => return Ok(()),
            Err(error) => return Err(Failure::io("cannot watch for OOM kills", &error.into())),
        };
        let watch = Watch { container_id: container_id.to_owned(), cgroup, oom_kills: 0 };
        lock(&self.watched).insert(descriptor, watch);
        Ok(())
    }

    /// Stops watching a container.
    pub(crate) fn unwatch(&self, container_id: &str) {
        lock(&self.watched).retain(|descriptor, watch| {
            let other = watch.container_id != container_id;
            if !other {
                self.watcher.remove(*descriptor);
            }
            other
        });
    }

    /// Waits for the next OOM kill: the id of its container.
    pub(crate) async fn next_oom(&self) -> Result<String, Failure> {
        let next = self.happened.lock().await.recv().await;
        next.ok_or_else(|| Failure::internal("watching for OOM kills has failed"))
    }
}

async fn follow(watcher: Arc<Watcher>, watched: Arc<Mutex<Watches>>, happened: mpsc::Sender<String>) {
    while let Ok(changes) = watcher.changes().await {
        for descriptor in changes {
            if let Some(watch) = lock(&watched).get_mut(&descriptor) {
                let kills = watch.cgroup.oom_kills();
                if kills > watch.oom_kills {
                    watch.oom_kills = kills;
                    let _ = happened.try_send(watch.container_id.clone());
                }
            }
        }
    }
}

fn lock(watched: &Mutex<Watches>) -> MutexGuard<'_, Watches> {
    watched.lock().unwrap_or_else(PoisonError::into_inner)
}
