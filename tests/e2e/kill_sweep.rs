//! kill -9 of everybody who has a part in a container's life, at moments all along each verb: what is known of the container
//! afterwards is true, and it can be removed with nothing left of it.

use std::{
    thread,
    time::{Duration, Instant},
};

use husk_tests::{
    environment::{BUSYBOX, image},
    husk::Husk,
    leftovers::{self, Process},
    process::Running,
    wait::{PATIENCE, wait_until},
};
use nix::sys::signal::{Signal, kill};

/// Moments of a verb at which somebody is killed, from its start to shortly after its usual end.
const MOMENTS: u32 = 3;

/// A verb with the state that it begins with.
struct Verb {
    args: &'static [&'static str],
    /// What is done before.
    before: &'static [&'static [&'static str]],
}

const CREATED: &[&str] = &["create", "--name", "one", "IMAGE", "sleep", "1000"];
const RUNNING: &[&str] = &["run", "-d", "--name", "one", "IMAGE", "sleep", "1000"];

const VERBS: [Verb; 7] = [
    Verb { args: CREATED, before: &[] },
    Verb { args: RUNNING, before: &[] },
    Verb { args: &["start", "one"], before: &[CREATED] },
    Verb { args: &["exec", "one", "true"], before: &[RUNNING] },
    Verb { args: &["stop", "-t", "0", "one"], before: &[RUNNING] },
    Verb { args: &["restart", "-t", "0", "one"], before: &[RUNNING] },
    Verb { args: &["rm", "-f", "one"], before: &[RUNNING] },
];

fn start(husk: &Husk, args: &[&str]) -> Running {
    let image = image(BUSYBOX);
    husk.start(args.iter().map(|arg| if *arg == "IMAGE" { image.as_str() } else { *arg }))
}

/// Kills `victims`, found when `client` has run the verb for a while, and looks at what is left.
fn sweep(victims: fn(&Husk, &Running) -> Vec<Process>) {
    for verb in &VERBS {
        let usual = attempt(verb, |_, _| Vec::new(), Duration::ZERO);
        for moment in 0..MOMENTS {
            attempt(verb, victims, usual * moment / (MOMENTS - 1));
        }
    }
}

/// One try; how long the client took.
fn attempt(verb: &Verb, victims: fn(&Husk, &Running) -> Vec<Process>, after: Duration) -> Duration {
    let husk = Husk::new();
    for args in verb.before {
        start(&husk, args).finish().expect_code(0);
    }
    let begun = Instant::now();
    let client = start(&husk, verb.args);
    // The moment is what is tried here: nothing waits for what happens meanwhile.
    thread::sleep(after);
    for victim in victims(&husk, &client) {
        let _ = kill(victim.pid, Signal::SIGKILL);
    }
    let said = client.finish();
    let took = begun.elapsed();
    let what = format!("{:?} after {after:?}: {} {}{}", verb.args, said.code, said.out(), said.err());

    // The record follows as soon as somebody has seen what happened.
    let is_true = || {
        let is_said_to_run = husk.run(["ps", "-q"]).expect_code(0).out() != "";
        is_said_to_run != leftovers::vmms(husk.root()).is_empty()
    };
    wait_until(&format!("a true record, {what}"), PATIENCE, is_true);
    let names = husk.run(["ps", "-a", "--format", "{{.Names}}"]).expect_code(0).out();
    if names.contains("one") {
        husk.run(["inspect", "one"]).expect_code(0);
        husk.run(["rm", "-f", "one"]).expect_code(0);
    }
    assert_eq!(husk.run(["ps", "-aq"]).expect_code(0).out(), "", "{what}");
    // Whoever comes next can have the name, and takes away what is half made and half removed.
    for args in [CREATED, &["rm", "one"]] {
        start(&husk, args).finish().expect_code(0);
    }
    let left = || leftovers::of(husk.root());
    wait_until(&format!("nothing to be left, {what}"), PATIENCE, || left().is_empty());
    took
}

#[test]
fn of_clients() {
    sweep(|_, client| vec![Process { pid: client.pid(), command: String::new() }]);
}

#[test]
fn of_supervisors() {
    sweep(|husk, _| leftovers::supervisors(husk.root()));
}

#[test]
fn of_vmms() {
    sweep(|husk, _| leftovers::vmms(husk.root()));
}
