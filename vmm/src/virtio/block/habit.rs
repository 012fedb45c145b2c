//! Whether the driver writes one request after the other, or many at a time.
//!
//! Where driver and queue share a CPU, the queue's thread gets it as soon as the driver has notified it: each request
//! is carried out before the driver comes to the next, and seems to be the only one. So the thread lets some lone writes pass to
//! the kernel's threads now and then, and looks whether the driver uses the time to send more.

/// So many lone writes are done in place between two looks.
const IN_PLACE: u32 = 1024;
/// So many writes a look takes.
const LOOK: u32 = 32;

/// What is known of a driver's writes.
#[derive(Debug, Default)]
pub(super) struct Habit {
    looking: bool,
    /// Writes since the last decision.
    seen: u32,
    /// Those of them that had company.
    accompanied: u32,
}

impl Habit {
    /// Takes note of a write, and says whether it is better done in place. `alone`: no other is at hand or in flight.
    pub(super) fn in_place(&mut self, alone: bool) -> bool {
        let in_place = alone && !self.looking;
        self.seen += 1;
        self.accompanied += u32::from(!alone);
        if self.seen >= if self.looking { LOOK } else { IN_PLACE } {
            // As long as most have company, all go to the kernel's threads: that is one look after the other.
            self.looking = !self.looking || self.accompanied * 2 >= self.seen;
            (self.seen, self.accompanied) = (0, 0);
        }
        in_place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of so many writes, how many are done in place.
    fn in_place(habit: &mut Habit, count: u32, mut alone: impl FnMut(bool) -> bool) -> u32 {
        let mut last = true;
        (0..count)
            .map(|_| {
                last = habit.in_place(alone(last));
                u32::from(last)
            })
            .sum()
    }

    #[test]
    fn a_driver_that_waits_for_each_is_served_in_place() {
        let done = in_place(&mut Habit::default(), 100 * (IN_PLACE + LOOK), |_| true);
        assert_eq!(done, 100 * IN_PLACE);
    }

    #[test]
    fn a_driver_that_goes_on_when_it_can_is_let_go_on() {
        let mut habit = Habit::default();
        // It sends the next before a write has ended that is not done in place.
        let done = in_place(&mut habit, 100 * IN_PLACE, |last_in_place| last_in_place);
        assert!(done <= IN_PLACE + 1, "{done}");
        // When it changes, so does the answer.
        let done = in_place(&mut habit, 2 * IN_PLACE, |_| true);
        assert!(done >= 2 * IN_PLACE - 3 * LOOK, "{done}");
    }

    #[test]
    fn company_is_never_served_in_place() {
        assert_eq!(in_place(&mut Habit::default(), 10 * IN_PLACE, |_| false), 0);
    }
}
