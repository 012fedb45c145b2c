//! DNS messages (RFC 1035), as far as a resolver must understand them that answers for names of its own and passes the
//! rest on: a query's header and question, and answers made of addresses and names. The bytes are anybody's.

use std::net::IpAddr;

/// Length of a header.
const HEADER: usize = 12;
/// Where the only question's name begins: what an answer's name points back to.
const NAME_POINTER: [u8; 2] = [0xc0, 12];
/// Longest name, in bytes on the wire.
const MAX_NAME: usize = 255;
/// Longest label.
const MAX_LABEL: usize = 63;
/// How long a client may keep an answer, in seconds: names come and go with containers.
const TTL: u32 = 5;

pub(super) const TYPE_A: u16 = 1;
pub(super) const TYPE_PTR: u16 = 12;
pub(super) const TYPE_AAAA: u16 = 28;
pub(super) const TYPE_ANY: u16 = 255;
const CLASS_IN: u16 = 1;

/// Longest message over UDP to a client that said nothing else.
pub(super) const MAX_UDP: usize = 512;

/// An answer's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    NoError = 0,
    FormatError = 1,
    ServerFailure = 2,
    NoSuchName = 3,
    NotImplemented = 4,
}

/// A query: its bytes and what its question says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Query<'a> {
    bytes: &'a [u8],
    /// Where the question ends.
    end: usize,
    /// The name in lower case with dots between its labels. None when a label has a dot or anything else in it that is
    /// not printable ASCII: then it is no name of ours.
    pub(super) name: Option<String>,
    pub(super) kind: u16,
    /// Whether the question is about the Internet, as all but curiosities are.
    pub(super) internet: bool,
}

/// What to do about a message that is no query with one question.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Malformed {
    /// Say nothing: it is too short or an answer.
    Ignore,
    /// Send this.
    Reply(Vec<u8>),
}

impl<'a> Query<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let Some(header) = bytes.first_chunk::<HEADER>() else { return Err(Malformed::Ignore) };
        if header[2] & 0x80 != 0 {
            return Err(Malformed::Ignore);
        }
        if (header[2] >> 3) & 0xf != 0 {
            return Err(Malformed::Reply(error(header, Code::NotImplemented)));
        }
        let question = if [header[4], header[5]] == [0, 1] { question(bytes) } else { None };
        let Some((name, kind, class, end)) = question else {
            return Err(Malformed::Reply(error(header, Code::FormatError)));
        };
        Ok(Self { bytes, end, name, kind, internet: class == CLASS_IN })
    }

    /// An answer that has nothing but a code.
    pub(super) fn plain(&self, code: Code) -> Vec<u8> {
        self.begin(code)
    }

    /// An answer of addresses, of which those of the question's type are given. With none left it says that the name is
    /// there, but nothing of this type. What does not fit into `limit` bytes is left out, and the answer says so.
    pub(super) fn addresses(&self, addresses: &[IpAddr], limit: usize) -> Vec<u8> {
        let records = addresses.iter().filter_map(|address| match address {
            IpAddr::V4(ip) if matches!(self.kind, TYPE_A | TYPE_ANY) => Some((TYPE_A, ip.octets().to_vec())),
            IpAddr::V6(ip) if matches!(self.kind, TYPE_AAAA | TYPE_ANY) => {
                Some((TYPE_AAAA, ip.octets().to_vec()))
            }
            _ => None,
        });
        self.records(records, limit)
    }

    /// An answer that names an address.
    pub(super) fn pointer(&self, name: &[u8], limit: usize) -> Vec<u8> {
        self.records(std::iter::once((TYPE_PTR, name.to_vec())), limit)
    }

    fn records(&self, records: impl Iterator<Item = (u16, Vec<u8>)>, limit: usize) -> Vec<u8> {
        let mut answer = self.begin(Code::NoError);
        let mut count = 0_u16;
        for (kind, data) in records {
            let length = u16::try_from(data.len()).unwrap_or(u16::MAX);
            if answer.len() + 12 + data.len() > limit || count == u16::MAX {
                answer[2] |= TRUNCATED;
                break;
            }
            answer.extend_from_slice(&NAME_POINTER);
            answer.extend_from_slice(&kind.to_be_bytes());
            answer.extend_from_slice(&CLASS_IN.to_be_bytes());
            answer.extend_from_slice(&TTL.to_be_bytes());
            answer.extend_from_slice(&length.to_be_bytes());
            answer.extend_from_slice(&data);
            count += 1;
        }
        answer[6..8].copy_from_slice(&count.to_be_bytes());
        answer
    }

    fn begin(&self, code: Code) -> Vec<u8> {
        let mut answer = self.bytes[..self.end].to_vec();
        set_flags(&mut answer, code);
        // One question, and so far nothing else.
        answer[6..HEADER].fill(0);
        answer
    }

    /// The query under another number, to send to a server.
    pub(super) fn renumbered(&self, id: [u8; 2]) -> Vec<u8> {
        let mut bytes = self.bytes.to_vec();
        bytes[..2].copy_from_slice(&id);
        bytes
    }

    /// What a server sent, under the client's number; None when it is no answer to the query that was sent as `id`.
    pub(super) fn accept(&self, id: [u8; 2], mut answer: Vec<u8>) -> Option<Answer> {
        let header = answer.first_chunk::<HEADER>()?;
        let question = answer.get(HEADER..self.end)?;
        let ours = header[..2] == id && header[2] & 0x80 != 0 && [header[4], header[5]] == [0, 1];
        if !ours || !question.eq_ignore_ascii_case(&self.bytes[HEADER..self.end]) {
            return None;
        }
        let (truncated, code) = (header[2] & TRUNCATED != 0, header[3] & 0xf);
        answer[..2].copy_from_slice(&self.bytes[..2]);
        // Success and "no such name" are answers; anything else is a server that can't or won't.
        Some(Answer { bytes: answer, truncated, definite: matches!(code, 0 | 3) })
    }
}

/// An answer from a server, ready to be passed on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) bytes: Vec<u8>,
    pub(super) truncated: bool,
    pub(super) definite: bool,
}

const TRUNCATED: u8 = 0x02;

/// Makes a query's header an answer's: the question's "recursion desired" stays, recursion is available.
fn set_flags(header: &mut [u8], code: Code) {
    header[2] = 0x80 | (header[2] & 0x79);
    header[3] = 0x80 | code as u8;
}

/// An answer without a question, for when there is none to repeat.
fn error(header: &[u8; HEADER], code: Code) -> Vec<u8> {
    let mut answer = header.to_vec();
    set_flags(&mut answer, code);
    answer[4..].fill(0);
    answer
}

/// The first question: name, type, class, and where it ends. Nothing before it can be pointed to, so a pointer is an
/// error.
fn question(bytes: &[u8]) -> Option<(Option<String>, u16, u16, usize)> {
    let mut name = Some(String::new());
    let mut at = HEADER;
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        let label = bytes.get(at..at + length).filter(|_| length <= MAX_LABEL)?;
        at += length;
        if at + 1 - HEADER > MAX_NAME {
            return None;
        }
        let plain = label.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'.');
        match &mut name {
            Some(name) if plain => {
                if !name.is_empty() {
                    name.push('.');
                }
                name.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
            }
            _ => name = None,
        }
    }
    let [k0, k1, c0, c1] = *bytes.get(at..)?.first_chunk()?;
    Some((name, u16::from_be_bytes([k0, k1]), u16::from_be_bytes([c0, c1]), at + 4))
}

/// A name as it is on the wire. None when it is none.
pub(super) fn encode(name: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(name.len() + 2);
    for label in name.split('.') {
        if label.is_empty() || label.len() > MAX_LABEL || !label.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        bytes.push(u8::try_from(label.len()).ok()?);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    (bytes.len() <= MAX_NAME).then_some(bytes)
}

/// The address that a name like 4.3.2.1.in-addr.arpa stands for (RFC 1035, section 3.5; RFC 3596, section 2.5).
pub(super) fn reversed(name: &str) -> Option<IpAddr> {
    if let Some(digits) = name.strip_suffix(".in-addr.arpa") {
        let mut octets = [0_u8; 4];
        let mut parts = digits.split('.');
        for octet in octets.iter_mut().rev() {
            let part = parts.next()?;
            if !part.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            *octet = part.parse().ok()?;
        }
        return parts.next().is_none().then(|| octets.into());
    }
    let mut parts = name.strip_suffix(".ip6.arpa")?.split('.');
    let mut bits = 0_u128;
    for place in 0..32 {
        let [digit] = *parts.next()?.as_bytes() else { return None };
        bits |= u128::from(char::from(digit).to_digit(16)?) << (4 * place);
    }
    parts.next().is_none().then(|| bits.to_be_bytes().into())
}

#[cfg(test)]
mod tests;
