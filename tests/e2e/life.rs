//! Containers that live on without the client that started them.

use std::{
    fs,
    process::{Command, Stdio},
};

use husk_tests::{
    environment::{BUSYBOX, image},
    husk::{Husk, shell_args},
    leftovers,
    process::Running,
    pty::Terminal,
    wait::{PATIENCE, wait_until},
};
use nix::sys::signal::Signal;

/// Starts a detached container that runs a shell script; returns its id.
fn detached(husk: &Husk, options: &[&str], script: &str) -> String {
    let image = image(BUSYBOX);
    let args = [&["run", "-d"], options, &[image.as_str(), "sh", "-c", script]].concat();
    let id = husk.run(args).expect_code(0).out().trim().to_owned();
    assert_eq!(id.len(), 64, "{id}");
    id
}

/// What a container's log says so far.
fn log(husk: &Husk, name: &str) -> String {
    husk.run(["logs", name]).expect_code(0).out()
}

fn wait_for_log(husk: &Husk, name: &str, text: &str) {
    wait_until(text, PATIENCE, || log(husk, name).contains(text));
}

/// A field of a container's record, by a Go template.
fn inspect(husk: &Husk, name: &str, template: &str) -> String {
    husk.run(["inspect", "--format", template, name]).expect_code(0).out().trim().to_owned()
}

#[test]
fn a_detached_container_runs_is_spoken_with_and_stopped() {
    let husk = Husk::new();
    let script =
        "trap 'echo bye; exit 3' TERM; echo hello; echo oops >&2; while :; do sleep 1000 & wait; done";
    let id = detached(&husk, &["--name", "one", "--label", "a=b"], script);
    wait_for_log(&husk, "one", "hello");
    let list = husk.run(["ps", "--format", "{{.ID}} {{.Names}} {{.Status}} {{.Image}}"]).expect_code(0).out();
    assert!(list.starts_with(&format!("{} one Up ", &id[..12])) && list.contains(BUSYBOX), "{list}");
    let exec = ["exec", "-e", "X=y", "-w", "/tmp", "one", "sh", "-c", "echo $X $PWD; echo err >&2; exit 7"];
    let output = husk.run(exec).expect_code(7);
    assert_eq!((output.out(), output.err()), ("y /tmp\n".into(), "err\n".into()));
    let fed = husk.run_with_input(["exec", "-i", "one", "cat"], b"fed".to_vec()).expect_code(0);
    assert_eq!(fed.out(), "fed");
    husk.run(["exec", "one", "no-such-program"]).expect_failure(127, &["no-such-program"]);
    husk.run(["rm", "one"]).expect_failure(1, &["running", "stop the container"]);
    assert_eq!(husk.run(["stop", "one"]).expect_code(0).out(), "one\n");
    assert_eq!(inspect(&husk, "one", "{{.State.Status}} {{.State.ExitCode}}"), "exited 3");
    let logs = husk.run(["logs", "one"]).expect_code(0);
    assert_eq!((logs.out(), logs.err()), ("hello\nbye\n".into(), "oops\n".into()));
    assert_eq!(husk.run(["wait", "one"]).expect_code(0).out(), "3\n");
    husk.run(["exec", "one", "true"]).expect_failure(1, &["is not running"]);
    assert_eq!(husk.run(["rm", "one"]).expect_code(0).out(), "one\n");
    husk.run(["inspect", "one"]).expect_code(1);
    assert_eq!(husk.run(["ps", "-aq"]).expect_code(0).out(), "");
    husk.assert_nothing_left();
}

#[test]
fn what_a_container_has_written_is_there_at_its_next_start() {
    let husk = Husk::new();
    let script = "cat /count 2>/dev/null; echo x >>/count; date >/dev/null";
    husk.run(["create", "--name", "one", &image(BUSYBOX), "sh", "-c", script]).expect_code(0);
    assert_eq!(inspect(&husk, "one", "{{.State.Status}}"), "created");
    for expected in ["", "x\n", "x\nx\n"] {
        husk.run(["start", "-a", "one"]).expect_out(expected);
    }
    // Also when its machine was killed.
    husk.run(["rename", "one", "two"]).expect_code(0);
    husk.run(["rm", "two"]).expect_code(0);
    detached(&husk, &["--name", "one"], "echo kept >/file; sync; echo written; sleep 1000");
    wait_for_log(&husk, "one", "written");
    husk.kill_supervisor();
    assert_eq!(inspect(&husk, "one", "{{.State.Status}} {{.State.ExitCode}}"), "exited 255");
    husk.run(["start", "one"]).expect_code(0);
    assert_eq!(husk.run(["exec", "one", "cat", "/file"]).expect_code(0).out(), "kept\n");
    husk.run(["rm", "-f", "one"]).expect_code(0);
    husk.assert_nothing_left();
}

#[test]
fn a_container_goes_on_when_its_client_is_killed_and_nothing_it_says_is_lost() {
    let husk = Husk::new();
    let script = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; echo all; sleep 1000";
    let mut client = husk.start(["run", "--name", "one", &image(BUSYBOX), "sh", "-c", script]);
    client.wait_for_out("line 10\n");
    client.signal(Signal::SIGKILL);
    client.finish().expect_code(137);
    wait_for_log(&husk, "one", "all\n");
    let expected: String = (0..2000).map(|n| format!("line {n}\n")).collect();
    assert!(log(&husk, "one") == expected + "all\n");
    husk.run(["rm", "-f", "one"]).expect_code(0);
    husk.assert_nothing_left();
}

#[test]
fn keys_detach_from_a_terminal_and_attach_comes_back_to_it() {
    let husk = Husk::new();
    let args = [
        "run",
        "-it",
        "--name",
        "one",
        &image(BUSYBOX),
        "sh",
        "-c",
        "echo ready; while read x; do echo got-$x; done",
    ];
    let (mut terminal, client) = Terminal::start(husk.command(args), 24, 80);
    terminal.wait_for("ready");
    terminal.type_keys("a\r");
    terminal.wait_for("got-a");
    terminal.type_keys("\u{10}\u{11}");
    terminal.finish(client).expect_code(0);
    assert_eq!(inspect(&husk, "one", "{{.State.Running}}"), "true");
    let (mut terminal, client) = Terminal::start(husk.command(["attach", "one"]), 24, 80);
    terminal.type_keys("b\r");
    terminal.wait_for("got-b");
    terminal.type_keys("\u{4}");
    terminal.finish(client).expect_code(0);
    husk.run(["rm", "one"]).expect_code(0);
    husk.assert_nothing_left();
}

#[test]
fn restart_policies_start_again_and_give_up() {
    let husk = Husk::new();
    let script = "echo run; exit 4";
    detached(&husk, &["--name", "failing", "--restart", "on-failure:2"], script);
    wait_until("the last end", PATIENCE, || inspect(&husk, "failing", "{{.State.Status}}") == "exited");
    assert_eq!(inspect(&husk, "failing", "{{.RestartCount}} {{.State.ExitCode}}"), "2 4");
    assert_eq!(log(&husk, "failing"), "run\nrun\nrun\n");
    detached(&husk, &["--name", "always", "--restart", "always"], "echo run; sleep 1; exit 0");
    wait_until("a restart", PATIENCE, || log(&husk, "always").matches("run").count() >= 2);
    husk.run(["stop", "always"]).expect_code(0);
    assert_eq!(inspect(&husk, "always", "{{.State.Status}}"), "exited");
    husk.run(["rm", "failing", "always"]).expect_code(0);
    husk.assert_nothing_left();
}

#[test]
fn a_stop_ends_one_that_ignores_it_and_kill_chooses_its_signal() {
    let husk = Husk::new();
    let deaf = "trap '' TERM; trap 'echo usr1' USR1; echo ready; while :; do sleep 1000 & wait; done";
    detached(&husk, &["--name", "one"], deaf);
    wait_for_log(&husk, "one", "ready");
    husk.run(["kill", "-s", "USR1", "one"]).expect_code(0);
    wait_for_log(&husk, "one", "usr1");
    husk.run(["stop", "-t", "1", "one"]).expect_code(0);
    assert_eq!(inspect(&husk, "one", "{{.State.ExitCode}}"), "137");
    husk.run(["kill", "one"]).expect_failure(1, &["is not running"]);
    husk.run(["restart", "one"]).expect_code(0);
    husk.run(["kill", "one"]).expect_code(0);
    husk.run(["rm", "-f", "one"]).expect_code(0);
    husk.assert_nothing_left();
}

#[test]
fn a_client_that_does_not_read_keeps_no_container_from_being_stopped() {
    let husk = Husk::new();
    let mut client = husk.start([
        "run",
        "--name",
        "one",
        "--log-driver",
        "none",
        &image(BUSYBOX),
        "sh",
        "-c",
        "echo ready; exec yes",
    ]);
    client.wait_for_out("ready");
    client.signal(Signal::SIGSTOP);
    husk.run(["stop", "-t", "1", "one"]).expect_code(0);
    assert_eq!(inspect(&husk, "one", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
    client.signal(Signal::SIGCONT);
    client.finish().expect_code(137);
    husk.run(["rm", "one"]).expect_code(0);
    husk.assert_nothing_left();
}

#[test]
fn a_paused_container_stands_still() {
    let husk = Husk::new();
    detached(&husk, &["--name", "one"], "while :; do echo x; sleep 0.1; done");
    wait_for_log(&husk, "one", "x");
    husk.run(["pause", "one"]).expect_code(0);
    husk.run(["pause", "one"]).expect_failure(1, &["already paused"]);
    husk.run(["exec", "one", "true"]).expect_failure(1, &["is paused"]);
    let before = log(&husk, "one");
    assert_eq!(log(&husk, "one"), before);
    assert_eq!(inspect(&husk, "one", "{{.State.Status}}"), "paused");
    husk.run(["unpause", "one"]).expect_code(0);
    wait_until("it to go on", PATIENCE, || log(&husk, "one").len() > before.len());
    husk.run(["rm", "-f", "one"]).expect_code(0);
    husk.assert_nothing_left();
}

#[test]
fn names_are_one_containers_and_free_when_it_is_gone() {
    let husk = Husk::new();
    husk.run(["create", "--name", "one", &image(BUSYBOX), "true"]).expect_code(0);
    husk.run(["create", "--name", "one", &image(BUSYBOX), "true"]).expect_failure(1, &["already in use"]);
    husk.run(["create", "--name", "two", &image(BUSYBOX), "true"]).expect_code(0);
    husk.run(["rename", "one", "two"]).expect_failure(1, &["already in use"]);
    // Two clients want opposite things at once.
    let renames = [("one", "aa"), ("one", "bb")];
    let clients: Vec<Running> = renames.iter().map(|(from, to)| husk.start(["rename", from, to])).collect();
    let codes: Vec<i32> = clients.into_iter().map(|client| client.finish().code).collect();
    assert_eq!(codes.iter().filter(|code| **code == 0).count(), 1, "{codes:?}");
    for _ in 0..3 {
        husk.run(["run", "--rm", "--name", "short", &image(BUSYBOX), "true"]).expect_code(0);
    }
    let all = husk.run(["ps", "-aq"]).expect_code(0).out();
    let all: Vec<&str> = all.lines().collect();
    assert_eq!(all.len(), 2);
    husk.run([&["rm"], &all[..]].concat()).expect_code(0);
    husk.assert_nothing_left();
}

#[test]
fn opposite_wishes_at_once_leave_a_true_record() {
    let husk = Husk::new();
    husk.run(["create", "--name", "one", &image(BUSYBOX), "sleep", "1000"]).expect_code(0);
    for _ in 0..3 {
        let clients = [husk.start(["start", "one"]), husk.start(["stop", "-t", "0", "one"])];
        clients.into_iter().for_each(|client| drop(client.finish()));
        let running = inspect(&husk, "one", "{{.State.Running}}") == "true";
        assert!(!running || !leftovers::supervisors(husk.root()).is_empty());
    }
    let clients = [husk.start(["rm", "-f", "one"]), husk.start(["exec", "one", "true"])];
    clients.into_iter().for_each(|client| drop(client.finish()));
    assert_eq!(husk.run(["ps", "-aq"]).expect_code(0).out(), "");
    husk.assert_nothing_left();
}

#[test]
fn output_that_can_not_be_delivered_is_an_error() {
    let husk = Husk::new();
    let mut command = husk.command(shell_args(&[], "echo hi"));
    command.stdout(Stdio::from(fs::File::options().write(true).open("/dev/full").unwrap()));
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(err.contains("cannot deliver") && err.contains("No space left"), "{err}");
    husk.assert_nothing_left();
}

#[test]
fn a_root_with_a_long_path_works() {
    let husk = Husk::new();
    let long = husk.root().join("d".repeat(90)).join("e".repeat(90));
    fs::create_dir_all(&long).unwrap();
    for name in ["images", "disks"] {
        fs::create_dir_all(long.join("data")).unwrap();
        std::os::unix::fs::symlink(husk.data().join(name), long.join("data").join(name)).unwrap();
    }
    let run = |args: &[&str]| {
        let mut command: Command = husk.command(args);
        command.env("HUSK_ROOT", &long).output().unwrap()
    };
    let image = image(BUSYBOX);
    let output = run(&["run", "--rm", &image, "echo", "far"]);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "far\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    husk.assert_nothing_left();
}
