//! The `STATUS` column of `ps`: a container's state in words.

use std::{str::FromStr, time::Duration};

pub(crate) use husk_sandbox::store::Status as State;
use jiff::Timestamp;

use crate::human;

/// The results of health checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    /// The container has no health check.
    None,
    Starting,
    Healthy,
    Unhealthy,
}

const HEALTHS: [(&str, Health); 4] = [
    ("none", Health::None),
    ("starting", Health::Starting),
    ("healthy", Health::Healthy),
    ("unhealthy", Health::Unhealthy),
];

/// The word is not one of a health's.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UnknownWord;

impl FromStr for Health {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        HEALTHS.iter().find(|(known, _)| *known == word).map(|(_, health)| *health).ok_or(UnknownWord)
    }
}

impl Health {
    /// Docker's word for the health.
    pub(crate) fn word(self) -> &'static str {
        HEALTHS.iter().find(|(_, health)| *health == self).map_or("", |(word, _)| word)
    }
}

/// What a status says of a container.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Status {
    pub(crate) state: State,
    /// The last start.
    pub(crate) started: Option<Timestamp>,
    /// The last end.
    pub(crate) finished: Option<Timestamp>,
    /// The last exit code.
    pub(crate) exit_code: u8,
    pub(crate) health: Health,
    /// A disk of it waits for room on the host.
    pub(crate) stalled: bool,
}

impl Status {
    /// The status in words: `Up 3 minutes (healthy)`, `Exited (0) 2 hours ago`.
    pub(crate) fn text(&self, now: Timestamp) -> String {
        let since = |time: Option<Timestamp>| human::duration(elapsed(time.unwrap_or(now), now));
        let (up, down) = (since(self.started), since(self.finished));
        match self.state {
            State::Created => "Created".into(),
            State::Running if self.stalled => format!("Up {up} (Waiting for disk space)"),
            State::Running => match self.health {
                Health::None => format!("Up {up}"),
                Health::Starting => format!("Up {up} (health: starting)"),
                health => format!("Up {up} ({})", health.word()),
            },
            State::Paused => format!("Up {up} (Paused)"),
            State::Restarting => format!("Restarting ({}) {down} ago", self.exit_code),
            State::Removing => "Removal In Progress".into(),
            State::Exited => format!("Exited ({}) {down} ago", self.exit_code),
            State::Dead => "Dead".into(),
        }
    }
}

/// The time from one moment to another; zero if the clock was turned back.
pub(crate) fn elapsed(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        for (word, health) in HEALTHS {
            assert_eq!(word.parse(), Ok(health));
            assert_eq!(health.word(), word);
        }
        assert_eq!("".parse::<Health>(), Err(UnknownWord));
    }

    #[test]
    fn texts() {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let before = |seconds| Some(Timestamp::from_second(now.as_second() - seconds).unwrap());
        for (state, health, exit_code, text) in [
            (State::Created, Health::None, 0, "Created"),
            (State::Running, Health::None, 0, "Up 3 minutes"),
            (State::Running, Health::Starting, 0, "Up 3 minutes (health: starting)"),
            (State::Running, Health::Healthy, 0, "Up 3 minutes (healthy)"),
            (State::Running, Health::Unhealthy, 0, "Up 3 minutes (unhealthy)"),
            (State::Paused, Health::Healthy, 0, "Up 3 minutes (Paused)"),
            (State::Restarting, Health::None, 1, "Restarting (1) 5 seconds ago"),
            (State::Removing, Health::None, 0, "Removal In Progress"),
            (State::Exited, Health::Healthy, 137, "Exited (137) 5 seconds ago"),
            (State::Dead, Health::None, 0, "Dead"),
        ] {
            let status = Status {
                state,
                started: before(180),
                finished: before(5),
                exit_code,
                health,
                stalled: false,
            };
            assert_eq!(status.text(now), text);
        }
        let ahead = Status {
            state: State::Running,
            started: before(-60),
            finished: None,
            exit_code: 0,
            health: Health::None,
            stalled: false,
        };
        assert_eq!(ahead.text(now), "Up Less than a second");
        let stalled = Status { started: before(180), stalled: true, ..ahead };
        assert_eq!(stalled.text(now), "Up 3 minutes (Waiting for disk space)");
    }
}
