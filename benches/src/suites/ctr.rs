//! Containers by containerd: husk and runc as its runtimes, told by the same `ctr`.

use std::{path::Path, process::Stdio};

use anyhow::{Result, ensure};

use super::{
    LONG_ROUNDS,
    containerd::Containerd,
    ctr_events::{Events, time_of_day},
    ctr_unpack,
    process::timed,
};
use crate::{
    measure::{Round, Subject, measure},
    plan::Plan,
    result::Measurement,
};

/// The image in the archive.
const IMAGE: &str = "docker.io/library/busybox:latest";
const RUN: &str = "ctr run --rm: busybox true, start to exit";
const EXEC: &str = "ctr task exec: true in a running container";
const STOP: &str = "ctr task delete --force: a running container killed, and gone";
/// A container that runs until it is killed.
const IDLE: [&str; 2] = ["sleep", "1000000"];

/// Runtimes; what husk is compared with comes first.
const RUNC: &str = "io.containerd.runc.v2";
const HUSK: &str = "io.containerd.husk.v2";

/// Measures all of it, and tells how many rounds were lost.
pub(super) fn measure_all(plan: &Plan, work: &Path) -> Result<(Vec<Measurement>, u32)> {
    let mut runtimes = vec![RUNC];
    for runtime in plan.peers.runtimes.iter().map(String::as_str).chain([HUSK]) {
        let name = in_short(runtime);
        let taken = runtimes.iter().any(|other| in_short(other) == name);
        ensure!(
            !taken,
            "--runtime: there are two runtimes called {name:?}, and their figures would be mixed up"
        );
        runtimes.push(runtime);
    }
    let containerd = Containerd::start(plan, work)?;
    let events = Events::listen(&containerd)?;
    let mut subjects = Vec::new();
    for runtime in &runtimes {
        let events = &events;
        subjects.push(containerd.subject(RUN, "run", runtime, move |ctr, id| {
            let mut command = ctr.ctr(&["run", "--rm", "--runtime", runtime, IMAGE, id, "true"]);
            let start = time_of_day();
            let (total_ms, _) = timed(&mut command)?;
            let stages = events.stages(id, start, time_of_day())?;
            Ok(Round { total_ms, stages, ..Round::default() })
        }));
        subjects.push(containerd.subject(STOP, "stop", runtime, move |ctr, id| {
            ctr.run_idle(runtime, id)?;
            let (ms, _) = timed(&mut ctr.ctr(&["task", "delete", "--force", id]))?;
            timed(&mut ctr.ctr(&["container", "delete", id]))?;
            Ok(Round { total_ms: ms, ..Round::default() })
        }));
    }
    let (mut all, mut lost) = measure(plan, plan.rounds, subjects)?;

    let mut subjects = Vec::new();
    for runtime in &runtimes {
        let idle = in_short(runtime);
        containerd.run_idle(runtime, idle)?;
        subjects.push(containerd.subject(EXEC, "exec", runtime, move |ctr, id| {
            let (total_ms, _) = timed(&mut ctr.ctr(&["task", "exec", "--exec-id", id, idle, "true"]))?;
            Ok(Round { total_ms, ..Round::default() })
        }));
    }
    let (execs, again) = measure(plan, plan.rounds, subjects)?;
    all.extend(execs);
    lost += again;
    for runtime in &runtimes {
        timed(&mut containerd.ctr(&["task", "delete", "--force", in_short(runtime)]))?;
    }
    all.sort_by_key(|measurement| [RUN, EXEC, STOP].iter().position(|group| *group == measurement.group));

    let subjects = ctr_unpack::subjects(plan, &containerd, work)?;
    let (unpacked, again) = measure(plan, plan.rounds.min(LONG_ROUNDS), subjects)?;
    all.extend(unpacked);
    Ok((all, lost + again))
}

/// `husk` of `io.containerd.husk.v2`.
fn in_short(runtime: &str) -> &str {
    runtime.rsplit('.').nth(1).unwrap_or(runtime)
}

impl Containerd {
    fn run_idle(&self, runtime: &str, id: &str) -> Result<()> {
        let args = ["run", "--detach", "--runtime", runtime, IMAGE, id];
        // A shim keeps the standard streams that `ctr` was started with: nobody must wait for their end.
        let mut command = self.ctr(&[&args[..], &IDLE].concat());
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        ensure!(status.success(), "ctr run --detach failed ({status})");
        Ok(())
    }

    /// Something that is done again and again, each time with another id, and tells how long it took.
    fn subject<'a>(
        &'a self,
        group: &'static str,
        what: &str,
        runtime: &str,
        run: impl Fn(&Self, &str) -> Result<Round> + 'a,
    ) -> Subject<'a> {
        let name = in_short(runtime);
        let id = format!("ctr-{what}-{name}");
        let (mut count, prefix) = (0_u32, format!("{what}-{name}"));
        let run = move || {
            count += 1;
            run(self, &format!("{prefix}-{count}"))
        };
        Subject { id, group, label: name.into(), own: runtime == HUSK, run: Box::new(run) }
    }
}
