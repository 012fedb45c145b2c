//! The stages of a task, by the events that containerd tells of it.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};

use super::{containerd::Containerd, process::Running};

/// The events of a task that is run to its end, in order, and what they end.
const STAGES: [(&str, &str); 4] = [
    ("/tasks/create", "task created"),
    ("/tasks/start", "task started"),
    ("/tasks/exit", "process ended"),
    ("/tasks/delete", "task deleted"),
];
const LAST: &str = "container removed, ctr ended";
/// How long an event may take to be told.
const PATIENCE: Duration = Duration::from_secs(60);
const DAY_NS: u64 = 24 * 3600 * 1_000_000_000;

/// What `ctr events` tells.
pub(super) struct Events {
    lines: Receiver<String>,
    _ctr: Running,
}

impl Events {
    pub(super) fn listen(containerd: &Containerd) -> Result<Self> {
        let mut ctr = Running::start(containerd.ctr(&["events"]).stdout(Stdio::piped()))?;
        let out = BufReader::new(ctr.child().stdout.take().context("no standard output")?);
        let (sender, lines) = channel();
        thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Ok(Self { lines, _ctr: ctr })
    }

    /// The stages of task `id`, which was run between two times of [`time_of_day`], and has been deleted.
    pub(super) fn stages(&self, id: &str, start: u64, end: u64) -> Result<Vec<(String, f64)>> {
        let mut stages = Vec::new();
        let mut since = start;
        for (topic, name) in STAGES {
            let at = self.wait_for(topic, id)?;
            stages.push((name.to_owned(), between(since, at)));
            since = at;
        }
        stages.push((LAST.to_owned(), between(since, end)));
        Ok(stages)
    }

    fn wait_for(&self, topic: &str, id: &str) -> Result<u64> {
        let id = format!("\"container_id\":\"{id}\"");
        loop {
            let line = self.lines.recv_timeout(PATIENCE).with_context(|| format!("no event {topic}"))?;
            if line.contains(&format!(" {topic} ")) && line.contains(&id) {
                return told_at(&line).with_context(|| format!("an event has no time: {line}"));
            }
        }
    }
}

/// Now, in nanoseconds of the day (UTC).
pub(super) fn time_of_day() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos() % u128::from(DAY_NS)).unwrap_or_default()
}

/// Milliseconds from one to the next, over midnight, too. An event can't be before what brought it about.
fn between(from: u64, to: u64) -> f64 {
    let time = (to + DAY_NS - from) % DAY_NS;
    if time > DAY_NS / 2 { 0.0 } else { Duration::from_nanos(time).as_secs_f64() * 1000.0 }
}

/// The time in `2006-01-02 15:04:05.999999999 +0000 UTC namespace topic {...}`.
fn told_at(line: &str) -> Option<u64> {
    let mut parts = line.split_whitespace().nth(1)?.split(':');
    let mut next = || parts.next()?.parse::<f64>().ok();
    let (hours, minutes, seconds) = (next()?, next()?, next()?);
    let time = Duration::try_from_secs_f64((hours * 60.0 + minutes) * 60.0 + seconds).ok()?;
    u64::try_from(time.as_nanos()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_events_are_read_and_midnight_is_no_end() {
        let line = "2026-11-22 09:13:29.219651759 +0000 UTC default /tasks/start {\"container_id\":\"x\"}";
        let at = told_at(line).unwrap();
        let expected = ((9 * 60 + 13) * 60 + 29) * 1_000_000_000 + 219_651_759;
        assert!(at.abs_diff(expected) < 1_000, "{at}");
        assert_eq!(told_at("nothing"), None);
        assert!((between(DAY_NS - 1_000_000, 2_000_000) - 3.0).abs() < 1e-9);
        assert!(between(2_000_000, 1_000_000).abs() < 1e-9);
        assert!(time_of_day() < DAY_NS);
    }
}
