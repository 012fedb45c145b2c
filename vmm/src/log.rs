//! Lines on stderr about what a guest did wrong. A guest can't fill a log with them.

use std::{
    fmt::Arguments,
    sync::atomic::{AtomicU32, Ordering},
};

/// Most lines that guests can cause in the life of the process.
const MAX_LINES: u32 = 64;

/// Prints a line that the guest caused, unless there were many already.
pub(crate) fn guest_fault(line: Arguments<'_>) {
    static LINES: AtomicU32 = AtomicU32::new(0);
    let printed = LINES.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_add(1));
    match printed {
        Ok(count) if count < MAX_LINES => eprintln!("husk-vmm: {line}"),
        Ok(MAX_LINES) => eprintln!("husk-vmm: further messages about the guest are left out"),
        _ => {}
    }
}
