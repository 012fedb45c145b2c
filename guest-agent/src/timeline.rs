//! When things happened in the guest, for the host's timeline.

use std::sync::atomic::{AtomicU64, Ordering};

use husk_protocol::agent::TimelineResponse;

/// A moment that is recorded the first time it comes. 0: not yet.
#[derive(Debug)]
pub(crate) struct Stamp(AtomicU64);

impl Stamp {
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Records now, unless it was recorded before.
    pub(crate) fn record(&self) {
        if self.0.load(Ordering::Relaxed) == 0 {
            self.0.store(now_ns(), Ordering::Relaxed);
        }
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The agent's main began.
pub(crate) static INIT: Stamp = Stamp::new();
/// It began to serve.
pub(crate) static READY: Stamp = Stamp::new();
/// The first container had been created.
pub(crate) static CREATED: Stamp = Stamp::new();
/// The first container's process was let go.
pub(crate) static STARTED: Stamp = Stamp::new();
/// The first byte of output was read.
pub(crate) static FIRST_OUTPUT: Stamp = Stamp::new();
/// The first container's process ended.
pub(crate) static EXITED: Stamp = Stamp::new();

/// CLOCK_BOOTTIME in nanoseconds.
pub(crate) fn now_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec to write to.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut time) };
    let part = |v: i64| u64::try_from(v).unwrap_or_default();
    part(time.tv_sec) * 1_000_000_000 + part(time.tv_nsec)
}

/// The stamps so far.
pub(crate) fn response() -> TimelineResponse {
    TimelineResponse {
        init_ns: INIT.get(),
        ready_ns: READY.get(),
        created_ns: CREATED.get(),
        started_ns: STARTED.get(),
        first_output_ns: FIRST_OUTPUT.get(),
        exited_ns: EXITED.get(),
        now_ns: now_ns(),
        ..Default::default()
    }
}
