//! The line that opens a stdio stream: `<token> <container>[/<exec>] <stdin|stdout|stderr>\n`.

use std::{fmt, str::FromStr};

use subtle::ConstantTimeEq;

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

/// The secret that tells the agent's streams from connections of containers: 128 bits, of which containers know nothing.
/// Comparing two takes the same time whether or not they are equal.
#[derive(Clone)]
pub struct StreamToken([u8; Self::LEN]);

/// The process and the descriptor that a stream belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StreamName {
    /// The container's id.
    pub container_id: String,
    /// The exec id; empty for the container's first process.
    pub exec_id: String,
    /// Which descriptor.
    pub kind: StdioKind,
}

/// The first line on a stdio stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamHello {
    /// The sandbox's token.
    pub token: StreamToken,
    /// The stream.
    pub name: StreamName,
}

/// A stream began with something other than a valid hello line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamHelloError;

/// A text is not a stream token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamTokenError;

impl StreamToken {
    /// Bytes of a token. Its text form has two hexadecimal digits for each.
    pub const LEN: usize = 16;

    /// The token with these bytes, which are to come from a cryptographic random number generator.
    #[must_use]
    pub fn new(random: [u8; Self::LEN]) -> Self {
        Self(random)
    }
}

impl StreamHello {
    /// No valid line is longer than this, its newline included.
    pub const MAX_LEN: usize = 256;
}

impl PartialEq for StreamToken {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for StreamToken {}

/// Shows nothing of the secret.
impl fmt::Debug for StreamToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamToken(..)")
    }
}

impl fmt::Display for StreamToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for StreamToken {
    type Err = StreamTokenError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
        if text.len() != 2 * Self::LEN || !text.bytes().all(plain) {
            return Err(StreamTokenError);
        }
        let number = u128::from_str_radix(text, 16).map_err(|_| StreamTokenError)?;
        Ok(Self(number.to_be_bytes()))
    }
}

impl fmt::Display for StreamTokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a stream token must be 32 lower-case hexadecimal digits")
    }
}

impl std::error::Error for StreamTokenError {}

impl fmt::Display for StreamHelloError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("malformed first line of a stdio stream")
    }
}

impl std::error::Error for StreamHelloError {}

impl fmt::Display for StreamHello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.token, self.name)
    }
}

impl FromStr for StreamHello {
    type Err = StreamHelloError;

    /// Parses a line, with or without its newline.
    fn from_str(line: &str) -> Result<Self, Self::Err> {
        let (token, name) = line.split_once(' ').ok_or(StreamHelloError)?;
        Ok(Self { token: token.parse().map_err(|_| StreamHelloError)?, name: name.parse()? })
    }
}

/// As a line, with its newline.
impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { container_id, exec_id, kind } = self;
        f.write_str(container_id)?;
        if !exec_id.is_empty() {
            write!(f, "/{exec_id}")?;
        }
        let kind = match kind {
            StdioKind::Stdin => "stdin",
            StdioKind::Stdout => "stdout",
            StdioKind::Stderr => "stderr",
        };
        writeln!(f, " {kind}")
    }
}

impl FromStr for StreamName {
    type Err = StreamHelloError;

    /// Parses a line, with or without its newline.
    fn from_str(line: &str) -> Result<Self, Self::Err> {
        let line = line.strip_suffix('\n').unwrap_or(line);
        let mut words = line.split(' ');
        let (Some(process), Some(kind), None) = (words.next(), words.next(), words.next()) else {
            return Err(StreamHelloError);
        };
        let (container_id, exec_id) = match process.split_once('/') {
            Some((_, "")) => return Err(StreamHelloError),
            Some(ids) => ids,
            None => (process, ""),
        };
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
    use proptest::prelude::*;

    use super::*;

    const TOKEN: &str = "000102030405060708090a0b0c0d0e0f";

    fn token() -> StreamToken {
        StreamToken::new(std::array::from_fn(|at| u8::try_from(at).unwrap()))
    }

    #[test]
    fn round_trips() {
        for exec_id in ["", "e1"] {
            let name =
                StreamName { container_id: "c1".into(), exec_id: exec_id.into(), kind: StdioKind::Stderr };
            let hello = StreamHello { token: token(), name };
            assert_eq!(hello.to_string().parse(), Ok(hello));
        }
    }

    #[test]
    fn the_longest_ids_fit() {
        let id = "x".repeat(76);
        let name = StreamName { container_id: id.clone(), exec_id: id, kind: StdioKind::Stdout };
        assert!(StreamHello { token: token(), name }.to_string().len() <= StreamHello::MAX_LEN);
    }

    #[test]
    fn refuses_what_is_not_a_hello() {
        for rest in
            ["", " ", " c1", " c1 out", "  stdin", " /e stdin", " a/ stdin", " a/b/c stdin", " c1 stdin x"]
        {
            let line = format!("{TOKEN}{rest}");
            assert_eq!(line.parse::<StreamHello>(), Err(StreamHelloError), "{line:?}");
        }
        for line in ["", "c1 stdin", " c1 stdin", "00 c1 stdin"] {
            assert_eq!(line.parse::<StreamHello>(), Err(StreamHelloError), "{line:?}");
        }
    }

    #[test]
    fn tokens_are_told_apart_and_not_shown() {
        assert_eq!(token().to_string(), TOKEN);
        assert_eq!(TOKEN.parse(), Ok(token()));
        for at in 0..StreamToken::LEN {
            let mut other = token();
            other.0[at] ^= 0x80;
            assert_ne!(other, token());
        }
        assert!(!format!("{:?}", token()).contains("01"));
        let upper = TOKEN.to_uppercase();
        for bad in ["", &TOKEN[1..], &upper, &format!("{TOKEN}0"), &format!("+{}", &TOKEN[1..])] {
            assert_eq!(bad.parse::<StreamToken>(), Err(StreamTokenError), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_refused_or_written_back_as_it_was(line in "[0-9a-f]{31,33} [a-z/ ]{0,6} ?(std(in|out|err))?") {
            if let Ok(hello) = line.parse::<StreamHello>() {
                prop_assert_eq!(hello.to_string(), format!("{line}\n"));
            }
        }
    }
}
