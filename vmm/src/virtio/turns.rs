//! Who goes first when a queue's thread and the vCPU that woke it share a CPU of the host.
//!
//! The scheduler lets a thread that is woken go first. Then a driver that keeps many requests in flight never gets to a second one
//! before the first has ended, and takes an interrupt for each. A thread of the policy `SCHED_BATCH` waits until the vCPU has
//! nothing more to do (sched(7)), and finds all of them at once; but a driver that waits for each request waits longer
//! then. Which kind of driver it is shows only while the thread gives way.

/// So many requests that came alone one after the other are those of a driver that waits for each.
const ALONE: u32 = 8;
/// After so many the thread gives way for two, to see.
const PROBE_AFTER: u32 = 128;
const PROBED: u32 = 2;

/// Whether a thread gives way, by what it has found so far.
#[derive(Debug, Default)]
pub(super) struct Turns {
    gives_way: bool,
    /// Requests that came alone since the last change, or since others did not.
    alone: u32,
}

impl Turns {
    /// Learns how many requests the calling thread has found at once, and has it give way, or go first, accordingly.
    pub(super) fn found(&mut self, requests: usize) {
        if self.changes(requests) {
            let policy = if self.gives_way { libc::SCHED_BATCH } else { libc::SCHED_OTHER };
            // Without the host's leave all works as well, but slower.
            // SAFETY: the parameters live through the call; 0 is the calling thread.
            unsafe { libc::sched_setscheduler(0, policy, &libc::sched_param { sched_priority: 0 }) };
        }
    }

    fn changes(&mut self, requests: usize) -> bool {
        match requests {
            0 => return false,
            1 => self.alone += 1,
            _ => self.alone = 0,
        }
        (self.gives_way, self.alone) = match self.gives_way {
            true if self.alone >= ALONE => (false, 0),
            false if requests > 1 => (true, 0),
            false if self.alone >= PROBE_AFTER => (true, ALONE - PROBED),
            _ => return false,
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_for_each_request_is_served_at_once_but_for_probes() {
        let mut turns = Turns::default();
        let changes: Vec<_> = (0..260).filter(|_| turns.changes(1)).collect();
        assert_eq!(changes, [127, 129, 257, 259]);
        assert!(!turns.changes(0) && !turns.gives_way);
    }

    #[test]
    fn many_at_once_are_waited_for() {
        let mut turns = Turns::default();
        assert!(turns.changes(2) && turns.gives_way);
        assert!((0..1000).all(|_| !turns.changes(16)));
        // One that comes alone now and then is no reason.
        assert!((0..1000).all(|number| !turns.changes(1 + number % 8)));
        assert_eq!((0..8).filter(|_| turns.changes(1)).count(), 1);
        assert!(!turns.gives_way);
    }
}
