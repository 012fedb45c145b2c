//! The first line of a connection to a supervisor that is a process's stream: `<container>[/<exec>] <stdin|stdout|stderr>\n`.
//! The supervisor answers with a line: [`ACCEPTED`], or a [`refusal`].

use crate::{StreamHello, StreamName};

/// What the supervisor answers when the connection is the stream from now on.
pub const ACCEPTED: &str = "ok\n";
/// Most bytes of either line, its newline included.
pub const MAX_LEN: usize = StreamHello::MAX_LEN;

/// Which stream is wanted.
pub type Attach = StreamName;

/// The line that says why a connection is not a stream.
#[must_use]
pub fn refusal(reason: &str) -> String {
    let plain = reason.chars().filter(|c| !c.is_control());
    let mut line = String::with_capacity(MAX_LEN);
    for c in plain {
        if line.len() + c.len_utf8() >= MAX_LEN {
            break;
        }
        line.push(c);
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_one_short_line() {
        let line = refusal(&format!("a\nb{}", "ä".repeat(1000)));
        assert!(line.starts_with("abä") && line.ends_with("ä\n") && line.len() <= MAX_LEN, "{line}");
        assert_ne!(refusal("ok, but no"), ACCEPTED);
    }
}
