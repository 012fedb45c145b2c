//! Standard streams: every byte, in order, and the end of each.

use std::io::Read;

use husk_tests::{
    husk::{Husk, shell_args},
    oci::{digest, noise},
    process::Running,
    wait::{PATIENCE, wait_until},
};

#[test]
fn twenty_megabytes_go_in_and_come_out_the_same() {
    let husk = Husk::new();
    let input = noise(20 << 20);
    let output = husk.run_with_input(shell_args(&["-i"], "exec cat"), input.clone()).expect_code(0);
    assert_eq!(output.stdout.len(), input.len());
    // Not assert_eq!, which would print both.
    assert!(output.stdout == input, "the bytes differ");
    husk.assert_nothing_left();
}

#[test]
fn fifty_megabytes_of_output_arrive_before_husk_ends() {
    const BLOCK: usize = 1_000_000;
    let script = "head -c 1000000 /dev/urandom >/block; sha256sum </block >&2; \
                  n=100; while [ $n -lt 150 ]; do echo $n; cat /block; n=$((n + 1)); done";
    let output = Husk::new().shell(&[], script).expect_code(0);
    assert_eq!(output.stdout.len(), 50 * (BLOCK + 4));
    let block = &output.stdout[4..4 + BLOCK];
    assert!(output.err().starts_with(digest(block).trim_start_matches("sha256:")));
    for (piece, number) in output.stdout.chunks(BLOCK + 4).zip(100..) {
        assert!(
            piece[..4] == *format!("{number}\n").as_bytes() && piece[4..] == *block,
            "block {number} is damaged"
        );
    }
}

#[test]
fn output_and_errors_are_kept_apart() {
    let script = "for n in 1 2 3; do echo out$n; echo err$n >&2; done; exit 3";
    let output = Husk::new().shell(&[], script).expect_code(3);
    assert_eq!(output.out(), "out1\nout2\nout3\n");
    assert_eq!(output.err(), "err1\nerr2\nerr3\n");
}

#[test]
fn without_i_standard_input_is_empty() {
    let husk = Husk::new();
    husk.run_with_input(shell_args(&[], "cat; echo end"), b"not for the container".to_vec())
        .expect_out("end\n");
}

#[test]
fn the_end_of_input_is_passed_on_when_it_comes() {
    let husk = Husk::new();
    let mut running = husk.start_shell(&["-i"], "read line; echo got $line; cat; echo end");
    running.write(b"first\n");
    running.wait_for_out("got first\n");
    running.write(b"second");
    running.wait_for_out("second");
    running.close_stdin();
    running.finish().expect_out("got first\nsecondend\n");
    husk.assert_nothing_left();
}

#[test]
fn a_container_that_ends_does_not_wait_for_its_input() {
    let husk = Husk::new();
    let mut running = husk.start_shell(&["-i"], "exit 5");
    // Standard input stays open for as long as husk runs.
    wait_until("husk to end", PATIENCE, || running.has_ended());
    running.finish().expect_code(5);
    husk.assert_nothing_left();
}

#[test]
fn a_reader_that_leaves_ends_the_writer() {
    let husk = Husk::new();
    let mut running =
        Running::start_unread(&mut husk.command(shell_args(&[], "yes; echo ended with $? >&2")));
    let mut stdout = running.take_stdout();
    let mut begin = [0; 4];
    stdout.read_exact(&mut begin).unwrap();
    assert_eq!(&begin, b"y\ny\n");
    drop(stdout);
    let output = running.finish();
    assert!(output.err().contains("ended with"), "{}", output.err());
    husk.assert_nothing_left();
}

#[test]
fn a_slow_reader_loses_nothing_and_holds_up_nothing_else() {
    let husk = Husk::new();
    let script = "seq 1 300000 & read line; echo heard $line >&2; wait";
    let mut running = Running::start_unread(&mut husk.command(shell_args(&["-i"], script)));
    let mut stdout = running.take_stdout();
    // Nobody reads, and the buffers on the way fill up. The other streams still work.
    wait_until("the pipe to fill", PATIENCE, || bytes_in(&stdout) >= 64 * 1024);
    running.write(b"you\n");
    running.wait_for_err("heard you");
    let mut got = Vec::new();
    let mut piece = [0; 1000];
    loop {
        match stdout.read(&mut piece).unwrap() {
            0 => break,
            count => got.extend_from_slice(&piece[..count]),
        }
    }
    running.finish().expect_code(0);
    let expected: Vec<u8> = (1..=300_000).flat_map(|number| format!("{number}\n").into_bytes()).collect();
    assert!(got == expected, "{} bytes instead of {}", got.len(), expected.len());
}

fn bytes_in(pipe: &impl std::os::fd::AsRawFd) -> i32 {
    let mut count = 0;
    // SAFETY: FIONREAD fills the integer that the pointer leads to.
    assert_eq!(unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut count) }, 0);
    count
}
