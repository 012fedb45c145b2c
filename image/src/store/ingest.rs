//! Blobs on their way into the store.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use husk_base::atomic::sync_directory;
use husk_base::lock::{is_still_at, lock_with};
use sha2::{Digest as _, Sha256};

use super::Store;
use crate::{Digest, Error, Result};

/// A blob being written: its file is locked, so that no other process writes the same. Dropping it keeps what is
/// there, to be resumed.
#[derive(Debug)]
pub(crate) struct Ingest {
    store: Store,
    digest: Digest,
    size: u64,
    path: PathBuf,
    file: File,
    hasher: Sha256,
    written: u64,
    /// Whether some of the bytes are from an earlier attempt.
    resumed: bool,
}

impl Ingest {
    /// Starts or resumes writing a blob. Waits while another process writes the same one. The caller has it under
    /// lease. `None` means that the blob is there.
    pub(crate) fn open(store: &Store, digest: &Digest, size: u64) -> Result<Option<Self>> {
        let path = store.ingest_dir().join(digest.hex());
        let mut options = File::options();
        options.create(true).truncate(false).read(true).write(true);
        let file = lock_with(&path, &options).map_err(Error::in_store(&store.root))?;
        let ingest = Self {
            store: store.clone(),
            digest: digest.clone(),
            size,
            path,
            file,
            hasher: Sha256::new(),
            written: 0,
            resumed: false,
        };
        // Looked for only now, as the one who held the lock before may have finished it.
        if store.has_blob(digest, size) {
            ingest.discard();
            return Ok(None);
        }
        ingest.resume().map(Some)
    }

    /// Takes in what an earlier attempt left.
    fn resume(mut self) -> Result<Self> {
        let length = self.file.metadata().map_err(Error::io("read", &self.path))?.len();
        if length > self.size {
            self.restart()?;
        } else if length > 0 {
            let mut buffer = vec![0; 256 << 10];
            loop {
                let count = self.file.read(&mut buffer).map_err(Error::io("read", &self.path))?;
                if count == 0 {
                    break;
                }
                self.hasher.update(&buffer[..count]);
                self.written += count as u64;
            }
            self.resumed = true;
        }
        Ok(self)
    }

    /// Bytes here so far.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Whether some of the bytes are from an earlier attempt, so that a wrong digest may be that one's fault.
    pub(crate) fn resumed(&self) -> bool {
        self.resumed
    }

    /// Appends bytes. More than announced is an error. A full disk removes the partial file.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let total = self.written + bytes.len() as u64;
        if total > self.size {
            self.restart()?;
            return Err(Error::SizeMismatch {
                what: format!("blob {}", self.digest),
                expected: self.size,
                actual: total,
            });
        }
        self.file.write_all(bytes).map_err(|e| self.write_error(e))?;
        self.hasher.update(bytes);
        self.written = total;
        Ok(())
    }

    /// Starts over from nothing.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.file
            .set_len(0)
            .and_then(|()| self.file.seek(SeekFrom::Start(0)))
            .map_err(Error::store_write(&self.store.root, &self.path))?;
        self.hasher = Sha256::new();
        self.written = 0;
        self.resumed = false;
        Ok(())
    }

    /// Notes that the connection broke: what is here is to be continued by another request.
    pub(crate) fn mark_resumed(&mut self) {
        self.resumed = self.written > 0;
    }

    /// Verifies length and digest and puts the blob into the store, durably; then this ingest is done with. On a wrong
    /// digest the partial file is emptied, for another attempt.
    pub(crate) fn commit(&mut self) -> Result<()> {
        let what = || format!("blob {}", self.digest);
        if self.written != self.size {
            return Err(Error::SizeMismatch { what: what(), expected: self.size, actual: self.written });
        }
        let actual = Digest::from_hasher(std::mem::take(&mut self.hasher));
        if actual != self.digest {
            let error = Error::DigestMismatch { what: what(), expected: self.digest.clone(), actual };
            self.restart()?;
            return Err(error);
        }
        self.file.sync_all().map_err(|e| self.write_error(e))?;
        place(&self.store, &self.path, &self.digest)
    }

    /// Removes the partial file.
    pub(crate) fn discard(self) {
        self.remove_file();
    }

    fn remove_file(&self) {
        // If this fails, the file stays as any broken-off download does.
        let _ = fs::remove_file(&self.path);
    }

    fn write_error(&self, error: io::Error) -> Error {
        let error = Error::store_write(&self.store.root, &self.path)(error);
        if matches!(error, Error::NoSpace { .. }) {
            self.remove_file();
        }
        error
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        // After a commit the name is gone already. The lock is still held, so this is nobody else's file.
        if self.written == 0 && is_still_at(&self.file, &self.path).is_ok_and(|is_at| is_at) {
            self.remove_file();
        }
    }
}

/// Moves a complete, synced file to its place among the blobs.
pub(super) fn place(store: &Store, from: &Path, digest: &Digest) -> Result<()> {
    let to = store.blob_path(digest);
    fs::rename(from, &to)
        .and_then(|()| sync_directory(&store.root.join("blobs/sha256")))
        .map_err(Error::store_write(&store.root, &to))
}
