//! When things happened on the way from `husk run` to a container's end and back.

use std::{fmt, time::Duration};

use husk_protocol::agent::TimelineResponse;
use serde::Serialize;

/// The host's CLOCK_MONOTONIC, in nanoseconds: the VMM's clock too.
pub fn now_ns() -> u64 {
    let now =
        nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// A point on the way, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// husk's main began.
    Start,
    /// Image, disks and plan are ready; the VMM is started.
    Planned,
    /// The VMM has memory, kernel and devices in place.
    VmmConfigured,
    /// The first guest instruction is about to run.
    FirstInstruction,
    /// The guest's kernel has started the agent.
    Init,
    /// The agent serves.
    AgentReady,
    /// The container is made.
    Created,
    /// Its process runs.
    Started,
    /// The first byte of output was read in the guest.
    FirstOutput,
    /// The process has ended.
    Exited,
    /// VM, disks and directories are gone.
    CleanedUp,
}

impl Stage {
    /// All of them, in order.
    pub const ALL: [Self; 11] = [
        Self::Start,
        Self::Planned,
        Self::VmmConfigured,
        Self::FirstInstruction,
        Self::Init,
        Self::AgentReady,
        Self::Created,
        Self::Started,
        Self::FirstOutput,
        Self::Exited,
        Self::CleanedUp,
    ];

    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "process start",
            Self::Planned => "image and disks ready",
            Self::VmmConfigured => "VMM configured",
            Self::FirstInstruction => "first guest instruction",
            Self::Init => "kernel handed to init",
            Self::AgentReady => "agent ready",
            Self::Created => "container created",
            Self::Started => "container started",
            Self::FirstOutput => "first output",
            Self::Exited => "process ended",
            Self::CleanedUp => "everything cleaned up",
        }
    }

    /// The stage of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.name() == name)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The stages seen so far, each with its time on [`now_ns`]'s clock.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Timeline {
    marks: Vec<(Stage, u64)>,
}

impl Timeline {
    /// A timeline that begins now.
    pub fn begin() -> Self {
        Self { marks: vec![(Stage::Start, now_ns())] }
    }

    /// What was recorded, in no order.
    pub fn into_marks(self) -> Vec<(Stage, u64)> {
        self.marks
    }

    /// The stage is reached now.
    pub fn mark(&mut self, stage: Stage) {
        self.mark_at(stage, now_ns());
    }

    /// The stage was reached at `at_ns`.
    pub fn mark_at(&mut self, stage: Stage, at_ns: u64) {
        self.marks.push((stage, at_ns));
    }

    /// Adds what the guest recorded, its clock related to the host's by the moment the answer arrived.
    pub fn add_guest(&mut self, guest: &TimelineResponse, arrived_ns: u64) {
        let stages = [
            (Stage::Init, guest.init_ns),
            (Stage::AgentReady, guest.ready_ns),
            (Stage::Created, guest.created_ns),
            (Stage::Started, guest.started_ns),
            (Stage::FirstOutput, guest.first_output_ns),
            (Stage::Exited, guest.exited_ns),
        ];
        for (stage, at) in stages {
            if at != 0 {
                self.mark_at(stage, arrived_ns.saturating_sub(guest.now_ns.saturating_sub(at)));
            }
        }
    }

    /// The stages in order of time, each with milliseconds since the start and since the stage before.
    pub fn rows(&self) -> Vec<Row> {
        let mut marks = self.marks.clone();
        marks.sort_by_key(|&(stage, at)| (at, stage));
        let start = marks.first().map_or(0, |&(_, at)| at);
        let mut before = start;
        marks
            .into_iter()
            .map(|(stage, at)| {
                let row = Row { stage, at_ms: ms(at - start), step_ms: ms(at - before) };
                before = at;
                row
            })
            .collect()
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<26}{:>10}{:>10}", "stage", "at ms", "step ms")?;
        for row in self.rows() {
            writeln!(f, "{:<26}{:>10.2}{:>10.2}", row.stage, row.at_ms, row.step_ms)?;
        }
        Ok(())
    }
}

/// One line of a timeline.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Row {
    /// Which stage.
    pub stage: Stage,
    /// Milliseconds since the start.
    pub at_ms: f64,
    /// Milliseconds since the stage before.
    pub step_ms: f64,
}

fn ms(ns: u64) -> f64 {
    Duration::from_nanos(ns).as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_times_are_moved_to_the_hosts_clock() {
        let mut timeline = Timeline { marks: vec![(Stage::Start, 1_000_000)] };
        let guest = TimelineResponse { init_ns: 10, ready_ns: 20, now_ns: 1_000_020, ..Default::default() };
        timeline.add_guest(&guest, 5_000_000);
        let rows = timeline.rows();
        assert_eq!(
            rows.iter().map(|row| row.stage).collect::<Vec<_>>(),
            [Stage::Start, Stage::Init, Stage::AgentReady]
        );
        assert!((rows[2].at_ms - 3.0).abs() < 1e-9, "{rows:?}");
    }

    #[test]
    fn a_guest_that_lies_about_time_does_no_harm() {
        let mut timeline = Timeline::begin();
        let guest = TimelineResponse { init_ns: u64::MAX, now_ns: 1, ready_ns: 5, ..Default::default() };
        timeline.add_guest(&guest, 3);
        assert_eq!(timeline.rows().len(), 3);
    }
}
