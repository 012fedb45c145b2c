//! The lab as its users see it. Needs QEMU, as `make setup` installs it; every machine started here costs seconds.

#![expect(clippy::unwrap_used, reason = "it is a test")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

const LAB: &str = env!("CARGO_BIN_EXE_husk-lab");

fn lab(options: &[&str], command: &[&str]) -> Command {
    let mut lab = Command::new(LAB);
    lab.arg("run").args(options).arg("--").args(command).stdin(Stdio::null());
    lab
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn expect_code(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A megabyte in which every byte value occurs, and no two lines are alike.
fn binary() -> Vec<u8> {
    (0..1_u32 << 18).flat_map(|number| number.wrapping_mul(0x9e37_79b1).to_le_bytes()).collect()
}

#[test]
fn streams_are_byte_exact_and_the_machine_is_complete() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("new/results");
    let script = r#"
        set -e
        cat > /lab/out/stdin
        cp /lab/out/stdin /lab/disk/copy
        cat /lab/disk/copy
        cat /lab/disk/copy >&2
        exec 5<>/dev/kvm
        {
            pwd
            grep -cw svm /proc/cpuinfo
            stat -f -c %T /lab/disk
            cat /sys/class/net/lo/flags
            date -u +%Y
            echo "$MARK"
            mkdir /sys/fs/cgroup/x && cat /sys/fs/cgroup/x/cgroup.controllers
            modprobe tun && modprobe bridge && echo modules
            head -c 0 /dev/net/tun && echo tun
            touch /usr/new && echo writable
        } > /lab/out/facts
        sleep 1000 &
        exit 7
    "#;
    let mut child = lab(
        &["--out", out.to_str().unwrap(), "--disk-size", "64", "--cpus", "1", "--env", "MARK=a b=c"],
        &["sh", "-c", script],
    )
    .stdin(Stdio::piped())
    .stdout(Stdio::piped())
    .stderr(Stdio::piped())
    .spawn()
    .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let feeder = std::thread::spawn(move || stdin.write_all(&binary()));
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap().unwrap();

    expect_code(&output, 7);
    assert!(output.stdout == binary(), "stdout differs");
    assert!(output.stderr == binary(), "stderr differs");
    assert!(fs::read(out.join("stdin")).unwrap() == binary(), "stdin differs");
    let facts = fs::read_to_string(out.join("facts")).unwrap();
    let facts: Vec<&str> = facts.lines().collect();
    assert_eq!(facts[0], std::env::current_dir().unwrap().to_str().unwrap());
    let year = Command::new("date").args(["-u", "+%Y"]).output().unwrap().stdout;
    assert_eq!(facts[1..6], ["1", "ext2/ext3", "0x9", text(&year).trim(), "a b=c"]);
    assert!(facts[6].contains("memory") && facts[6].contains("cpu"), "controllers: {}", facts[6]);
    assert_eq!(facts[7..], ["modules", "tun", "writable"]);
    assert!(!Path::new("/usr/new").exists(), "the machine wrote to the host's tree");
}

#[test]
fn another_root_and_virtual_time() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("bin")).unwrap();
    fs::copy("/bin/busybox", dir.path().join("bin/sh")).expect("busybox-static is installed by `make setup`");
    let root = dir.path().to_str().unwrap();
    let output =
        lab(&["--root", root, "--deterministic"], &["sh", "-c", "pwd; nproc; kill -9 $$"]).output().unwrap();
    expect_code(&output, 128 + 9);
    assert_eq!(text(&output.stdout), "/\n1\n");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "the machine wrote to its root");
}

#[test]
fn a_command_that_cannot_run_is_named() {
    let output = lab(&[], &["/no/such/program"]).output().unwrap();
    expect_code(&output, 127);
    assert!(text(&output.stderr).contains("/no/such/program"), "{}", text(&output.stderr));
}

#[test]
fn the_time_limit_has_its_own_exit_code() {
    let output = lab(&["--timeout", "1"], &["sleep", "1000"]).output().unwrap();
    expect_code(&output, 124);
    assert!(text(&output.stderr).contains("--timeout"), "{}", text(&output.stderr));
}

/// Starts a command that never ends, and returns when it runs. Gives the process id of QEMU too.
fn endless() -> (Child, i32) {
    let mut child =
        lab(&[], &["sh", "-c", "echo ready; exec sleep 1000"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).unwrap();
    (child, children.trim().parse().expect("one child, QEMU"))
}

/// A descriptor that is readable once the process has ended, whatever becomes of its number.
fn watch(pid: i32) -> fs::File {
    // SAFETY: pidfd_open takes plain numbers, and a result that is not negative is a descriptor owned by nobody else.
    unsafe {
        let descriptor = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        std::os::fd::FromRawFd::from_raw_fd(i32::try_from(descriptor).unwrap())
    }
}

fn await_end(process: &fs::File) {
    use std::os::fd::AsRawFd;
    let mut polled = libc::pollfd { fd: process.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd is passed, and lives throughout the call.
    assert_eq!(unsafe { libc::poll(&raw mut polled, 1, 60_000) }, 1, "QEMU outlived the lab");
}

#[test]
fn qemu_ends_when_the_lab_is_killed() {
    let (mut lab, qemu) = endless();
    let qemu = watch(qemu);
    lab.kill().unwrap();
    assert_eq!(lab.wait().unwrap().signal(), Some(libc::SIGKILL));
    await_end(&qemu);
}

#[test]
fn a_signal_ends_everything() {
    let (mut lab, qemu) = endless();
    let qemu = watch(qemu);
    // SAFETY: the process is a child that has not been waited for, so the number is still its own.
    assert_eq!(unsafe { libc::kill(i32::try_from(lab.id()).unwrap(), libc::SIGTERM) }, 0);
    assert_eq!(lab.wait().unwrap().code(), Some(128 + libc::SIGTERM));
    await_end(&qemu);
    let mut rest = String::new();
    lab.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
}

#[test]
fn what_is_missing_is_said_before_anything_starts() {
    let cache = tempfile::tempdir().unwrap();
    let mut lab_of_nothing = lab(&[], &["true"]);
    let output = lab_of_nothing.env("PATH", "/nonexistent").env("HUSK_CACHE", cache.path()).output().unwrap();
    expect_code(&output, 125);
    assert!(text(&output.stderr).contains("make setup"), "{}", text(&output.stderr));

    let output = lab(&["--root", "/no/such/root"], &["true"]).output().unwrap();
    expect_code(&output, 125);
    assert!(text(&output.stderr).contains("/no/such/root"), "{}", text(&output.stderr));
}
