//! Lines on stderr about what a guest did wrong, or brought about. A guest can't fill a log with them.

use std::{
    fmt::Arguments,
    sync::{Mutex, PoisonError},
};

use crate::time::monotonic_ns;

/// Lines that may come at once.
const BURST: u64 = 64;
/// How often one more may come: ten a minute.
const INTERVAL_NS: u64 = 6_000_000_000;

/// Prints a line that the guest caused, unless there were too many of late.
pub(crate) fn guest_fault(line: Arguments<'_>) {
    static BUDGET: Mutex<Budget> = Mutex::new(Budget::new());
    let verdict = BUDGET.lock().unwrap_or_else(PoisonError::into_inner).spend(monotonic_ns());
    match verdict {
        Verdict::Print { left_out: 0 } => eprintln!("husk-vmm: {line}"),
        Verdict::Print { left_out } => {
            eprintln!("husk-vmm: {line} ({left_out} messages about the guest were left out)");
        }
        Verdict::LeaveOut { first: true } => {
            eprintln!("husk-vmm: messages about the guest are left out for a while");
        }
        Verdict::LeaveOut { first: false } => {}
    }
}

/// What becomes of a line.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It is printed, and tells how many were not before it.
    Print { left_out: u64 },
    /// It is not; of several in a row, the first is told.
    LeaveOut { first: bool },
}

/// How many lines may be printed.
#[derive(Debug)]
struct Budget {
    lines: u64,
    /// Up to when lines have come back.
    since_ns: u64,
    left_out: u64,
}

impl Budget {
    const fn new() -> Self {
        Self { lines: BURST, since_ns: 0, left_out: 0 }
    }

    fn spend(&mut self, now_ns: u64) -> Verdict {
        let new = now_ns.saturating_sub(self.since_ns) / INTERVAL_NS;
        self.since_ns += new * INTERVAL_NS;
        self.lines = self.lines.saturating_add(new).min(BURST);
        if let Some(lines) = self.lines.checked_sub(1) {
            self.lines = lines;
            return Verdict::Print { left_out: std::mem::take(&mut self.left_out) };
        }
        self.left_out += 1;
        Verdict::LeaveOut { first: self.left_out == 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_printed_and_then_ten_a_minute() {
        let start = 1_000_000 * INTERVAL_NS + 5;
        let mut budget = Budget::new();
        for _ in 0..BURST {
            assert_eq!(budget.spend(start), Verdict::Print { left_out: 0 });
        }
        assert_eq!(budget.spend(start), Verdict::LeaveOut { first: true });
        assert_eq!(budget.spend(start), Verdict::LeaveOut { first: false });
        let minute = |second: u64| start + second * 1_000_000_000;
        let printed = (0..60).filter(|second| matches!(budget.spend(minute(*second)), Verdict::Print { .. }));
        assert_eq!(printed.count(), 9);
        assert_eq!(budget.spend(start + 10 * INTERVAL_NS), Verdict::Print { left_out: 5 });
    }

    #[test]
    fn lines_are_not_saved_up_beyond_the_burst() {
        let mut budget = Budget::new();
        budget.spend(0);
        let later = u64::MAX / 2;
        let printed = (0..1000).filter(|_| matches!(budget.spend(later), Verdict::Print { .. })).count();
        assert_eq!(printed as u64, BURST);
    }
}
