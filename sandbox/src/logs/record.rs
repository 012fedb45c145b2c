//! One record: a line of JSON, byte for byte as Docker's `json-file` driver writes it.

use std::{borrow::Cow, collections::BTreeMap, io::Write};

use husk_protocol::StdioKind;
use jiff::Timestamp;
use serde::Deserialize;

/// A line of a container's output, or a part of one that is longer than 16 KiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Standard output or standard error.
    pub stream: StdioKind,
    /// When the line was complete; for the parts of a long line, when the first part was.
    pub time: Timestamp,
    /// The text. It ends with a newline, unless more of the same line follows or the container ended within it.
    pub text: String,
    /// What the options `labels`, `env` and `tag` added.
    pub attributes: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow, default)]
    log: Cow<'a, str>,
    #[serde(borrow)]
    stream: Cow<'a, str>,
    #[serde(default)]
    attrs: BTreeMap<String, String>,
    #[serde(borrow)]
    time: Cow<'a, str>,
}

impl Record {
    /// The record in `line`; `None` if it holds anything else.
    pub(super) fn decode(line: &[u8]) -> Option<Self> {
        let line: Line<'_> = serde_json::from_slice(line).ok()?;
        let stream = match &*line.stream {
            "stdout" => StdioKind::Stdout,
            "stderr" => StdioKind::Stderr,
            _ => return None,
        };
        let time = line.time.parse().ok()?;
        Some(Self { stream, time, text: line.log.into_owned(), attributes: line.attrs })
    }
}

/// Appends a record to `out`: `text`, and a newline with it where `whole` says that the line ends here.
/// `attributes` is JSON, or empty.
pub(super) fn encode(
    out: &mut Vec<u8>,
    stream: StdioKind,
    text: &[u8],
    whole: bool,
    attributes: &[u8],
    time: Timestamp,
) {
    out.extend_from_slice(b"{\"log\":\"");
    escape(out, text);
    if whole {
        out.extend_from_slice(b"\\n");
    }
    out.extend_from_slice(match stream {
        StdioKind::Stderr => b"\",\"stream\":\"stderr\"",
        StdioKind::Stdin | StdioKind::Stdout => b"\",\"stream\":\"stdout\"",
    });
    if !attributes.is_empty() {
        out.extend_from_slice(b",\"attrs\":");
        out.extend_from_slice(attributes);
    }
    // Writing to a vector can't fail. jiff prints what Go's RFC3339Nano does: no zeros at the end of the fraction.
    let _ = writeln!(out, ",\"time\":\"{time}\"}}");
}

/// `attributes` as [`encode`] takes them.
pub(super) fn encode_attributes(attributes: &BTreeMap<String, String>) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in attributes {
        out.extend_from_slice(if out.is_empty() { b"{\"" } else { b",\"" });
        escape(&mut out, name.as_bytes());
        out.extend_from_slice(b"\":\"");
        escape(&mut out, value.as_bytes());
        out.push(b'"');
    }
    if !out.is_empty() {
        out.push(b'}');
    }
    out
}

/// Appends `text` as the inside of a JSON string. Each byte that is not UTF-8 becomes one U+FFFD, as in Go.
fn escape(out: &mut Vec<u8>, text: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for chunk in text.utf8_chunks() {
        let valid = chunk.valid().as_bytes();
        let mut copied = 0;
        for (at, byte) in valid.iter().copied().enumerate() {
            let short: &[u8] = match byte {
                b'"' => b"\\\"",
                b'\\' => b"\\\\",
                b'\n' => b"\\n",
                b'\r' => b"\\r",
                b'<' | b'>' | b'&' | 0..0x20 => b"",
                // U+2028 and U+2029: E2 80 A8 and E2 80 A9.
                0xe2 if matches!(valid[at..], [_, 0x80, 0xa8 | 0xa9, ..]) => b"",
                _ => continue,
            };
            out.extend_from_slice(&valid[copied..at]);
            copied = at + 1;
            if byte == 0xe2 {
                out.extend_from_slice(b"\\u202");
                out.push(HEX[usize::from(valid[at + 2] & 0xf)]);
                copied = at + 3;
            } else if short.is_empty() {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 0xf)]);
            } else {
                out.extend_from_slice(short);
            }
        }
        out.extend_from_slice(&valid[copied..]);
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(text: &[u8], whole: bool) -> String {
        let mut out = Vec::new();
        encode(&mut out, StdioKind::Stdout, text, whole, b"", Timestamp::UNIX_EPOCH);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_dockers() {
        let mut out = Vec::new();
        let attributes =
            [("a<", "\"1\""), ("b", "")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        let attributes = encode_attributes(&BTreeMap::from(attributes));
        let time = "2026-12-01T02:43:05.123456789Z".parse().unwrap();
        encode(&mut out, StdioKind::Stderr, b"text", true, &attributes, time);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"log\":\"text\\n\",\"stream\":\"stderr\",\"attrs\":{\"a\\u003c\":\"\\\"1\\\"\",\"b\":\"\"},\
             \"time\":\"2026-12-01T02:43:05.123456789Z\"}\n"
        );
    }

    #[test]
    fn text_is_escaped_as_dockers_encoder_does() {
        for (text, json) in [
            (&b"a\tb\rc\x07\x08\x0c\x7f"[..], r"a\u0009b\rc\u0007\u0008\u000c".to_owned() + "\x7f"),
            (b"\"\\/<>&'", r#"\"\\/\u003c\u003e\u0026'"#.to_owned()),
            ("é\u{2028}\u{2029}\u{2027}😀".as_bytes(), "é\\u2028\\u2029\u{2027}😀".to_owned()),
            (
                b"a\xf0\x9f\x98z\xe2\x28\xed\xa0\x80",
                r"a\ufffd\ufffd\ufffdz\ufffd(\ufffd\ufffd\ufffd".to_owned(),
            ),
            (b"\xe2\x80", r"\ufffd\ufffd".to_owned()),
        ] {
            let expected =
                format!("{{\"log\":\"{json}\",\"stream\":\"stdout\",\"time\":\"1970-01-01T00:00:00Z\"}}\n");
            assert_eq!(encoded(text, false), expected);
        }
    }

    #[test]
    fn times_have_no_zeros_at_the_end() {
        for time in ["2026-12-01T02:43:05.12Z", "2026-12-01T02:43:05Z", "2026-12-01T02:43:05.000000001Z"] {
            let mut out = Vec::new();
            encode(&mut out, StdioKind::Stdout, b"x", true, b"", time.parse().unwrap());
            assert!(String::from_utf8(out).unwrap().ends_with(&format!("\"time\":\"{time}\"}}\n")));
        }
    }

    #[test]
    fn foreign_lines_are_not_records() {
        for line in [
            "",
            "{}",
            "null",
            "text",
            r#"{"log":"a","stream":"stdout"}"#,
            r#"{"log":"a","stream":"stdin","time":"2026-12-01T02:43:05Z"}"#,
            r#"{"log":"a","stream":"stdout","time":"yesterday"}"#,
            r#"{"log":1,"stream":"stdout","time":"2026-12-01T02:43:05Z"}"#,
            r#"{"log":"a","stream":"stdout","time":"2026-12-01T02:43:05Z"}{"#,
        ] {
            assert_eq!(Record::decode(line.as_bytes()), None, "{line}");
        }
        let other = br#"{"time":"2026-12-01T04:43:05.5+02:00","new":[{}],"stream":"stderr"}"#;
        let other = Record::decode(other).unwrap();
        assert_eq!((other.stream, other.text.as_str()), (StdioKind::Stderr, ""));
        assert_eq!(other.time.to_string(), "2026-12-01T02:43:05.5Z");
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(text in prop::collection::vec(any::<u8>(), 0..300), seconds in 0_i64..1 << 33,
            nanos in 0_i32..1_000_000_000) {
            let time = Timestamp::new(seconds, nanos).unwrap();
            let attributes = BTreeMap::from([("k".to_owned(), "v\u{2028}".to_owned())]);
            let mut out = Vec::new();
            encode(&mut out, StdioKind::Stderr, &text, true, &encode_attributes(&attributes), time);
            prop_assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
            let mut lossy = String::new();
            for chunk in text.utf8_chunks() {
                lossy.push_str(chunk.valid());
                lossy.extend(chunk.invalid().iter().map(|_| '\u{fffd}'));
            }
            lossy.push('\n');
            prop_assert_eq!(
                Record::decode(&out),
                Some(Record { stream: StdioKind::Stderr, time, text: lossy, attributes })
            );
        }

        #[test]
        fn no_line_panics(line in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Record::decode(&line);
        }
    }
}
