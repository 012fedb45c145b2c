//! A queue's requests, from the driver and back to it; without events, so that it works on plain memory.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use virtio_bindings::virtio_blk::{VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK};
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::GuestMemoryMmap;

use super::{
    engine::Engine,
    job::{Done, Job, in_place},
    kind::Kind,
    request::{self, Request},
    ring::MAX_IN_FLIGHT,
    slot::Slot,
};
use crate::{log::guest_fault, time::monotonic_ns, virtio::serve::ServeError};

/// Most requests taken between two looks at whether to stop. Their ends are signalled together.
const BATCH: usize = 64;

/// A flush that takes no longer than this, in nanoseconds, may hold up requests that come meanwhile.
const QUICK_FLUSH_NS: u64 = 1_000_000;

/// How long requests that the host has no room for wait until they are tried again, unless somebody asks for it before.
const RETRY_NS: u64 = 1_000_000_000;

/// A queue in use. Dropping it waits for all that is in flight, but not for room.
#[derive(Debug)]
pub(super) struct BlockQueue<'e> {
    pub(super) mem: Arc<GuestMemoryMmap>,
    pub(super) queue: Queue,
    pub(super) slot: Arc<Slot>,
    pub(super) engine: &'e mut Engine,
    /// Whether a write must be on stable storage when its end is reported: the driver knows of no flush.
    pub(super) durable: bool,
    /// Whether the next request is one that a rate limit holds up.
    throttled: bool,
    /// Whether the last flush was quick, as on a host that has nothing slower than memory to write to.
    pub(super) quick_flush: bool,
    /// Requests that the host has no room for. As long as there are any, no others are taken.
    waiting: VecDeque<Job>,
    /// When they are tried again.
    retry_at_ns: u64,
    /// How often the disk's queues had been asked to try again when this one last did.
    asked: u64,
    /// Whether the slot knows that this queue waits.
    waits: bool,
}

/// What to do after a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Wait for the driver, or for requests in flight.
    Wait,
    /// Go on.
    GoOn,
    /// Wait so long, or until the rate limit changes, or for requests in flight.
    Throttled(Duration),
    /// The host has no room: wait so long, or until asked to try again, or for requests in flight.
    NoRoom(Duration),
    /// Go on soon: the host's kernel is short of memory.
    Retry,
}

/// What a pass came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pass {
    /// What to do next.
    pub(super) next: Next,
    /// Whether to interrupt the driver.
    pub(super) notify: bool,
    /// How many requests it has taken.
    pub(super) taken: usize,
}

impl<'e> BlockQueue<'e> {
    /// A queue of which no request has been taken.
    pub(super) fn new(
        mem: Arc<GuestMemoryMmap>,
        queue: Queue,
        slot: Arc<Slot>,
        engine: &'e mut Engine,
        durable: bool,
    ) -> Self {
        let (throttled, quick_flush, waiting, retry_at_ns, waits) = Default::default();
        let asked = slot.room.asked();
        Self { mem, queue, slot, engine, durable, throttled, quick_flush, waiting, retry_at_ns, asked, waits }
    }

    /// Begins what the driver wants, up to a limit, and returns what has ended. `now_ns` is the time for rate limits, in
    /// nanoseconds of `CLOCK_MONOTONIC`.
    ///
    /// # Errors
    /// When the driver broke the rules: the device is of no use until it is reset.
    pub(super) fn pass(&mut self, now_ns: u64) -> Result<Pass, ServeError> {
        let mut returned = self.return_done(now_ns)? + self.retry(now_ns)?;
        self.queue.disable_notification(&*self.mem)?;
        let first = self.queue.next_avail();
        let mut next = self.take(now_ns, &mut returned)?;
        let taken = usize::from(self.queue.next_avail().wrapping_sub(first));
        let submitted = self.engine.submit()?;
        // Much ends while it is submitted.
        returned += self.return_done(now_ns)?;
        self.report_room();
        if self.waits {
            next = match self.retry_at_ns.saturating_sub(now_ns) {
                0 => Next::GoOn,
                wait_ns => Next::NoRoom(Duration::from_nanos(wait_ns)),
            };
        } else if next == Next::Wait
            && self.engine.in_flight() < MAX_IN_FLIGHT
            && self.queue.enable_notification(&*self.mem)?
        {
            next = Next::GoOn;
        }
        if !submitted {
            next = Next::Retry;
        }
        let notify = returned > 0 && self.queue.needs_notification(&*self.mem)?;
        Ok(Pass { next, notify, taken })
    }

    /// Begins requests until there are no more, or no more can be taken.
    pub(super) fn take(&mut self, now_ns: u64, returned: &mut usize) -> Result<Next, ServeError> {
        for _ in 0..BATCH {
            if self.engine.in_flight() >= MAX_IN_FLIGHT || !self.waiting.is_empty() {
                return Ok(Next::Wait);
            }
            let mem = self.mem.clone();
            let Some(chain) = self.queue.iter(&*mem)?.next() else { return Ok(Next::Wait) };
            let job = match request::read(&mem, chain, &self.slot.target(), self.durable, now_ns)? {
                Request::Io(job) => job,
                Request::Answered(answered) => {
                    self.slot.counters.errors.add(answered.failed.into());
                    self.queue.add_used(&*mem, answered.head, answered.written)?;
                    *returned += 1;
                    continue;
                }
            };
            if let Err(wait) = self.slot.limiter.take(job.limited_bytes(), now_ns) {
                // It stays in the queue, and is read anew.
                self.queue.go_to_previous_position();
                self.slot.counters.throttled.add((!self.throttled).into());
                self.throttled = true;
                return Ok(Next::Throttled(wait));
            }
            self.throttled = false;
            let more = self.queue.avail_idx(&*mem, Ordering::Relaxed)?.0 != self.queue.next_avail();
            let slow = job.kind == Kind::Flush && !self.quick_flush;
            let alone = !more && self.engine.in_flight() == 0 && !slow;
            if let Some(done) = self.engine.start(job, alone) {
                *returned += usize::from(self.finish(done, now_ns)?);
            }
        }
        Ok(Next::GoOn)
    }

    /// Tries again what waits for room, if it is time or the disk was asked to, up to a limit. Returns how many requests
    /// it returned to the driver.
    fn retry(&mut self, now_ns: u64) -> Result<usize, ServeError> {
        let asked = self.slot.room.asked();
        if asked != std::mem::replace(&mut self.asked, asked) {
            self.retry_at_ns = now_ns;
        }
        let mut count = 0;
        if now_ns < self.retry_at_ns {
            return Ok(count);
        }
        for _ in 0..BATCH {
            let Some(job) = self.waiting.pop_front() else { break };
            if !self.finish(in_place(job), now_ns)? {
                self.retry_at_ns = now_ns.saturating_add(RETRY_NS);
                break;
            }
            count += 1;
        }
        Ok(count)
    }

    /// Lets the slot know if this queue does not wait for room any more.
    fn report_room(&mut self) {
        if self.waits && self.waiting.is_empty() {
            self.waits = false;
            let id = self.slot.target().disk.map(|_| self.slot.id());
            self.slot.room.end(id.as_deref());
        }
    }

    /// Returns all requests that have ended.
    fn return_done(&mut self, now_ns: u64) -> Result<usize, ServeError> {
        let mut count = 0;
        while let Some(done) = self.engine.next_done() {
            count += usize::from(self.finish(done, now_ns)?);
        }
        Ok(count)
    }

    /// Returns a request to the driver, unless it waits for room from now on. Returns whether it did.
    fn finish(&mut self, Done { job, result }: Done, now_ns: u64) -> Result<bool, ServeError> {
        if let Err(error) = &result
            && let Some(reason) = self.slot.room.refusal(job.kind, error)
            && self.slot.has(&job.disk)
        {
            if self.waiting.is_empty() {
                self.retry_at_ns = now_ns.saturating_add(RETRY_NS);
            }
            self.waiting.push_back(job);
            if !std::mem::replace(&mut self.waits, true) {
                self.slot.room.begin(&self.slot.id(), reason);
            }
            return Ok(false);
        }
        let counters = &self.slot.counters;
        match result {
            Ok(()) => {
                counters.count(job.kind, job.len);
                job.buffers.set_status(VIRTIO_BLK_S_OK);
            }
            Err(error) => {
                if job.disk.is_new_error(job.kind, &error) {
                    let (id, verb) = (self.slot.id(), job.kind.verb());
                    guest_fault(format_args!(
                        "disk {id}: cannot {verb}: {error}: the guest gets an I/O error"
                    ));
                }
                counters.errors.add(1);
                job.buffers.set_status(VIRTIO_BLK_S_IOERR);
            }
        }
        let took_ns = monotonic_ns().saturating_sub(job.taken_ns);
        counters.latency.record(took_ns);
        if job.kind == Kind::Flush {
            self.quick_flush = took_ns <= QUICK_FLUSH_NS;
        }
        self.queue.add_used(&*self.mem, job.head, job.written)?;
        Ok(true)
    }
}

impl Drop for BlockQueue<'_> {
    fn drop(&mut self) {
        self.engine.drain();
        if self.waits {
            self.slot.room.end(None);
        }
    }
}
