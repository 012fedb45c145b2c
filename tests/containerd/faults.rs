//! What goes wrong: processes killed at each stage of a container's life, guests that panic or hang, disks that are full.

use std::{fs, process::Command};

use husk_tests::{
    containerd::{
        HUSK, IMAGE, assert_nothing_left, containerd, ctr, processes, run, status, wait_for_status,
    },
    process::Running,
    wait::{PATIENCE, wait_until},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{detached, exec, remove};

const SHIM: &str = "containerd-shim-husk-v2 -namespace";
const VMM: &str = "libexec/husk/husk-vmm";
const FILE_SERVER: &str = "libexec/husk/husk-fs";
/// Where the containers' files are.
const STORE: &str = "/lab/disk";

fn signal(part: &str, signal: Signal) {
    for (pid, _) in processes(part) {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

fn start(id: &str) -> Running {
    Running::start(Command::new("ctr").args(["run", "-d", "--runtime", HUSK, IMAGE, id, "sleep", "100000"]))
}

/// Takes away what there may be of a container, whatever state it is in.
fn clean_up(id: &str) {
    wait_until(&format!("{id} to be removed"), PATIENCE, || {
        ctr(&["task", "delete", "--force", id]);
        ctr(&["container", "rm", id]);
        ctr(&["container", "info", id]).code != 0
    });
    assert_nothing_left();
}

fn assert_all_is_well(id: &str) {
    Running::start(&mut run(HUSK, id, &["echo", "well"])).finish().expect_code(0).expect_out("well\n");
    assert_nothing_left();
}

#[test]
fn what_is_killed_at_any_stage_leaves_nothing() {
    containerd();
    for (name, part) in [("shim", SHIM), ("vmm", VMM), ("fs", FILE_SERVER)] {
        let id = format!("starting-{name}");
        let starting = start(&id);
        wait_until(&format!("{name} to start"), PATIENCE, || !processes(part).is_empty());
        signal(part, Signal::SIGKILL);
        let started = starting.finish();
        assert!(started.code != 0 || status(&id).as_deref() != Some("RUNNING"), "{id}");
        clean_up(&id);

        let id = format!("executing-{name}");
        detached(HUSK, &id, &[], &["sleep", "100000"]);
        let mut command = Command::new("ctr");
        command.args(["task", "exec", "--exec-id", "x", &id, "sh", "-c", "echo runs; exec sleep 100000"]);
        let executing = Running::start(&mut command);
        wait_until("the program to run", PATIENCE, || executing.out().contains("runs"));
        signal(part, Signal::SIGKILL);
        assert_ne!(executing.finish().code, 0, "{id}");
        clean_up(&id);

        let id = format!("ending-{name}");
        detached(HUSK, &id, &[], &["sleep", "100000"]);
        let ending = Running::start(Command::new("ctr").args(["task", "delete", "--force", &id]));
        signal(part, Signal::SIGKILL);
        ending.finish();
        clean_up(&id);
    }
    assert_all_is_well("after-kills");
}

#[test]
fn a_containerd_that_is_killed_while_a_container_starts_leaves_what_can_be_removed() {
    let containerd = containerd();
    let starting = start("interrupted");
    wait_until("the VM to start", PATIENCE, || !processes(VMM).is_empty());
    containerd.restart();
    assert_ne!(starting.finish().code, 0);
    clean_up("interrupted");
    assert_all_is_well("after-restart");
}

#[test]
fn a_guest_that_panics_is_a_container_that_was_killed() {
    containerd();
    let log = || fs::read_to_string("/lab/out/containerd.log").unwrap();
    let before = log().len();
    detached(HUSK, "panics", &["--privileged"], &["sleep", "100000"]);
    exec("panics", "echo 2 >/proc/sys/vm/panic_on_oom");
    let mut hog = Command::new("ctr");
    hog.args(["task", "exec", "--exec-id", "hog", "panics", "tail", "/dev/zero"]);
    assert_ne!(Running::start(&mut hog).finish().code, 0);
    wait_for_status("panics", "STOPPED");
    assert!(log()[before..].contains("Kernel panic"), "nothing about it in the log");
    remove("panics");
    assert_nothing_left();
}

#[test]
fn a_guest_that_hangs_can_be_killed() {
    containerd();
    detached(HUSK, "hangs", &[], &["sleep", "100000"]);
    signal(VMM, Signal::SIGSTOP);
    ctr(&["task", "kill", "-s", "KILL", "hangs"]).expect_code(0);
    wait_for_status("hangs", "STOPPED");
    remove("hangs");
    assert_nothing_left();
}

#[test]
fn a_full_disk_is_told_and_survived() {
    containerd();
    detached(HUSK, "full", &[], &["sleep", "100000"]);
    let filler = format!("{STORE}/filler");
    let mut fill = Command::new("dd");
    fill.args(["if=/dev/zero", &format!("of={filler}"), "bs=1M"]);
    assert_ne!(Running::start(&mut fill).finish().code, 0);
    let told = exec("full", "dd if=/dev/zero of=/big bs=1M count=8 2>&1; echo code $?");
    assert!(told.contains("No space left on device") && told.ends_with("code 1\n"), "{told}");
    assert_eq!(exec("full", "rm /big; echo lives"), "lives\n");
    // A start needs no room, or fails in words.
    let another = Running::start(&mut run(HUSK, "another", &["echo", "fits"])).finish();
    let fits = another.code == 0 && another.out() == "fits\n";
    assert!(fits || another.err().contains("no space left"), "{}{}", another.out(), another.err());
    fs::remove_file(&filler).unwrap();
    remove("full");
    clean_up("another");
    assert_all_is_well("after-room");
}
