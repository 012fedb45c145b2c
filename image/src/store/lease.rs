//! Leases: what a running pull or load needs is not collected as garbage although no image refers to it yet.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use husk_base::atomic;

use super::Store;
use crate::digest::is_hex64;
use crate::{Digest, Error, Result};

const PREFIX: &str = "lease-";
/// How long a broken-off download is kept for resumption.
const KEEP_PARTIAL: Duration = Duration::from_hours(7 * 24);

/// Protects blobs from garbage collection until dropped; a process that dies drops it too.
#[derive(Debug)]
pub(crate) struct Lease {
    store: Store,
    path: PathBuf,
    /// Holds the lock, and a line for each digest.
    file: File,
}

impl Store {
    /// Starts a lease, empty at first.
    pub(crate) fn lease(&self) -> Result<Lease> {
        // Made under the store's lock, so that nobody takes it for a dead one before it is locked.
        let _lock = self.lock()?;
        self.sweep()?;
        let path = self.ingest_dir().join(unique_name(PREFIX));
        let file = File::create_new(&path).map_err(Error::store_write(&self.root, &path))?;
        file.lock().map_err(Error::io("lock", &path))?;
        Ok(Lease { store: self.clone(), path, file })
    }

    /// The digests under a lease. The caller holds the store's lock.
    pub(super) fn leased(&self) -> Result<HashSet<String>> {
        let dir = self.ingest_dir();
        let mut digests = HashSet::new();
        for entry in fs::read_dir(&dir).map_err(Error::io("list", &dir))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                let path = entry.path();
                let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
                digests.extend(text.lines().map(str::to_owned));
            }
        }
        Ok(digests)
    }

    /// Removes what dead processes left: leases, load directories, and broken-off downloads that are old. The caller
    /// holds the store's lock.
    pub(super) fn sweep(&self) -> Result<()> {
        atomic::sweep(&self.root);
        let dir = self.ingest_dir();
        for entry in fs::read_dir(&dir).map_err(Error::io("list", &dir))?.flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            // Whoever uses it holds its lock. All of this is best effort: the next one tries again.
            let Ok(file) = File::open(&path) else { continue };
            let old = || {
                let modified = file.metadata().and_then(|m| m.modified());
                modified
                    .is_ok_and(|m| SystemTime::now().duration_since(m).is_ok_and(|age| age > KEEP_PARTIAL))
            };
            if (is_hex64(&name) && !old()) || file.try_lock().is_err() {
                continue;
            }
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            if let Err(error) = removed {
                tracing::debug!(path = %path.display(), %error, "could not remove a leftover");
            }
        }
        Ok(())
    }
}

impl Lease {
    /// Protects `digests` too. Blobs found after this call stay.
    pub(crate) fn protect<'a>(&mut self, digests: impl IntoIterator<Item = &'a Digest>) -> Result<()> {
        let lines: String = digests.into_iter().map(|d| format!("{}\n", d.hex())).collect();
        let _lock = self.store.lock()?;
        self.file.write_all(lines.as_bytes()).map_err(Error::store_write(&self.store.root, &self.path))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // If this fails, the next lease removes it.
        let _ = fs::remove_file(&self.path);
    }
}

/// A file name no other process or thread uses at this time.
pub(super) fn unique_name(prefix: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |t| t.as_nanos());
    format!("{prefix}{}-{nanos}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}
