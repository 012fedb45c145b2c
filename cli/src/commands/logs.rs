//! `husk logs`

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    future::Future,
    io::{self, Write},
    pin::Pin,
    time::Duration,
};

use anyhow::bail;
use husk_protocol::StdioKind;
use husk_sandbox::{
    logs::{Driver, Follower, ReadOptions, Reader, Record},
    paths::Dirs,
    store::{Status, Store},
};
use husk_supervisor::Pod;
use jiff::{Timestamp, tz::TimeZone};

use crate::{args::LogsArgs, output, times};

/// How often the record of a container that waits for its restart is read.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

pub(crate) async fn run(dirs: &Dirs, args: &LogsArgs) -> anyhow::Result<u8> {
    let store = Store::open(dirs)?;
    let id = store.find(&args.container)?;
    if store.config(&id)?.log.driver() == Driver::None {
        bail!("configured logging driver does not support reading");
    }
    let (now, zone) = (Timestamp::now(), times::zone());
    let moment =
        |text: &Option<String>| text.as_deref().map(|text| times::parse(text, now, &zone)).transpose();
    let options = ReadOptions {
        since: moment(&args.since)?,
        until: moment(&args.until)?,
        // As Docker: what is not a number is all.
        tail: args.tail.parse().ok(),
    };
    let mut printer = Printer { timestamps: args.timestamps, details: args.details };
    let path = store.log(&id);
    if !args.follow {
        for record in Reader::open(&path, &options)? {
            printer.print(&record?)?;
        }
        return Ok(0);
    }
    let ended: Pin<Box<dyn Future<Output = ()>>> = Box::pin(ended_for_good(dirs, &store, &id));
    let mut follower = Follower::open(&path, &options, ended)?;
    while let Some(record) = follower.next().await? {
        printer.print(&record)?;
    }
    Ok(0)
}

/// Returns when a container does not run, and its restart policy does not start it again.
async fn ended_for_good(dirs: &Dirs, store: &Store, id: &str) {
    while let Ok(record) = store.get(id) {
        match record.state.status {
            Status::Running | Status::Paused => {
                let waited = match Pod::of(dirs, store, id) {
                    Ok(Some(pod)) => pod.wait(id, "", true).await.is_ok(),
                    _ => false,
                };
                if !waited {
                    // That its supervisor was killed shows in the record.
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
            }
            Status::Restarting => tokio::time::sleep(LOOK_AGAIN).await,
            _ => return,
        }
    }
}

/// Prints records where the container has written them.
struct Printer {
    timestamps: bool,
    details: bool,
}

impl Printer {
    fn print(&mut self, record: &Record) -> anyhow::Result<()> {
        let line = self.line(record);
        let written = match record.stream {
            StdioKind::Stderr => io::stderr().write_all(line.as_bytes()),
            StdioKind::Stdin | StdioKind::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(line.as_bytes()).and_then(|()| out.flush())
            }
        };
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => output::exit(0),
            other => Ok(other?),
        }
    }

    fn line(&self, record: &Record) -> String {
        let mut line = String::new();
        if self.timestamps {
            line += &times::rfc3339_fixed(record.time, &TimeZone::UTC);
            line.push(' ');
        }
        if self.details {
            line += &details(&record.attributes);
            line.push(' ');
        }
        line + &record.text
    }
}

/// `a=1,b=2`, in the form that URLs have.
fn details(attributes: &BTreeMap<String, String>) -> String {
    let pairs = attributes.iter().map(|(key, value)| format!("{}={}", escape(key), escape(value)));
    pairs.collect::<Vec<_>>().join(",")
}

/// As Go's `url.QueryEscape`.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => escaped.push(byte.into()),
            b' ' => escaped.push('+'),
            // Writing to a string can't fail.
            _ => drop(write!(escaped, "%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_dockers_form() {
        let attributes = [("tag".to_owned(), "a b/é".to_owned()), ("env".to_owned(), "x".to_owned())];
        let record = Record {
            stream: StdioKind::Stdout,
            time: "2026-12-01T02:43:05.1Z".parse().unwrap(),
            text: "hello\n".into(),
            attributes: attributes.into(),
        };
        let line = |timestamps, details| Printer { timestamps, details }.line(&record);
        assert_eq!(line(false, false), "hello\n");
        assert_eq!(line(true, false), "2026-12-01T02:43:05.100000000Z hello\n");
        assert_eq!(line(true, true), "2026-12-01T02:43:05.100000000Z env=x,tag=a+b%2F%C3%A9 hello\n");
        let bare = Record { attributes: BTreeMap::new(), ..record.clone() };
        assert_eq!(Printer { timestamps: false, details: true }.line(&bare), " hello\n");
    }
}
