//! The shim's log: while it serves, a pipe in the bundle whose lines containerd adds to its own log; else standard error.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
};

use husk_base::log::Level;
use log::{LevelFilter, Log};

const PIPE: &str = "log";
/// Targets of what the shim itself logs begin so.
const OWN: &str = "containerd_shim_husk";

/// Sends what is logged to containerd, and a panic's words, too. Without a pipe nothing is logged.
///
/// The pipe never blocks: a containerd that does not read loses lines, and does not stop pods.
pub(crate) fn to_containerd(debug: bool, id: &str) {
    let opened = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(PIPE);
    let Ok(file) = opened else { return };
    let Ok(of_libraries) = file.try_clone() else { return };
    let pipe = Pipe { file, id: id.to_owned() };
    let most = if debug { Level::DEBUG } else { Level::INFO };
    husk_base::log::init(most, move |metadata, text| {
        let ours = metadata.target().starts_with(OWN) || husk_base::log::is_ours(metadata);
        // Libraries have much to say of each message.
        if ours || *metadata.level() <= Level::WARN {
            pipe.write(metadata.level().as_str(), text);
        }
    });
    // Those of ttrpc and others, which don't use tracing.
    if log::set_boxed_logger(Box::new(Pipe { file: of_libraries, id: id.to_owned() })).is_ok() {
        log::set_max_level(LevelFilter::Warn);
    }
    std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
}

/// Prints warnings, which containerd adds to its own log.
pub(crate) fn to_stderr() {
    husk_base::log::init(Level::WARN, |_, text| {
        let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
    });
}

struct Pipe {
    file: File,
    id: String,
}

impl Pipe {
    fn write(&self, level: &str, text: &str) {
        // In one write, so that shims' lines don't mix.
        let _ = (&self.file).write_all(line(level, text, &self.id).as_bytes());
    }
}

impl Log for Pipe {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            self.write(record.level().as_str(), &record.args().to_string());
        }
    }

    fn flush(&self) {}
}

/// In the form of containerd's own lines.
fn line(level: &str, text: &str, id: &str) -> String {
    let level = level.to_lowercase();
    // A message's own quotes and newlines can't end it.
    format!("level={level} msg={text:?} runtime=io.containerd.husk.v2 id={id:?}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_stays_on_its_line() {
        let expected = "level=warn msg=\"a\\n\\\"b\\\"\" runtime=io.containerd.husk.v2 id=\"c1\"\n";
        assert_eq!(line(Level::WARN.as_str(), "a\n\"b\"", "c1"), expected);
    }
}
