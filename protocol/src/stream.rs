//! The line that opens a stdio stream: `<container>[/<exec>] <stdin|stdout|stderr>\n`.

use std::{fmt, str::FromStr};

/// Which descriptor of a process a stream carries. With a terminal, `Stdin` carries input and `Stdout` output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StdioKind {
    /// Host to guest. The host's half-close is the process's end of file.
    Stdin,
    /// Guest to host.
    Stdout,
    /// Guest to host.
    Stderr,
}

/// The first line on a stdio stream: whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StreamHello {
    /// The container's id.
    pub container_id: String,
    /// The exec id; empty for the container's first process.
    pub exec_id: String,
    /// Which descriptor.
    pub kind: StdioKind,
}

/// A stream began with something else than a valid hello line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamHelloError;

impl StreamHello {
    /// No valid line is longer than this, its newline included.
    pub const MAX_LEN: usize = 256;
}

impl fmt::Display for StreamHelloError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("malformed first line of a stdio stream")
    }
}

impl std::error::Error for StreamHelloError {}

impl fmt::Display for StreamHello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.container_id)?;
        if !self.exec_id.is_empty() {
            write!(f, "/{}", self.exec_id)?;
        }
        let kind = match self.kind {
            StdioKind::Stdin => "stdin",
            StdioKind::Stdout => "stdout",
            StdioKind::Stderr => "stderr",
        };
        writeln!(f, " {kind}")
    }
}

impl FromStr for StreamHello {
    type Err = StreamHelloError;

    /// Parses a line, with or without its newline.
    fn from_str(line: &str) -> Result<Self, Self::Err> {
        let line = line.strip_suffix('\n').unwrap_or(line);
        let (process, kind) = line.split_once(' ').ok_or(StreamHelloError)?;
        let (container_id, exec_id) = process.split_once('/').unwrap_or((process, ""));
        let kind = match kind {
            "stdin" => StdioKind::Stdin,
            "stdout" => StdioKind::Stdout,
            "stderr" => StdioKind::Stderr,
            _ => return Err(StreamHelloError),
        };
        if container_id.is_empty() || exec_id.contains('/') {
            return Err(StreamHelloError);
        }
        Ok(Self { container_id: container_id.to_owned(), exec_id: exec_id.to_owned(), kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        for exec_id in ["", "e1"] {
            let hello =
                StreamHello { container_id: "c1".into(), exec_id: exec_id.into(), kind: StdioKind::Stderr };
            assert_eq!(hello.to_string().parse(), Ok(hello));
        }
    }

    #[test]
    fn refuses_what_is_not_a_hello() {
        for line in ["", "c1", "c1 out", " stdin", "/e stdin", "a/b/c stdin", "c1 stdin extra"] {
            assert_eq!(line.parse::<StreamHello>(), Err(StreamHelloError), "{line:?}");
        }
    }
}
