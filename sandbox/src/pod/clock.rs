//! Keeps a guest's wall clock right: it runs by itself, and neither follows the host's corrections and steps nor stands still with the host.

use std::{
    io,
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use husk_protocol::agent::{AdjustClockRequest, Empty};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::timeout,
};

use crate::guest::Guest;

/// The clock is looked at so often, and after each step of the host's.
const EVERY: Duration = Duration::from_mins(10);
/// A smaller difference is left alone: a busy guest's answer may take as long.
const TOLERATED_NS: i64 = 5_000_000;
/// An answer that takes longer says too little of the time at which it was given.
const LONGEST_ANSWER: Duration = Duration::from_millis(500);

/// Keeps the clock of this guest right, until it is dropped. A guest that does not answer keeps its own.
pub(super) async fn keep(guest: Arc<Guest>) {
    let mut steps = Steps::begin().ok();
    loop {
        match &mut steps {
            Some(waited_for) => {
                if let Ok(Err(_)) = timeout(EVERY, waited_for.next()).await {
                    steps = None;
                }
            }
            None => tokio::time::sleep(EVERY).await,
        }
        let _ = correct(&guest).await;
    }
}

async fn correct(guest: &Guest) -> ttrpc::Result<()> {
    let (asked, begun) = (SystemTime::now(), Instant::now());
    let answer = guest.agent().read_clock(guest.soon(), &Empty::default()).await?;
    let took = begun.elapsed();
    let slow_by_ns = slow_by(asked + took / 2, answer.wall_ns);
    if took < LONGEST_ANSWER && slow_by_ns.saturating_abs() > TOLERATED_NS {
        let request = AdjustClockRequest { slow_by_ns, ..Default::default() };
        guest.agent().adjust_clock(guest.soon(), &request).await?;
    }
    Ok(())
}

/// Nanoseconds by which a clock is slow that shows `shown_ns` at the time `now`.
fn slow_by(now: SystemTime, shown_ns: i64) -> i64 {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    i64::try_from(now).unwrap_or(i64::MAX).saturating_sub(shown_ns)
}

/// Tells of each step of the host's clock, and of its waking from a suspend (timerfd_create(2), TFD_TIMER_CANCEL_ON_SET).
#[derive(Debug)]
struct Steps(AsyncFd<OwnedFd>);

impl Steps {
    fn begin() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        arm(&timer)?;
        // SAFETY: `AsyncFd` owns the descriptor, and an `OwnedFd` is one and the same descriptor as long as it lives.
        Ok(Self(unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) }?))
    }

    async fn next(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            let mut expirations = [0; 8];
            // Its own time never comes: what it says is that it was cancelled.
            if ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut expirations)?)).is_ok() {
                ready.clear_ready();
                return arm(self.0.get_ref());
            }
        }
    }
}

fn arm(timer: &OwnedFd) -> io::Result<()> {
    let never = Timespec { tv_sec: i64::MAX / 1_000_000_000, tv_nsec: 0 };
    let setting = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: never };
    timerfd_settime(timer, TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET, &setting)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_shows_less_is_slow() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        assert_eq!(slow_by(now, 99_000_000_000), 1_000_000_000);
        assert_eq!(slow_by(now, 101_000_000_000), -1_000_000_000);
        assert_eq!(slow_by(now, i64::MIN), i64::MAX);
    }
}
