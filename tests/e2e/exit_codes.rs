//! Exit codes are Docker's.

use husk_tests::{
    environment::{BUSYBOX, image},
    husk::Husk,
};

#[test]
fn a_containers_exit_code_is_husks() {
    let husk = Husk::new();
    for code in [0, 1, 42, 255] {
        husk.shell(&[], &format!("exit {code}")).expect_code(code);
    }
    husk.assert_nothing_left();
}

#[test]
fn death_by_a_signal_is_128_and_its_number() {
    let husk = Husk::new();
    // The first process of a PID namespace can't kill itself, but the kernel can: for using more CPU time than allowed.
    husk.shell(&[], "ulimit -t 1; while :; do :; done").expect_code(137);
    // Its children can, and a shell passes on how they ended.
    husk.shell(&[], "sh -c 'kill -SEGV $$'; exit $?").expect_code(139);
    husk.assert_nothing_left();
}

#[test]
fn what_does_not_exist_is_127() {
    let husk = Husk::new();
    for program in ["no-such-program", "/no/such/program"] {
        husk.run(["run", "--rm", &image(BUSYBOX), program]).expect_failure(127, &["not found", program]);
    }
    husk.run(["run", "--rm", &image("entry-missing")]).expect_failure(127, &["/no/such/program"]);
    husk.assert_nothing_left();
}

#[test]
fn what_cannot_be_executed_is_126() {
    let husk = Husk::new();
    for program in ["/etc/passwd", "/etc"] {
        husk.run(["run", "--rm", &image(BUSYBOX), program]).expect_failure(126, &["not permitted", program]);
    }
    husk.run(["run", "--rm", &image("entry-not-executable")]).expect_failure(126, &["/etc/passwd"]);
    husk.assert_nothing_left();
}

#[test]
fn husks_own_failures_are_125() {
    let husk = Husk::new();
    let busybox = image(BUSYBOX);
    husk.run(["run", "--rm", "-u", "nosuchuser", &busybox, "true"]).expect_failure(125, &["nosuchuser"]);
    husk.run(["run", "--rm", "-u", "root:nosuchgroup", &busybox, "true"])
        .expect_failure(125, &["nosuchgroup"]);
    husk.run(["run", "--rm", &image("user-missing")]).expect_failure(125, &["nosuchuser"]);
    husk.run(["run", "--rm", &image("no-command")]).expect_failure(125, &["names no command"]);
    husk.run(["run", "--rm", "-w", "relative", &busybox, "true"])
        .expect_failure(125, &["relative", "absolute"]);
    husk.run(["run", "--rm", "--env-file", "/no/such/file", &busybox, "true"])
        .expect_failure(125, &["/no/such/file"]);
    husk.run(["run", "--rm", "--pull", "never", "not-here", "true"])
        .expect_failure(125, &["not-here", "--pull=never"]);
    husk.run(["run", "--rm", "library/UPPER", "true"]).expect_failure(125, &["library/UPPER"]);
    husk.run(["run", "--rm", "--kernel", "/no/such/kernel", &busybox, "true"])
        .expect_failure(125, &["/no/such/kernel"]);
    husk.assert_nothing_left();
}

#[test]
fn wrong_usage_is_125_and_says_what_is_wrong() {
    let husk = Husk::fresh();
    for (args, part) in [
        (&["run"][..], "<IMAGE>"),
        (&["run", "--rm", "--no-such-option", "x"], "--no-such-option"),
        (&["run", "--rm", "-m", "1m", "x"], "6m"),
        (&["run", "--rm", "--cpus", "0.001", "x"], "CPUs"),
        (&["run", "--rm", "--storage-size", "1k", "x"], "16m"),
        (&[], "Usage"),
    ] {
        let output = husk.run(args).expect_code(125);
        assert!(output.err().contains(part), "{args:?}: {}", output.err());
        assert!(output.stdout.is_empty());
    }
    // As Docker.
    let output = husk.run(["no-such-command"]).expect_code(1);
    assert!(output.err().contains("no-such-command") && output.stdout.is_empty(), "{}", output.err());
}

#[test]
fn help_and_version_are_no_failures() {
    let husk = Husk::fresh();
    for args in [&["--help"][..], &["run", "--rm", "--help"], &["--version"], &["version"]] {
        assert!(!husk.run(args).expect_code(0).stdout.is_empty(), "{args:?}");
    }
    let output = husk.run(["version", "--format", "json"]).expect_code(0);
    let version: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
}
