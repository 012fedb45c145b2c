//! Requests in flight by io_uring.
//!
//! The kernel may use a request's memory and file until it reports the request's end, so the ring owns both until then,
//! and is not left before all have ended.
//!
//! A flush needs no order among requests in flight: it is about writes whose end the driver has been told of before it
//! asked (virtio 1.2, section 5.2.6.2), and those had ended in the kernel before the flush was so much as seen. Writes
//! still in flight beside it may or may not be covered, which is all that is asked for.

use std::{
    io,
    os::fd::{AsRawFd, RawFd},
};

use io_uring::{IoUring, opcode, register::Restriction, squeue, types};

use super::{
    QUEUE_SIZE,
    disk::{DISCARD, zero_mode},
    job::{Done, Job, in_place},
    kind::Kind,
};

/// Most requests in flight on a queue.
pub(super) const MAX_IN_FLIGHT: usize = QUEUE_SIZE as usize;

const ENTRIES: u32 = QUEUE_SIZE as u32;

/// A ring and what is in it.
pub(super) struct Ring {
    ring: IoUring,
    /// The requests in flight, by the number that the kernel knows them by.
    jobs: Vec<Option<Job>>,
    /// Numbers that are free.
    free: Vec<usize>,
    /// Requests that the kernel has not been told of.
    unsubmitted: usize,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("in_flight", &self.in_flight()).finish_non_exhaustive()
    }
}

impl Ring {
    /// A ring that takes no other operations than a disk needs, whoever may come to write into it.
    ///
    /// # Errors
    /// When the host has no io_uring, an old one, or does not allow it.
    pub(super) fn new() -> io::Result<Self> {
        let ring = IoUring::builder().setup_r_disabled().dontfork().build(ENTRIES)?;
        let mut allowed =
            [opcode::Readv::CODE, opcode::Writev::CODE, opcode::Fsync::CODE, opcode::Fallocate::CODE]
                .map(Restriction::sqe_op);
        ring.submitter().register_restrictions(&mut allowed)?;
        ring.submitter().register_enable_rings()?;
        Ok(Self { ring, jobs: Vec::new(), free: Vec::new(), unsubmitted: 0 })
    }

    pub(super) fn fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.jobs.len() - self.free.len()
    }

    /// Takes a request, or returns it if there are too many.
    pub(super) fn push(&mut self, job: Job) -> Option<Job> {
        if self.in_flight() >= MAX_IN_FLIGHT {
            return Some(job);
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.jobs.push(None);
            self.jobs.len() - 1
        });
        let entry = entry(&job).user_data(number as u64);
        // SAFETY: the descriptor, the vectors and the guest memory that they name belong to the job, which stays in
        // `jobs` until the kernel has reported its end. The vectors are on the heap and do not move with the job.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        if pushed.is_err() {
            self.free.push(number);
            return Some(job);
        }
        self.jobs[number] = Some(job);
        self.unsubmitted += 1;
        None
    }

    /// Tells the kernel of all new requests. Returns false if it should be told again later.
    ///
    /// # Errors
    /// When the ring is broken.
    pub(super) fn submit(&mut self) -> io::Result<bool> {
        while self.unsubmitted > 0 {
            match self.ring.submit() {
                Ok(count) => self.unsubmitted = self.unsubmitted.saturating_sub(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_short_of_memory(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// A request that has ended.
    pub(super) fn next_done(&mut self) -> Option<Done> {
        self.next_ended().map(|(job, result)| finish(job, result))
    }

    /// A request that the kernel is done with, and what it says of it.
    fn next_ended(&mut self) -> Option<(Job, i32)> {
        let entry = self.ring.completion().next()?;
        let number = usize::try_from(entry.user_data()).ok()?;
        let job = self.jobs.get_mut(number)?.take()?;
        self.free.push(number);
        Some((job, entry.result()))
    }

    /// Waits until nothing is in flight.
    pub(super) fn drain(&mut self) {
        while self.in_flight() > 0 {
            if self.next_ended().is_some() {
                continue;
            }
            match self.ring.submitter().submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted || is_short_of_memory(&error) => {}
                Err(_) => {
                    // The kernel may still use them, so they are never freed.
                    std::mem::forget(std::mem::take(&mut self.jobs));
                    self.free.clear();
                }
            }
        }
        self.unsubmitted = 0;
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.drain();
    }
}

fn is_short_of_memory(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY))
}

fn entry(job: &Job) -> squeue::Entry {
    let fd = types::Fd(job.disk.file().as_raw_fd());
    let vectors = job.buffers.data();
    let count = u32::try_from(vectors.len()).unwrap_or(0);
    let vectors = vectors.as_ptr().cast();
    match job.kind {
        Kind::Read => opcode::Readv::new(fd, vectors, count).offset(job.offset).build(),
        Kind::Write { durable } => {
            let flags = if durable { libc::RWF_DSYNC } else { 0 };
            opcode::Writev::new(fd, vectors, count).offset(job.offset).rw_flags(flags).build()
        }
        Kind::Flush => opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build(),
        Kind::Discard => opcode::Fallocate::new(fd, job.len).offset(job.offset).mode(DISCARD).build(),
        Kind::WriteZeroes { unmap, .. } => {
            opcode::Fallocate::new(fd, job.len).offset(job.offset).mode(zero_mode(unmap)).build()
        }
    }
}

/// What became of a request. What the kernel has not completed, or can't do this way, is finished in place; that is
/// rare.
fn finish(mut job: Job, result: i32) -> Done {
    let result = match usize::try_from(result) {
        Ok(count) => Ok(count),
        Err(_) => match io::Error::from_raw_os_error(-result) {
            error if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EOPNOTSUPP)) => {
                return in_place(job);
            }
            error => Err(error),
        },
    };
    let result = match (job.kind, result) {
        (Kind::Flush, result) => job.disk.flushed(result.map(drop)),
        (Kind::WriteZeroes { durable: true, .. }, Ok(_)) => job.disk.flush(),
        (Kind::Read | Kind::Write { .. }, Ok(count)) => {
            job.offset += count as u64;
            job.buffers.advance(count);
            if !job.buffers.is_done() {
                return in_place(job);
            }
            Ok(())
        }
        (_, result) => result.map(drop),
    };
    Done { job, result }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_takes_no_other_operations() {
        let Ok(mut ring) = Ring::new() else { return eprintln!("skipped: this host has no io_uring") };
        for entry in [opcode::Nop::new().build(), opcode::Close::new(types::Fd(0)).build()] {
            // SAFETY: neither names any memory, and neither is carried out.
            unsafe { ring.ring.submission().push(&entry) }.unwrap();
            ring.ring.submit_and_wait(1).unwrap();
            assert_eq!(ring.ring.completion().next().unwrap().result(), -libc::EACCES);
        }
    }
}
