//! The processes of a container, as ps(1) shows them.
//!
//! Reading about a process can wait for the container: its arguments, or /etc/passwd, may come from a file system that a
//! process of the container serves. So a child of the agent reads, for a limited time.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read, Write},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use husk_protocol::agent::{ListProcessesResponse, ProcessInfo};
use nix::unistd::Pid;
use protobuf::Message;

use super::{helper, in_root::Root, user};
use crate::{failure::Failure, reaper::Reaper, timeline};

/// Most processes in an answer.
const MAX_PROCESSES: usize = 4096;
/// Most bytes of one command line, and of all in an answer.
const MAX_COMMAND: usize = 4096;
const MAX_COMMANDS: usize = 2 << 20;
/// Most bytes of a user's name.
const MAX_USER: usize = 64;
/// How long reading may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Describes processes of the container whose first process is `init`; `execs` names those that are an exec's first.
pub(super) async fn list(
    reaper: &Reaper,
    init: Pid,
    mut pids: Vec<Pid>,
    execs: &HashMap<Pid, String>,
) -> Result<ListProcessesResponse, Failure> {
    pids.truncate(MAX_PROCESSES);
    let write = |answer: &mut File| {
        let list = describe(init, &pids, execs);
        answer.write_all(&list.write_to_bytes().map_err(io::Error::other)?)
    };
    let bytes = helper::ask(reaper, LIMIT, write).await?;
    let list = ListProcessesResponse::parse_from_bytes(&bytes);
    list.map_err(|e| Failure::internal(format!("a helper's list of processes is damaged: {e}")))
}

fn describe(init: Pid, pids: &[Pid], execs: &HashMap<Pid, String>) -> ListProcessesResponse {
    // Without them there are numbers.
    let users = Root::open(Path::new(&format!("/proc/{init}/root"))).map(|root| user::names(&root));
    let users = users.unwrap_or_default();
    let clock = Clock::now();
    let most = MAX_COMMAND.min(MAX_COMMANDS / pids.len().max(1));
    let info = |pid: &Pid| {
        let mut info = read(*pid, &clock, most)?;
        info.exec_id = execs.get(pid).cloned().unwrap_or_default();
        let user = users.get(&info.uid).map(String::as_str).unwrap_or_default();
        info.user = cut(user, MAX_USER).to_owned();
        Some(info)
    };
    ListProcessesResponse { processes: pids.iter().filter_map(info).collect(), ..Default::default() }
}

/// What relates times in /proc to the wall clock.
struct Clock {
    /// The wall clock's time at the boot, in milliseconds since 1970.
    boot_unix_ms: u64,
    ticks_per_second: u64,
}

impl Clock {
    fn now() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let now = u64::try_from(now).unwrap_or_default();
        // SAFETY: takes no pointers.
        let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
        Self {
            boot_unix_ms: now.saturating_sub(timeline::now_ns() / 1_000_000),
            ticks_per_second: u64::try_from(ticks).unwrap_or_default().max(1),
        }
    }

    fn ms(&self, ticks: u64) -> u64 {
        ticks.saturating_mul(1000) / self.ticks_per_second
    }
}

/// Describes a process; `None` when it has ended meanwhile.
fn read(pid: Pid, clock: &Clock, most: usize) -> Option<ProcessInfo> {
    let file = |name: &str| format!("/proc/{pid}/{name}");
    let stat = fs::read(file("stat")).ok()?;
    let stat = Stat::parse(&stat)?;
    let status = fs::read(file("status")).ok()?;
    let mut arguments = Vec::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX);
    // A zombie has none.
    let _ = File::open(file("cmdline")).and_then(|file| file.take(limit).read_to_end(&mut arguments));
    let command = match arguments.as_slice() {
        [] => format!("[{}]", stat.name),
        arguments => spaced(arguments),
    };
    Some(ProcessInfo {
        pid: pid.as_raw().unsigned_abs(),
        ppid: stat.parent,
        uid: effective_uid(&status)?,
        started_unix_ms: clock.boot_unix_ms.saturating_add(clock.ms(stat.started)),
        cpu_time_ms: clock.ms(stat.cpu_time),
        tty: tty_name(stat.tty),
        command: cut(&command, most).to_owned(),
        ..Default::default()
    })
}

/// What is read of /proc/PID/stat (proc_pid_stat(5)). Times are in ticks.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    name: String,
    parent: u32,
    tty: u32,
    cpu_time: u64,
    started: u64,
}

impl Stat {
    /// The name is in parentheses, and may hold any bytes, parentheses among them.
    fn parse(line: &[u8]) -> Option<Self> {
        let line = String::from_utf8_lossy(line);
        let (before, after) = (line.find('(')?, line.rfind(')')?);
        let fields: Vec<&str> = line[after + 1..].split_ascii_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        let signed = |at: usize| fields.get(at)?.parse::<i32>().ok();
        Some(Self {
            name: line.get(before + 1..after)?.to_owned(),
            parent: signed(1)?.unsigned_abs(),
            tty: signed(4)?.cast_unsigned(),
            cpu_time: number(11)?.saturating_add(number(12)?),
            started: number(19)?,
        })
    }
}

/// The second number in the line `Uid:` of /proc/PID/status.
fn effective_uid(status: &[u8]) -> Option<u32> {
    let line = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"Uid:"))?;
    std::str::from_utf8(line).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The name of a terminal below /dev, by its device number (the kernel's admin-guide/devices.txt).
fn tty_name(number: u32) -> String {
    let (major, minor) = ((number >> 8) & 0xfff, (number & 0xff) | ((number >> 12) & 0xf_ff00));
    match (major, minor) {
        (0, 0) => String::new(),
        (4, 64..) => format!("ttyS{}", minor - 64),
        (4, _) => format!("tty{minor}"),
        (5, 1) => "console".to_owned(),
        (136..=143, _) => format!("pts/{}", (major - 136) * 256 + minor),
        (229, _) => format!("hvc{minor}"),
        _ => format!("{major}:{minor}"),
    }
}

/// Arguments, each with a NUL at its end, with spaces between them.
fn spaced(arguments: &[u8]) -> String {
    let end = arguments.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    String::from_utf8_lossy(&arguments[..end]).replace('\0', " ")
}

/// The beginning of a text, at most `most` bytes.
fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REST: &str = "S 7 8 9 34819 -1 4194560 1 2 3 4 150 50 0 0 20 0 1 0 12345 99 1";

    #[test]
    fn a_name_can_hold_anything() {
        for name in ["sh", "a b", ") S 1 (", "", "x)"] {
            let stat = Stat::parse(format!("5 ({name}) {REST}\n").as_bytes()).unwrap();
            let expected = Stat { name: name.into(), parent: 7, tty: 34819, cpu_time: 200, started: 12345 };
            assert_eq!(stat, expected);
        }
    }

    #[test]
    fn terminals_have_their_usual_names() {
        for (major, minor, name) in [
            (0, 0, ""),
            (136, 3, "pts/3"),
            (137, 1, "pts/257"),
            (136, 300, "pts/300"),
            (4, 1, "tty1"),
            (4, 65, "ttyS1"),
            (5, 1, "console"),
            (229, 0, "hvc0"),
            (200, 5, "200:5"),
        ] {
            let number = (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12);
            assert_eq!(tty_name(number), name);
        }
    }

    #[test]
    fn arguments_are_shown_with_spaces() {
        assert_eq!(spaced(b"sh\0-c\0a b\0\0"), "sh -c a b");
        assert_eq!(spaced(b"title set by itself"), "title set by itself");
        assert_eq!(spaced(b"\0\0"), "");
        assert_eq!(cut("aüb", 2), "a");
    }

    #[test]
    fn a_process_is_described() {
        let me = Pid::this();
        let clock = Clock::now();
        let info = read(me, &clock, MAX_COMMAND).unwrap();
        assert_eq!(info.ppid, std::os::unix::process::parent_id());
        assert_eq!(info.uid, nix::unistd::geteuid().as_raw());
        let program = std::env::args().next().unwrap();
        assert!(info.command.starts_with(&program), "{info}");
        assert_eq!(read(me, &clock, 3).unwrap().command, program[..3]);
        assert!(read(Pid::from_raw(i32::MAX), &clock, 3).is_none());
    }

    proptest! {
        #[test]
        fn no_line_of_stat_is_too_odd(line: Vec<u8>, tail in "[()0-9 -]{0,40}") {
            Stat::parse(&line);
            Stat::parse(&[&line, tail.as_bytes()].concat());
        }

        #[test]
        fn every_terminal_has_a_name(number: u32) {
            prop_assert!(tty_name(number).len() <= 12);
        }
    }
}
