//! Two ways to carry out requests: in place, on the queue's own thread, or in flight, by [io_uring](super::ring), where
//! the host has it.

use std::{io, os::fd::RawFd};

use super::{
    job::{Done, Job, in_place},
    kind::Kind,
    ring::Ring,
};

/// How a queue's requests are carried out.
#[derive(Debug)]
pub(super) enum Engine {
    /// One after the other.
    InPlace,
    /// Many at a time.
    Ring(Box<Ring>),
}

impl Engine {
    /// The best that the host has. It may have no io_uring, or forbid it.
    pub(super) fn new() -> Self {
        Ring::new().map_or(Self::InPlace, |ring| Self::Ring(Box::new(ring)))
    }

    /// Begins a request, and returns it if it has ended already. `alone`: it is the only one that there is, and may hold up
    /// those that come meanwhile.
    ///
    /// What is in the host's page cache is read, and what goes there is written, faster by one plain system call than by
    /// a ring, which hands most writes and all flushes to a thread of the kernel's: 1.6 µs against 8 µs for 4 KiB on
    /// ext4. So a request that no other waits behind is done in place, unless it has to wait for a device; a boot is made
    /// of such requests.
    /// With several at hand they all go to the ring, where none holds up another.
    pub(super) fn start(&mut self, mut job: Job, alone: bool) -> Option<Done> {
        let Self::Ring(ring) = self else { return Some(in_place(job)) };
        if alone {
            match job.kind {
                Kind::Read => match job.disk.read_cached(&mut job.buffers, job.offset) {
                    None => return Some(in_place(job)),
                    Some(_) if job.buffers.is_done() => return Some(Done { job, result: Ok(()) }),
                    Some(count) => job.offset += count as u64,
                },
                Kind::Write { durable: false } | Kind::Flush => return Some(in_place(job)),
                _ => {}
            }
        }
        ring.push(job).map(in_place)
    }

    /// Lets the kernel begin with all that was started. Returns whether it took all.
    ///
    /// # Errors
    /// When the ring is broken.
    pub(super) fn submit(&mut self) -> io::Result<bool> {
        match self {
            Self::InPlace => Ok(true),
            Self::Ring(ring) => ring.submit(),
        }
    }

    /// A request that has ended meanwhile.
    pub(super) fn next_done(&mut self) -> Option<Done> {
        match self {
            Self::InPlace => None,
            Self::Ring(ring) => ring.next_done(),
        }
    }

    /// How many requests have begun and not ended.
    pub(super) fn in_flight(&self) -> usize {
        match self {
            Self::InPlace => 0,
            Self::Ring(ring) => ring.in_flight(),
        }
    }

    /// The descriptor that is readable when a request has ended.
    pub(super) fn fd(&self) -> Option<RawFd> {
        match self {
            Self::InPlace => None,
            Self::Ring(ring) => Some(ring.fd()),
        }
    }

    /// Waits until nothing is in flight. What ends meanwhile is not returned to the driver.
    pub(super) fn drain(&mut self) {
        if let Self::Ring(ring) = self {
            ring.drain();
        }
    }
}
