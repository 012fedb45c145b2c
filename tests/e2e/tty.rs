//! `-t`: a terminal that behaves as one.

use husk_tests::{
    husk::{Husk, shell_args},
    pty::Terminal,
    wait::{PATIENCE, wait_until},
};
use nix::sys::{signal::Signal, termios::LocalFlags};

const INTERACTIVE: &[&str] = &["-i", "-t"];

#[test]
fn a_terminal_has_the_users_size_and_type() {
    let husk = Husk::new();
    let script = "[ -t 0 ] && [ -t 1 ] && [ -t 2 ] && tty; stty size; echo $TERM; echo to-stderr >&2; exit 4";
    let (terminal, running) = Terminal::start(husk.command(shell_args(INTERACTIVE, script)), 33, 101);
    let output = terminal.finish(running).expect_code(4);
    // A terminal ends its lines with both characters, and there is one stream only.
    assert_eq!(output.out(), "/dev/pts/0\r\n33 101\r\nxterm\r\nto-stderr\r\n");
    husk.assert_nothing_left();
}

#[test]
fn a_resized_window_is_told_to_the_container() {
    let husk = Husk::new();
    let script =
        "trap 'echo now $(stty size); exit 0' WINCH; echo ready; while :; do sleep 1000 & wait; done";
    let (mut terminal, running) = Terminal::start(husk.command(shell_args(INTERACTIVE, script)), 24, 80);
    terminal.wait_for("ready");
    terminal.resize(50, 120);
    terminal.wait_for("now 50 120");
    terminal.finish(running).expect_code(0);
}

#[test]
fn keys_reach_the_container_and_are_echoed_by_it() {
    let husk = Husk::new();
    let script = "echo ready; read x; echo got-$x";
    let (mut terminal, running) = Terminal::start(husk.command(shell_args(INTERACTIVE, script)), 24, 80);
    terminal.wait_for("ready");
    // husk's terminal is raw by now: the echo is the container's, once.
    terminal.type_keys("abc\r");
    terminal.wait_for("got-abc\r\n");
    assert_eq!(terminal.screen().matches("abc").count(), 2, "{:?}", terminal.screen());
    terminal.finish(running).expect_code(0);
}

#[test]
fn interrupts_and_the_end_of_input_are_keys() {
    let husk = Husk::new();
    // From "ready" on, there is somebody whom the key interrupts.
    let script = "trap 'echo interrupted' INT; sh -c 'echo ready; exec cat'; echo cat ended; cat; echo done";
    let (mut terminal, running) = Terminal::start(husk.command(shell_args(INTERACTIVE, script)), 24, 80);
    terminal.wait_for("ready");
    terminal.type_keys("\u{3}");
    terminal.wait_for("cat ended");
    assert!(terminal.screen().contains("interrupted"), "{:?}", terminal.screen());
    terminal.type_keys("\u{4}");
    terminal.wait_for("done");
    terminal.finish(running).expect_code(0);
    husk.assert_nothing_left();
}

#[test]
fn without_t_the_terminals_interrupt_is_a_signal_for_the_container_alone() {
    let husk = Husk::new();
    let script = "trap 'echo interrupted; exit 40' INT; echo ready; while :; do sleep 1000 & wait; done";
    let (mut terminal, running) = Terminal::start(husk.command(shell_args(&["-i"], script)), 24, 80);
    terminal.wait_for("ready");
    terminal.type_keys("\u{3}");
    // The terminal sends it to husk and to all that husk has started.
    let output = terminal.finish(running).expect_code(40);
    assert!(output.out().ends_with("interrupted\r\n"), "{}", output.out());
    husk.assert_nothing_left();
}

#[test]
fn a_container_goes_on_when_its_terminal_is_closed() {
    let husk = Husk::new();
    let script = "trap 'exit 40' TERM HUP; echo ready; while :; do sleep 1000 & wait; done";
    let (mut terminal, running) = Terminal::start(husk.command(shell_args(INTERACTIVE, script)), 24, 80);
    terminal.wait_for("ready");
    drop(terminal);
    running.finish().expect_code(0);
    let ids = husk.run(["ps", "-q"]).expect_code(0).out();
    husk.run(["stop", ids.trim()]).expect_code(0);
    assert_eq!(husk.run(["ps", "-aq"]).expect_code(0).out(), "");
    husk.assert_nothing_left();
}

#[test]
fn the_users_terminal_is_raw_meanwhile_and_given_back() {
    let husk = Husk::new();
    let script = "trap 'exit 40' TERM; echo ready; while :; do sleep 1000 & wait; done";
    let (mut terminal, mut running) = Terminal::start(husk.command(shell_args(INTERACTIVE, script)), 24, 80);
    let cooked = LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG;
    terminal.wait_for("ready");
    assert!(!terminal.modes().local_flags.intersects(cooked));
    running.signal(Signal::SIGTERM);
    wait_until("husk to end", PATIENCE, || running.has_ended());
    assert!(terminal.modes().local_flags.contains(cooked));
    terminal.finish(running).expect_code(40);
    husk.assert_nothing_left();
}

#[test]
fn t_without_a_terminal_is_refused_only_when_input_is_asked_for() {
    let husk = Husk::new();
    husk.shell(INTERACTIVE, "true").expect_failure(125, &["not a terminal", "-t"]);
    husk.shell(&["-t"], "[ -t 1 ] && echo tty").expect_out("tty\r\n");
}
