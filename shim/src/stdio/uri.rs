//! What containerd puts in the place of a FIFO's path: `fifo://`, `file://` and `binary://` URIs.

use std::path::PathBuf;

use crate::error::Error;

/// Where output goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A FIFO.
    Fifo(PathBuf),
    /// A file, at whose end it is added.
    File(PathBuf),
    /// A program, which is run with `args`.
    Program {
        /// Its path.
        path: PathBuf,
        /// Names and values of the URI's query, in turn.
        args: Vec<String>,
    },
}

/// Parses a path or URI; nothing if there is none.
///
/// # Errors
/// When the scheme is unknown, or the path missing or not absolute.
pub(super) fn parse(text: &str) -> Result<Option<Target>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Ok(Some(Target::Fifo(text.into())));
    };
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let wrong = |why| Error::invalid(format!("output can't go to {text:?}: {why}"));
    let path = decode(path).ok_or_else(|| wrong("its path is malformed"))?;
    if !path.starts_with('/') {
        return Err(wrong("its path is not absolute"));
    }
    Ok(Some(match scheme {
        "fifo" => Target::Fifo(path.into()),
        "file" => Target::File(path.into()),
        "binary" => {
            let mut args = Vec::new();
            for pair in query.split('&').filter(|pair| !pair.is_empty()) {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                for part in [name, value].into_iter().filter(|part| !part.is_empty()) {
                    args.push(
                        decode(&part.replace('+', " ")).ok_or_else(|| wrong("its query is malformed"))?,
                    );
                }
            }
            Target::Program { path: path.into(), args }
        }
        _ => return Err(wrong("only fifo, file and binary are known")),
    }))
}

/// Undoes percent-encoding (RFC 3986, section 2.1).
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let value = digit(rest.next())? * 16 + digit(rest.next())?;
        bytes.push(u8::try_from(value).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_kind_is_told_apart() {
        assert_eq!(parse("").unwrap(), None);
        assert_eq!(parse("/run/fifo").unwrap(), Some(Target::Fifo("/run/fifo".into())));
        assert_eq!(parse("fifo:///run/fifo").unwrap(), Some(Target::Fifo("/run/fifo".into())));
        assert_eq!(parse("file:///var/log/a%20b").unwrap(), Some(Target::File("/var/log/a b".into())));
        let program = parse("binary:///bin/logger?_X=%2Fvar%2Fx&flag").unwrap();
        let args = ["_X", "/var/x", "flag"].map(str::to_owned).to_vec();
        assert_eq!(program, Some(Target::Program { path: "/bin/logger".into(), args }));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in ["npipe:///x", "file://x", "file:///%zz", "binary:///x?%"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(file|binary|fifo)://.{0,64}") {
            let _ = parse(&text);
        }
    }
}
