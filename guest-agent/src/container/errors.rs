//! What libcontainer says about its failures. Its errors lose their causes on the way between its processes, but it
//! logs each where it happens; a helper collects those and appends them to what it reports.

use std::{
    fmt::{self, Write as _},
    fs::File,
    io::{self, Read, Seek, Write as _},
};

use nix::sys::memfd::{MFdFlags, memfd_create};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
};

/// Of a long story, the beginning is what matters.
const MAX_LEN: u64 = 1500;

/// Errors logged in this process and in those that it forks.
#[derive(Debug)]
pub(super) struct ErrorLog(File);

impl ErrorLog {
    /// Starts to collect, for the rest of this process's life.
    pub(super) fn start() -> io::Result<Self> {
        let file = File::from(memfd_create("errors", MFdFlags::MFD_CLOEXEC)?);
        // Fails when there is a subscriber already, and then that one has a log.
        let _ = tracing::subscriber::set_global_default(Collector(file.try_clone()?));
        Ok(Self(file))
    }

    /// What was collected, on one line: "; message field=value; ...".
    pub(super) fn text(&mut self) -> String {
        let mut text = String::new();
        let _ = self.0.rewind();
        let _ = (&self.0).take(MAX_LEN).read_to_string(&mut text);
        text
    }
}

struct Collector(File);

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::ERROR)
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        let line = format!("; {}", line.0.trim_end());
        // Nowhere to report a failure to.
        let _ = (&self.0).write_all(line.as_bytes());
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.0, "{value:?} "),
            name => write!(self.0, "{name}={value:?} "),
        };
    }
}
