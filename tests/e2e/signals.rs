//! Signals that husk gets reach the container.

use husk_tests::{
    environment,
    husk::Husk,
    install::Install,
    leftovers,
    process::Running,
    wait::{PATIENCE, wait_until},
};
use nix::sys::signal::Signal;

/// Waits for signals, says which came, and exits with 40 and more after the last that should come.
const LISTENER: &str = "for s in INT TERM HUP QUIT; do trap \"echo got $s; exit 40\" $s; done; \
                        echo ready; while :; do sleep 1000 & wait; done";
const DEAF: &str = "trap '' INT TERM HUP; echo ready; while :; do sleep 1000; done";

fn started(husk: &Husk, script: &str) -> Running {
    let mut running = husk.start_shell(&[], script);
    running.wait_for_out("ready");
    running
}

#[test]
fn interrupt_and_quit_are_passed_on_as_they_are() {
    let husk = Husk::new();
    for (signal, name) in [(Signal::SIGINT, "INT"), (Signal::SIGQUIT, "QUIT")] {
        let running = started(&husk, LISTENER);
        running.signal(signal);
        let output = running.finish().expect_code(40);
        assert_eq!(output.out(), format!("ready\ngot {name}\n"));
    }
    husk.assert_nothing_left();
}

#[test]
fn who_wants_husk_to_end_stops_the_container() {
    let husk = Husk::new();
    // SIGTERM becomes the image's stop signal, which is the same by default.
    for (signal, name) in [(Signal::SIGTERM, "TERM"), (Signal::SIGHUP, "HUP")] {
        let running = started(&husk, LISTENER);
        running.signal(signal);
        let output = running.finish().expect_code(40);
        assert_eq!(output.out(), format!("ready\ngot {name}\n"));
    }
    husk.assert_nothing_left();
}

#[test]
fn the_image_chooses_its_stop_signal() {
    let husk = Husk::new();
    let image = environment::image(environment::REDIS);
    let mut running = husk.start(["run", "--rm", "--entrypoint", "sh", &image, "-c", LISTENER]);
    running.wait_for_out("ready");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.finish().expect_code(40).out(), "ready\ngot INT\n");
}

#[test]
fn three_interrupts_end_a_container_that_goes_on() {
    let husk = Husk::new();
    let mut running =
        started(&husk, "trap 'echo again' INT; echo ready; while :; do sleep 1000 & wait; done");
    for seen in ["again\n", "again\nagain\n"] {
        running.signal(Signal::SIGINT);
        // Two of a kind at once would be one signal.
        running.wait_for_out(seen);
    }
    running.signal(Signal::SIGINT);
    running.finish().expect_code(137);
    husk.assert_nothing_left();
}

#[test]
fn a_container_that_ignores_its_stop_signal_is_killed_in_the_end() {
    let husk = Husk::new();
    let running = started(&husk, DEAF);
    running.signal(Signal::SIGTERM);
    running.finish().expect_code(137);
    husk.assert_nothing_left();
}

#[test]
fn a_signal_before_the_container_runs_ends_husk() {
    let mut husk = Husk::new();
    // A guest that never gets so far.
    let install = Install::with_initramfs(&environment::test_initramfs());
    husk.use_bin(install.bin());
    let mut running = husk.start_shell(&[], "true");
    wait_until("the VMM", PATIENCE, || {
        assert!(!running.has_ended(), "husk ended by itself");
        !leftovers::vmms(husk.root()).is_empty()
    });
    running.signal(Signal::SIGTERM);
    running.finish().expect_code(143);
    husk.assert_nothing_left();
}

#[test]
fn an_init_passes_signals_on_and_reaps_what_others_leave() {
    let husk = Husk::new();
    // An orphan is in /proc until it is reaped.
    let script = "tr '\\0' ' ' </proc/1/cmdline | cut -d' ' -f1-4; cat /proc/1/comm; \
                  orphan=$(sh -c 'true & echo $!'); while [ -e /proc/$orphan ]; do :; done; exit 3";
    let output = husk.shell(&["--init", "-u", "app"], script).expect_code(3);
    assert_eq!(output.out(), "/sbin/docker-init -- sh -c\ndocker-init\n");
    // As first process it would not end of SIGTERM, for which it has no handler.
    let image = environment::image(environment::BUSYBOX);
    husk.run(["run", "-d", "--init", "--name", "one", &image, "sleep", "1000"]).expect_code(0);
    let inspect = |template| husk.run(["inspect", "--format", template, "one"]).expect_code(0).out();
    assert_eq!(inspect("{{.HostConfig.Init}}"), "true\n");
    husk.run(["stop", "-t", "600", "one"]).expect_code(0);
    assert_eq!(inspect("{{.State.ExitCode}}"), "143\n");
    husk.run(["rm", "one"]).expect_code(0);
    husk.run(["run", "--rm", "--init", &image, "no-such-program"]).expect_failure(127, &["no-such-program"]);
    husk.assert_nothing_left();
}
