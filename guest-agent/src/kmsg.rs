//! The agent's only log: the kernel's ring buffer, at level err. The console shows it even with `quiet`.

use std::{fs::OpenOptions, io::Write};

/// The kernel cuts records off near 1 KiB.
const MAX_LEN: usize = 900;

/// Writes one line at level err. Silently does nothing when there is no `/dev/kmsg`.
pub(crate) fn error(message: &str) {
    let line = line(message);
    if let Ok(mut kmsg) = OpenOptions::new().write(true).open("/dev/kmsg") {
        // There is nowhere left to report a failure to.
        let _ = kmsg.write_all(line.as_bytes());
    }
}

/// Reports an error that the machine can't go on with, and ends PID 1: the kernel panics, and the VMM sees a crash.
pub(crate) fn fatal(message: &str) -> ! {
    error(message);
    // SAFETY: ends the process without running anything else of it; takes no pointers.
    unsafe { libc::_exit(1) }
}

fn line(message: &str) -> String {
    let mut line = String::from("<3>husk-agent: ");
    line.extend(message.chars().map(|c| if c.is_control() { ' ' } else { c }));
    if line.len() > MAX_LEN {
        line.truncate(line.floor_char_boundary(MAX_LEN));
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_record_per_message() {
        assert_eq!(line("a\nb"), "<3>husk-agent: a b\n");
        let long = line(&"ü".repeat(2000));
        assert!(long.len() <= MAX_LEN + 1 && long.ends_with("ü\n"));
    }
}
