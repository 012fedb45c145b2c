//! Rounds: warm-ups first, then all subjects in turn, again and again.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::time::{ClockId, clock_gettime};

use crate::{
    plan::Plan,
    result::{Measurement, Mode, Stage},
};

/// A start of a process waits for several ticks of its host's kernel: grace periods end by them. A round begins at its own
/// place in a period of so many nanoseconds (the lab's kernel ticks every 4 ms), so that every run of the suite has the same mix.
const PERIOD_NS: u64 = 8_000_000;
/// So many places there are; rounds of the same place are alike within some hundredths of a millisecond, for the most part.
const PHASES: u32 = 5;
/// How often a round may fail before its subject does.
const TRIES: u32 = 3;

/// What one round of one subject took.
#[derive(Debug, Default)]
pub(crate) struct Round {
    pub(crate) total_ms: f64,
    pub(crate) stages: Vec<(String, f64)>,
    /// What was counted beside the time.
    pub(crate) counts: Vec<(String, f64)>,
}

/// Something that can be done again and again.
pub(crate) struct Subject<'a> {
    pub(crate) id: String,
    pub(crate) group: &'static str,
    pub(crate) label: String,
    pub(crate) own: bool,
    pub(crate) run: Box<dyn FnMut() -> Result<Round> + 'a>,
}

impl std::fmt::Debug for Subject<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subject").field("id", &self.id).finish_non_exhaustive()
    }
}

/// CLOCK_MONOTONIC in nanoseconds, which husk and its VMM use, too.
pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// Milliseconds between two times of [`now_ns`].
pub(crate) fn ms_between(from_ns: u64, to_ns: u64) -> f64 {
    ms(Duration::from_nanos(to_ns.saturating_sub(from_ns)))
}

/// Milliseconds since then.
pub(crate) fn ms_since(start: Instant) -> f64 {
    ms(start.elapsed())
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Runs all subjects in turn for so many rounds. The second result is how many rounds were lost and done again.
pub(crate) fn measure(
    plan: &Plan,
    rounds: u32,
    mut subjects: Vec<Subject<'_>>,
) -> Result<(Vec<Measurement>, u32)> {
    let mut lost = 0;
    let mut done: Vec<Measurement> = subjects
        .iter()
        .map(|subject| Measurement {
            id: subject.id.clone(),
            group: subject.group.into(),
            label: subject.label.clone(),
            own: subject.own,
            unit: plan.mode.unit().into(),
            more_is_better: false,
            along: None,
            samples: Vec::new(),
            stages: Vec::new(),
            counts: Vec::new(),
        })
        .collect();
    for warmup in 1..=plan.warmups {
        for subject in &mut subjects {
            eprintln!("warm-up {warmup} of {}: {}", plan.warmups, subject.label);
            lost += round(subject)?.1;
        }
    }
    for number in 0..rounds {
        eprintln!("round {} of {rounds}", number + 1);
        for (subject, measurement) in subjects.iter_mut().zip(&mut done) {
            if plan.mode == Mode::Deterministic {
                wait_for_phase(u64::from(number % PHASES) * PERIOD_NS / u64::from(PHASES));
            }
            let (round, again) = round(subject)?;
            lost += again;
            add(measurement, round).with_context(|| format!("in {}", subject.label))?;
        }
    }
    Ok((done, lost))
}

fn round(subject: &mut Subject<'_>) -> Result<(Round, u32)> {
    retried(&subject.label, &mut subject.run)
}

/// Does something again that failed, a few times. The second result is how often it failed.
pub(crate) fn retried<T>(label: &str, mut run: impl FnMut() -> Result<T>) -> Result<(T, u32)> {
    let mut lost = 0;
    loop {
        match run() {
            Ok(done) => return Ok((done, lost)),
            Err(error) if lost + 1 < TRIES => {
                eprintln!("{label} failed, and is done again: {error:#}");
                lost += 1;
            }
            Err(error) => return Err(error.context(format!("{label} failed {TRIES} times"))),
        }
    }
}

fn add(measurement: &mut Measurement, round: Round) -> Result<()> {
    let first = measurement.samples.is_empty();
    measurement.samples.push(round.total_ms);
    for (kept, new) in [(&mut measurement.stages, round.stages), (&mut measurement.counts, round.counts)] {
        if first {
            *kept = new.iter().map(|(name, _)| Stage { name: name.clone(), samples: Vec::new() }).collect();
        }
        ensure!(
            kept.len() == new.len() && kept.iter().zip(&new).all(|(stage, (name, _))| stage.name == *name),
            "a round has other stages or counts than the first: {:?}",
            new.iter().map(|(name, _)| name).collect::<Vec<_>>()
        );
        for (stage, (_, value)) in kept.iter_mut().zip(new) {
            stage.samples.push(value);
        }
    }
    Ok(())
}

/// Waits until the clock is at this place of the third period from now. Busy, because idling is slow in the lab; and so long,
/// because what the round before left to the kernel is done by then.
fn wait_for_phase(phase_ns: u64) {
    let begin = (now_ns() / PERIOD_NS + 3) * PERIOD_NS + phase_ns;
    while now_ns() < begin {
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::plan;

    fn subject<'a>(run: impl FnMut() -> Result<Round> + 'a) -> Subject<'a> {
        Subject { id: "s".into(), group: "g", label: "a subject".into(), own: true, run: Box::new(run) }
    }

    #[test]
    fn warm_ups_do_not_count_and_rounds_do() {
        let mut runs = 0.0;
        let (done, lost) = measure(
            &plan(Mode::Wall, 2),
            3,
            vec![subject(|| {
                runs += 1.0;
                Ok(Round { total_ms: runs, stages: vec![("half".into(), runs / 2.0)], ..Round::default() })
            })],
        )
        .unwrap();
        assert_eq!((lost, done[0].samples.as_slice()), (0, &[3.0, 4.0, 5.0][..]));
        assert_eq!(done[0].stages[0].samples, [1.5, 2.0, 2.5]);
    }

    #[test]
    fn lost_rounds_are_done_again_and_counted_but_not_for_ever() {
        let mut runs = 0;
        let flaky = subject(|| {
            runs += 1;
            ensure!(runs % 2 == 0, "lost");
            Ok(Round::default())
        });
        let (done, lost) = measure(&plan(Mode::Wall, 0), 2, vec![flaky]).unwrap();
        assert_eq!((done[0].samples.len(), lost), (2, 2));
        let hopeless = subject(|| anyhow::bail!("never"));
        assert!(measure(&plan(Mode::Wall, 0), 1, vec![hopeless]).is_err());
    }

    #[test]
    fn a_round_with_other_stages_is_refused() {
        let mut names = ["a", "b"].into_iter().cycle();
        let odd =
            subject(|| Ok(Round { stages: vec![(names.next().unwrap().into(), 1.0)], ..Round::default() }));
        assert!(measure(&plan(Mode::Wall, 0), 2, vec![odd]).is_err());
    }
}
