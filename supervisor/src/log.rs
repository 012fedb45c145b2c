//! The supervisor's log: lines on standard error, which is a file in the run directory. What clients should know of it is kept for
//! them.

use std::io::{self, Write};

use husk_base::log::{self, Level, Metadata};

use crate::notes;

/// The supervisor's own warnings are about ends, and no client waits for those.
const OWN: &str = "husk_supervisor";

/// From now on, what is logged is written.
pub(crate) fn init() {
    log::init(Level::WARN, write);
}

fn write(metadata: &Metadata<'_>, text: &str) {
    // A log that can't be written is missed by no container.
    let _ = io::stderr().write_all(format!("{} {text}\n", metadata.level()).as_bytes());
    if *metadata.level() == Level::WARN && log::is_ours(metadata) && !metadata.target().starts_with(OWN) {
        notes::keep(text);
    }
}
