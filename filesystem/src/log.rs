//! What the library has to say, on the standard error stream. A guest can make it speak, so it gets a limited number of
//! lines.

use std::sync::atomic::{AtomicU32, Ordering};

use log::{LevelFilter, Log, Metadata, Record};

/// Most lines of a server's life.
const MAX_LINES: u32 = 100;

struct Stderr {
    lines: AtomicU32,
}

static LOG: Stderr = Stderr { lines: AtomicU32::new(0) };

/// Lets errors through, and nothing less.
pub(crate) fn install() {
    // Fails only the second time, and then all is well.
    if log::set_logger(&LOG).is_ok() {
        log::set_max_level(LevelFilter::Error);
    }
}

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= LevelFilter::Error
    }

    fn log(&self, record: &Record<'_>) {
        let before = self.lines.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |lines| {
            (lines < MAX_LINES).then(|| lines + 1)
        });
        if self.enabled(record.metadata()) && before.is_ok() {
            eprintln!("husk-fs: {}", record.args().to_string().replace('\n', " "));
        }
    }

    fn flush(&self) {}
}
