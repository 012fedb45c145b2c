//! The shim's log: a pipe in the bundle whose lines containerd adds to its own log.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
};

use log::{LevelFilter, Log, Metadata, Record};

const PIPE: &str = "log";

struct Pipe {
    file: File,
    id: String,
}

/// Sends what is logged to containerd, and a panic's words, too. Without a pipe nothing is logged.
///
/// The pipe never blocks: a containerd that does not read loses lines, and does not stop pods.
pub(crate) fn init(debug: bool, id: &str) {
    let opened = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(PIPE);
    let Ok(file) = opened else { return };
    if log::set_boxed_logger(Box::new(Pipe { file, id: id.to_owned() })).is_ok() {
        log::set_max_level(if debug { LevelFilter::Debug } else { LevelFilter::Info });
    }
    std::panic::set_hook(Box::new(|panic| log::error!("{panic}")));
}

impl Log for Pipe {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Libraries have much to say of each message.
        metadata.target().starts_with("containerd_shim_husk") || metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            // In one write, so that shims' lines don't mix.
            let _ = (&self.file).write_all(line(record, &self.id).as_bytes());
        }
    }

    fn flush(&self) {}
}

/// In the form of containerd's own lines.
fn line(record: &Record<'_>, id: &str) -> String {
    let level = record.level().as_str().to_lowercase();
    // A message's own quotes and newlines can't end it.
    format!("level={level} msg={:?} runtime=io.containerd.husk.v2 id={id:?}\n", record.args().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_stays_on_its_line() {
        let arguments = format_args!("a\n\"b\"");
        let record = Record::builder().level(log::Level::Warn).args(arguments).build();
        let expected = "level=warning msg=\"a\\n\\\"b\\\"\" runtime=io.containerd.husk.v2 id=\"c1\"\n";
        assert_eq!(line(&record, "c1"), expected.replace("warning", "warn"));
    }
}
