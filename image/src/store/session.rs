//! A directory for the files of one load, whose digests are known only when they have been read.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::PathBuf;

use husk_base::lock::is_still_at;
use sha2::{Digest as _, Sha256};

use super::Lease;
use super::Store;
use super::ingest::place;
use super::lease::unique_name;
use crate::{Digest, Error, Result};

/// Files on their way in; those not taken over by [`Session::keep`] vanish with it.
#[derive(Debug)]
pub(crate) struct Session {
    store: Store,
    dir: PathBuf,
    /// Holds the directory's lock.
    _lock: File,
    count: u64,
}

/// A file in a session, complete and hashed.
#[derive(Clone, Debug)]
pub(crate) struct Staged {
    pub(crate) path: PathBuf,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

impl Session {
    /// Makes the directory.
    pub(crate) fn new(store: &Store) -> Result<Self> {
        loop {
            let dir = store.ingest_dir().join(unique_name("load-"));
            fs::create_dir(&dir).map_err(Error::store_write(&store.root, &dir))?;
            // A sweep may come between; then the directory is gone, and another is made.
            let Ok(lock) = File::open(&dir) else { continue };
            lock.lock().map_err(Error::io("lock", &dir))?;
            if is_still_at(&lock, &dir)? {
                return Ok(Self { store: store.clone(), dir, _lock: lock, count: 0 });
            }
        }
    }

    /// Takes in all of `reader`, which `source` names in errors.
    pub(crate) fn stage(&mut self, reader: &mut dyn Read, source: &str) -> Result<Staged> {
        self.count += 1;
        let path = self.dir.join(self.count.to_string());
        let write_error = |e| Error::store_write(&self.store.root, &path)(e);
        let mut file = File::create_new(&path).map_err(write_error)?;
        let (mut hasher, mut size, mut buffer) = (Sha256::new(), 0, vec![0; 256 << 10]);
        loop {
            let count = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    let problem = error.to_string();
                    return Err(Error::NotAnArchive { source_name: source.to_owned(), problem });
                }
            };
            file.write_all(&buffer[..count]).map_err(write_error)?;
            hasher.update(&buffer[..count]);
            size += count as u64;
        }
        Ok(Staged { path, digest: Digest::from_hasher(hasher), size })
    }

    /// Opens a staged file, also when it has moved to its place among the blobs.
    pub(crate) fn open(&self, staged: &Staged) -> io::Result<File> {
        File::open(&staged.path).or_else(|_| File::open(self.store.blob_path(&staged.digest)))
    }

    /// All bytes of a small staged file.
    pub(crate) fn read(&self, staged: &Staged) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open(staged)
            .and_then(|mut file| file.read_to_end(&mut bytes))
            .map_err(Error::io("read", &staged.path))?;
        Ok(bytes)
    }

    /// Puts a staged file into the store, unless the store has it.
    pub(crate) fn keep(&self, lease: &mut Lease, staged: &Staged) -> Result<()> {
        lease.protect([&staged.digest])?;
        if self.store.has_blob(&staged.digest, staged.size) {
            return Ok(());
        }
        File::open(&staged.path)
            .and_then(|file| file.sync_all())
            .map_err(Error::store_write(&self.store.root, &staged.path))?;
        place(&self.store, &staged.path, &staged.digest)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // If this fails, the next lease sweeps it.
        let _ = fs::remove_dir_all(&self.dir);
    }
}
