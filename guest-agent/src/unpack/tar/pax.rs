//! Pax extended headers (POSIX pax, "pax Extended Header").

use rustix::fs::Timespec;

use super::{TarError, decimal::decimal, sparse::MAX_SEGMENTS};

const XATTR: &[u8] = b"SCHILY.xattr.";

/// What an extended header says about the next entry. An empty value takes back what was said.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link_path: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<i64>,
    pub(super) gid: Option<i64>,
    pub(super) mtime: Option<Timespec>,
    pub(super) atime: Option<Timespec>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: PaxSparse,
}

/// GNU's sparse file formats 0.0, 0.1 and 1.0.
#[derive(Debug, Default)]
pub(super) struct PaxSparse {
    pub(super) version: (Option<u64>, Option<u64>),
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<u64>,
    /// Offsets and lengths in turn (0.0 and 0.1).
    pub(super) map: Vec<u64>,
}

impl Pax {
    /// Parses the records of an extended header: `LENGTH KEY=VALUE\n`, where LENGTH is that of the whole record.
    pub(super) fn parse(mut data: &[u8]) -> Result<Self, TarError> {
        const BAD: TarError = TarError::Malformed("a pax record is broken");
        let mut pax = Self::default();
        while !data.is_empty() {
            let space = data.iter().position(|b| *b == b' ').ok_or(BAD)?;
            let length = usize::try_from(decimal(&data[..space])?).map_err(|_| BAD)?;
            if length <= space + 1 || length > data.len() {
                return Err(BAD);
            }
            let (record, rest) = data.split_at(length);
            let record = record[space + 1..].strip_suffix(b"\n").ok_or(BAD)?;
            let equals = record.iter().position(|b| *b == b'=').ok_or(BAD)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            if key.is_empty() || key.contains(&0) {
                return Err(BAD);
            }
            pax.record(key, value)?;
            data = rest;
        }
        Ok(pax)
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), TarError> {
        if let Some(name) = key.strip_prefix(XATTR) {
            self.xattrs.retain(|(known, _)| known != name);
            self.xattrs.push((name.to_vec(), value.to_vec()));
            return Ok(());
        }
        match key {
            b"path" => self.path = text(value)?,
            b"linkpath" => self.link_path = text(value)?,
            b"size" => self.size = unless_empty(value, decimal)?,
            b"uid" => self.uid = unless_empty(value, integer)?,
            b"gid" => self.gid = unless_empty(value, integer)?,
            b"mtime" => self.mtime = unless_empty(value, time)?,
            b"atime" => self.atime = unless_empty(value, time)?,
            b"GNU.sparse.major" => self.sparse.version.0 = Some(decimal(value)?),
            b"GNU.sparse.minor" => self.sparse.version.1 = Some(decimal(value)?),
            b"GNU.sparse.name" => self.sparse.name = text(value)?,
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.real_size = Some(decimal(value)?),
            b"GNU.sparse.offset" => self.sparse.push(value, 0)?,
            b"GNU.sparse.numbytes" => self.sparse.push(value, 1)?,
            b"GNU.sparse.map" => {
                self.sparse.map.clear();
                for (at, value) in value.split(|b| *b == b',').enumerate() {
                    self.sparse.push(value, at % 2)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl PaxSparse {
    /// Adds to the map an offset (`parity` 0) or a length (1).
    fn push(&mut self, value: &[u8], parity: usize) -> Result<(), TarError> {
        if self.map.len() % 2 != parity || self.map.len() >= 2 * MAX_SEGMENTS {
            return Err(TarError::Malformed("the sparse map is broken or too long"));
        }
        self.map.push(decimal(value)?);
        Ok(())
    }
}

fn unless_empty<T>(
    value: &[u8],
    parse: impl Fn(&[u8]) -> Result<T, TarError>,
) -> Result<Option<T>, TarError> {
    if value.is_empty() { Ok(None) } else { parse(value).map(Some) }
}

fn text(value: &[u8]) -> Result<Option<Vec<u8>>, TarError> {
    unless_empty(value, |value| {
        if value.contains(&0) {
            return Err(TarError::Malformed("a name in a pax record contains a NUL byte"));
        }
        Ok(value.to_vec())
    })
}

fn integer(value: &[u8]) -> Result<i64, TarError> {
    let (negative, digits) = match value.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, value),
    };
    let value = decimal(digits)?.cast_signed();
    Ok(if negative { -value } else { value })
}

/// Seconds since the epoch with an optional fraction, of which nanoseconds are kept (rounded towards the past).
fn time(value: &[u8]) -> Result<Timespec, TarError> {
    let (seconds, fraction) = match value.iter().position(|b| *b == b'.') {
        Some(dot) => (&value[..dot], &value[dot + 1..]),
        None => (value, &b""[..]),
    };
    let mut tv_sec = integer(seconds)?;
    let mut tv_nsec = 0;
    if !fraction.is_empty() {
        decimal(&fraction[..fraction.len().min(9)])?;
        if !fraction.iter().all(u8::is_ascii_digit) {
            return Err(TarError::Malformed("a time in a pax record is not one"));
        }
        for at in 0..9 {
            tv_nsec = tv_nsec * 10 + fraction.get(at).map_or(0, |digit| i64::from(digit - b'0'));
        }
    }
    if seconds.starts_with(b"-") && tv_nsec > 0 {
        tv_sec -= 1;
        tv_nsec = 1_000_000_000 - tv_nsec;
    }
    Ok(Timespec { tv_sec, tv_nsec })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &[u8]) -> Vec<u8> {
        let body = key.len() + value.len() + 3;
        let mut length = body + 1;
        while length.to_string().len() + body != length {
            length += 1;
        }
        [length.to_string().as_bytes(), b" ", key.as_bytes(), b"=", value, b"\n"].concat()
    }

    #[test]
    fn records_are_taken_by_length() {
        let data = [
            record("path", b"a\nb=c"),
            record("SCHILY.xattr.user.x", b"\0\n1 2=3"),
            record("SCHILY.xattr.user.x", b"last"),
            record("uid", b"4294967294"),
            record("comment", b""),
        ]
        .concat();
        let pax = Pax::parse(&data).unwrap();
        assert_eq!(pax.path.as_deref(), Some(&b"a\nb=c"[..]));
        assert_eq!(pax.xattrs, [(b"user.x".to_vec(), b"last".to_vec())]);
        assert_eq!(pax.uid, Some(4_294_967_294));
    }

    #[test]
    fn an_empty_value_takes_a_record_back() {
        let data = [record("path", b"a"), record("path", b""), record("size", b"")].concat();
        let pax = Pax::parse(&data).unwrap();
        assert_eq!((pax.path, pax.size), (None, None));
    }

    #[test]
    fn broken_records_are_refused() {
        for bad in [
            &b"x"[..],
            b"0 \n",
            b"3 \n",
            b"5 a\n",
            b"5 =b\n",
            b"6 a=bc",
            b"99 a=b\n",
            b"-6 a=b\n",
            b"18446744073709551616 a=b\n",
            b"10 path=\0\n",
            b"11 size=-1\n",
            b"10 size=x\n",
            b"20 GNU.sparse.map=1\n trailing",
            b"6 a=b\n\0\0",
        ] {
            assert!(Pax::parse(bad).is_err(), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn times_have_nanoseconds_and_may_be_negative() {
        for (text, expected) in [
            ("1", Some((1, 0))),
            ("1.5", Some((1, 500_000_000))),
            ("1.", Some((1, 0))),
            ("1.1234567899", Some((1, 123_456_789))),
            ("-1", Some((-1, 0))),
            ("-1.25", Some((-2, 750_000_000))),
            ("-0.5", Some((-1, 500_000_000))),
            ("9223372036854775807", Some((i64::MAX, 0))),
            ("9223372036854775808", None),
            ("1.x", None),
            ("1.123456789x", None),
            ("", None),
            ("--1", None),
            (".5", None),
        ] {
            let got = time(text.as_bytes()).ok().map(|t| (t.tv_sec, t.tv_nsec));
            assert_eq!(got, expected, "{text}");
        }
    }
}
