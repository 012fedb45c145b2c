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
