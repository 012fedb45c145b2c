//! A rate limit and the timer that tells when to ask again.

use std::{
    io,
    os::fd::{AsRawFd, RawFd},
};

use vmm_sys_util::timerfd::TimerFd;

use crate::{rate_limit::RateLimiter, time::monotonic_ns};

/// One direction's limit, as one thread sees it.
#[derive(Debug)]
pub(super) struct Throttle {
    limiter: RateLimiter,
    timer: TimerFd,
}

impl Throttle {
    /// Asks `limiter`, which others may share.
    ///
    /// # Errors
    /// When there is no timer to be had.
    pub(super) fn new(limiter: RateLimiter) -> io::Result<Self> {
        Ok(Self { limiter, timer: TimerFd::new()? })
    }

    /// Whether a frame may pass now. If not, one of [`Self::events`] becomes readable when it is time to ask again.
    ///
    /// # Errors
    /// When the timer can't be set.
    pub(super) fn admit(&mut self, bytes: usize) -> io::Result<bool> {
        match self.limiter.take(bytes as u64, monotonic_ns()) {
            Ok(()) => Ok(true),
            Err(wait) => {
                self.timer.reset(wait, None)?;
                Ok(false)
            }
        }
    }

    /// The descriptors that tell to ask again: the time has come, or the limit is another. To be watched for edges, and
    /// not to be read: other threads watch the limit as well.
    pub(super) fn events(&self) -> [RawFd; 2] {
        [self.timer.as_raw_fd(), self.limiter.changed().as_raw_fd()]
    }
}
