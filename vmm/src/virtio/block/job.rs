//! A request that needs I/O, from when it was read until it ends.

use std::{io, sync::Arc};

use super::{buffers::Buffers, disk::Disk, kind::Kind};

/// A valid request, with all that its I/O needs.
#[derive(Debug)]
pub(super) struct Job {
    /// The chain that it came in.
    pub(super) head: u16,
    /// How many bytes of the guest's memory may be written.
    pub(super) written: u32,
    /// When it was taken from the queue, in nanoseconds of `CLOCK_MONOTONIC`.
    pub(super) taken_ns: u64,
    /// Data and status.
    pub(super) buffers: Buffers,
    /// Where. Detaching a disk waits until no job has it any more.
    pub(super) disk: Arc<Disk>,
    /// What.
    pub(super) kind: Kind,
    /// The first byte of the disk that it is about.
    pub(super) offset: u64,
    /// How many bytes of the disk it is about.
    pub(super) len: u64,
}

impl Job {
    /// The bytes that a rate limit counts. Zeros count, since the host may have to write them.
    pub(super) fn limited_bytes(&self) -> u64 {
        match self.kind {
            Kind::Flush | Kind::Discard => 0,
            Kind::Read | Kind::Write { .. } | Kind::WriteZeroes { .. } => self.len,
        }
    }
}

/// A request that has ended.
#[derive(Debug)]
pub(super) struct Done {
    /// The request.
    pub(super) job: Job,
    /// How it ended.
    pub(super) result: io::Result<()>,
}

/// Carries out a request, or the rest of one, on this thread.
pub(super) fn in_place(mut job: Job) -> Done {
    let Job { disk, buffers, offset, len, kind, .. } = &mut job;
    let result = match *kind {
        Kind::Read => disk.read(buffers, *offset),
        Kind::Write { durable } => disk.write(buffers, offset, durable),
        Kind::Flush => disk.flush(),
        Kind::Discard => disk.discard(*offset, *len),
        Kind::WriteZeroes { unmap, durable } => {
            let written = disk.write_zeroes(*offset, *len, unmap);
            if durable { written.and_then(|()| disk.flush()) } else { written }
        }
    };
    Done { job, result }
}
