//! `husk top`: a container's processes, as ps(1) on the host would show them.

use anyhow::{bail, ensure};
use husk_protocol::agent::ProcessInfo;
use husk_sandbox::{
    events::{self, Event},
    paths::Dirs,
    store::Store,
};
use jiff::{Timestamp, ToSpan, ZonedDateTime, tz::TimeZone};
use unicode_width::UnicodeWidthStr;

use super::container::running;
use crate::{args::TopArgs, output, times};

/// Docker's columns are at least so wide, and so far apart.
const MIN_WIDTH: usize = 20;
const PADDING: usize = 3;

pub(crate) async fn run(dirs: &Dirs, args: &TopArgs) -> anyhow::Result<u8> {
    let columns = columns(&args.options)?;
    let store = Store::open(dirs)?;
    let (id, pod) = running(dirs, &store, &args.container)?;
    let processes = pod.top(&id).await?.processes;
    events::record(dirs, &Event::of_container(&store.config(&id)?, "top"));
    let now = Now { at: Timestamp::now(), zone: times::zone() };
    let heading = columns.iter().map(|column| column.title.clone()).collect();
    let rows =
        processes.iter().map(|process| columns.iter().map(|column| (column.text)(process, &now)).collect());
    let table: Vec<Vec<String>> = std::iter::once(heading).chain(rows).collect();
    output::print(&aligned(&table))?;
    Ok(0)
}

struct Now {
    at: Timestamp,
    zone: TimeZone,
}

type Text = fn(&ProcessInfo, &Now) -> String;

/// A column, its title, and how a process's field of it is made.
#[derive(Debug)]
struct Column {
    title: String,
    text: Text,
}

/// Names of columns, as ps(1) has them, with their titles.
const COLUMNS: [(&[&str], &str, Text); 14] = [
    (&["pid", "tgid"], "PID", |p, _| p.pid.to_string()),
    (&["ppid"], "PPID", |p, _| p.ppid.to_string()),
    (&["uid", "euid"], "UID", |p, _| p.uid.to_string()),
    (&["user", "euser", "uname"], "USER", |p, _| user(p)),
    (&["c"], "C", |p, now| format!("{:.0}", cpu_percent(p, now).floor())),
    (&["pcpu", "%cpu"], "%CPU", |p, now| format!("{:.1}", cpu_percent(p, now))),
    (&["stime", "start_time"], "STIME", start_time),
    (&["etime"], "ELAPSED", |p, now| elapsed_time(running_ms(p, now) / 1000)),
    (&["etimes"], "ELAPSED", |p, now| (running_ms(p, now) / 1000).to_string()),
    (&["tty", "tt", "tname"], "TTY", |p, _| if p.tty.is_empty() { "?".into() } else { p.tty.clone() }),
    (&["time", "cputime"], "TIME", |p, _| cpu_time(p.cpu_time_ms / 1000)),
    (&["cmd"], "CMD", |p, _| p.command.clone()),
    (&["args", "command"], "COMMAND", |p, _| p.command.clone()),
    (&["comm", "ucmd", "ucomm"], "COMMAND", |p, _| program(&p.command).to_owned()),
];

/// The columns of `ps -ef`: `UID` is the user's name there.
const FULL: [&str; 8] = ["user=UID", "pid", "ppid", "c", "stime", "tty", "time", "cmd"];

/// The columns that options of ps(1) ask for. Which processes are shown can't be chosen: the container's.
fn columns(options: &[String]) -> anyhow::Result<Vec<Column>> {
    let mut wanted: Vec<String> = Vec::new();
    let mut options = options.iter();
    while let Some(option) = options.next() {
        let letters = option.strip_prefix('-').unwrap_or(option);
        let (flags, list) = letters.split_once('o').unwrap_or((letters, ""));
        ensure!(
            flags.chars().all(|flag| matches!(flag, 'e' | 'A' | 'f'))
                && (!flags.is_empty() || letters.contains('o')),
            "husk top does not know the option {option} of ps: use -ef, or -o with columns such as pid,user,comm"
        );
        if !letters.contains('o') {
            continue;
        }
        let list = match list {
            "" => options.next().map(String::as_str).unwrap_or_default(),
            list => list,
        };
        ensure!(!list.is_empty(), "the option {option} of ps needs a list of columns, such as pid,user,comm");
        wanted.extend(list.split(',').map(str::to_owned));
    }
    if wanted.is_empty() {
        wanted = FULL.map(str::to_owned).into();
    }
    wanted.iter().map(|name| column(name)).collect()
}

/// `pid`, or with a title of its own: `pid=NUMBER`.
fn column(wanted: &str) -> anyhow::Result<Column> {
    let (name, title) = wanted.split_once('=').map_or((wanted, None), |(name, title)| (name, Some(title)));
    let known = COLUMNS.iter().find(|(names, ..)| names.contains(&name));
    let Some((_, default, text)) = known else {
        let names: Vec<&str> = COLUMNS.iter().filter_map(|(names, ..)| names.first().copied()).collect();
        bail!("husk top does not know the column {name} of ps: use any of {}", names.join(","));
    };
    Ok(Column { title: title.unwrap_or(default).to_owned(), text: *text })
}

fn user(process: &ProcessInfo) -> String {
    if process.user.is_empty() { process.uid.to_string() } else { process.user.clone() }
}

fn running_ms(process: &ProcessInfo, now: &Now) -> u64 {
    u64::try_from(now.at.as_millisecond()).unwrap_or_default().saturating_sub(process.started_unix_ms)
}

fn cpu_percent(process: &ProcessInfo, now: &Now) -> f64 {
    let running = running_ms(process, now).max(1);
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let share = process.cpu_time_ms as f64 / running as f64;
    share * 100.0
}

/// The time of a start within a day, else the day, else the year.
fn start_time(process: &ProcessInfo, now: &Now) -> String {
    let started =
        i64::try_from(process.started_unix_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let Some(started) = started else { return "?".into() };
    let zoned = |time| ZonedDateTime::new(time, now.zone.clone());
    let (started, now) = (zoned(started), zoned(now.at));
    let a_day_ago = now.checked_sub(24.hours()).unwrap_or_else(|_| now.clone());
    let format = match () {
        () if started > a_day_ago => "%H:%M",
        () if started.year() == now.year() => "%b%d",
        () => "%Y",
    };
    started.strftime(format).to_string()
}

/// `[[DD-]HH:]MM:SS`
fn elapsed_time(seconds: u64) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let rest = format!("{:02}:{:02}", seconds / 60 % 60, seconds % 60);
    match (days, hours) {
        (0, 0) => rest,
        (0, _) => format!("{hours:02}:{rest}"),
        _ => format!("{days}-{hours:02}:{rest}"),
    }
}

/// `[DD-]HH:MM:SS`
fn cpu_time(seconds: u64) -> String {
    let elapsed = elapsed_time(seconds);
    if seconds < 3600 { format!("00:{elapsed}") } else { elapsed }
}

/// The program's name without its directory; without brackets for a process that has no arguments.
fn program(command: &str) -> &str {
    let first = command.split(' ').next().unwrap_or_default();
    let name = first.rsplit('/').next().unwrap_or_default();
    name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name)
}

/// What the last column has is not padded.
fn aligned(table: &[Vec<String>]) -> String {
    let columns = table.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let widest = table.iter().filter_map(|row| row.get(column)).map(|cell| cell.width()).max();
        (widest.unwrap_or_default() + PADDING).max(MIN_WIDTH)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in table {
        for (index, cell) in row.iter().enumerate() {
            text += cell;
            if index + 1 < row.len() {
                text.extend(std::iter::repeat_n(' ', widths[index] - cell.width()));
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process() -> ProcessInfo {
        ProcessInfo {
            pid: 7,
            ppid: 1,
            uid: 33,
            user: "www-data".into(),
            started_unix_ms: 1_700_000_000_000,
            cpu_time_ms: 3_661_000,
            command: "/usr/sbin/nginx -g x".into(),
            ..ProcessInfo::default()
        }
    }

    fn shown(options: &[&str], after_s: i64) -> Result<Vec<(String, String)>, String> {
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let now = Now { at: Timestamp::from_second(1_700_000_000 + after_s).unwrap(), zone: TimeZone::UTC };
        let columns = columns(&options).map_err(|error| error.to_string())?;
        Ok(columns.iter().map(|c| (c.title.clone(), (c.text)(&process(), &now))).collect())
    }

    #[test]
    fn the_default_is_full() {
        for options in [&[][..], &["-ef"], &["-e", "-f"]] {
            let shown = shown(options, 7322).unwrap();
            let (titles, fields): (Vec<_>, Vec<_>) = shown.into_iter().unzip();
            assert_eq!(titles, ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]);
            assert_eq!(
                fields,
                ["www-data", "7", "1", "50", "22:13", "?", "01:01:01", "/usr/sbin/nginx -g x"]
            );
        }
    }

    #[test]
    fn columns_are_chosen() {
        for options in [&["-o", "pid,comm"][..], &["-eo", "pid,comm"], &["-opid,comm"], &["o", "pid,comm"]] {
            let expected = [("PID", "7"), ("COMMAND", "nginx")].map(|(t, c)| (t.to_owned(), c.to_owned()));
            assert_eq!(shown(options, 1).unwrap(), expected, "{options:?}");
        }
        assert_eq!(shown(&["-o", "pid=N"], 1).unwrap(), [("N".to_owned(), "7".to_owned())]);
        assert_eq!(shown(&["-o", "stime"], 3 * 86_400).unwrap()[0].1, "Nov14");
        assert_eq!(shown(&["-o", "etime"], 90_061).unwrap()[0].1, "1-01:01:01");
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for (options, text) in [
            (&["aux"][..], "husk top does not know the option aux"),
            (&["-o", "pid,wchan"], "husk top does not know the column wchan"),
            (&["-o"], "the option -o of ps needs a list of columns"),
            (&["-"], "husk top does not know the option -"),
        ] {
            let error = shown(options, 1).unwrap_err();
            assert!(error.starts_with(text), "{error}");
        }
    }

    #[test]
    fn columns_are_as_wide_as_dockers() {
        let table = [vec!["UID".to_owned(), "CMD".to_owned()], vec!["root".to_owned(), "sh".to_owned()]];
        assert_eq!(aligned(&table), "UID                 CMD\nroot                sh\n");
    }
}
