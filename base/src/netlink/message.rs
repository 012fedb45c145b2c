//! Writes messages.

use super::align;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLA_F_NESTED: u16 = 0x8000;

/// Messages that are sent together, each with what it is for.
#[derive(Debug, Default)]
pub struct Request {
    bytes: Vec<u8>,
    whats: Vec<&'static str>,
    /// Where the last message begins.
    last: usize,
    last_answered: Option<u32>,
    too_long: bool,
}

impl Request {
    /// Adds a message that is answered when it fails only. `what` it does is said in an error: "create
    /// bridge". `kind` and `flags` are those of its header; NLM_F_REQUEST is added. `header` is the struct
    /// that follows.
    pub fn silent(
        &mut self,
        what: &'static str,
        kind: u16,
        flags: u16,
        header: &[u8],
        body: impl FnOnce(&mut Attributes<'_>),
    ) {
        self.whats.push(what);
        let start = self.bytes.len();
        self.last = start;
        let seq = self.seq();
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags | NLM_F_REQUEST).to_ne_bytes());
        self.bytes.extend(seq.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend(header);
        self.bytes.resize(align(self.bytes.len()), 0);
        body(&mut Attributes { bytes: &mut self.bytes, too_long: &mut self.too_long });
        match u32::try_from(self.bytes.len() - start) {
            Ok(len) => self.bytes[start..start + 4].copy_from_slice(&len.to_ne_bytes()),
            Err(_) => self.too_long = true,
        }
    }

    /// Adds a message whose success is answered, too.
    pub fn add(
        &mut self,
        what: &'static str,
        kind: u16,
        flags: u16,
        header: &[u8],
        body: impl FnOnce(&mut Attributes<'_>),
    ) {
        self.silent(what, kind, flags, header, body);
        self.answer();
    }

    /// Has the success of the last message answered.
    pub fn answer(&mut self) {
        if let Some(flags) = self.bytes.get_mut(self.last + 6..self.last + 8) {
            flags.copy_from_slice(&(u16::from_ne_bytes([flags[0], flags[1]]) | NLM_F_ACK).to_ne_bytes());
            self.last_answered = Some(self.seq());
        }
    }

    /// The last message's sequence number.
    fn seq(&self) -> u32 {
        u32::try_from(self.whats.len()).unwrap_or(u32::MAX)
    }

    /// How many messages there are.
    pub(super) fn len(&self) -> usize {
        self.whats.len()
    }

    /// The datagram; `None` when an attribute is too long for its 16-bit length.
    pub(super) fn bytes(&self) -> Option<&[u8]> {
        (!self.too_long).then_some(&self.bytes)
    }

    /// The place of the message with this sequence number, and what it is for.
    pub(super) fn message(&self, seq: u32) -> (usize, &'static str) {
        let at = usize::try_from(seq).ok().and_then(|seq| seq.checked_sub(1)).unwrap_or(usize::MAX);
        (at, self.whats.get(at).copied().unwrap_or("send request"))
    }

    /// Sequence number of the last message whose success is answered.
    pub(super) fn last_answered(&self) -> Option<u32> {
        self.last_answered
    }
}

/// Writes a message's attributes.
#[derive(Debug)]
pub struct Attributes<'a> {
    bytes: &'a mut Vec<u8>,
    too_long: &'a mut bool,
}

impl Attributes<'_> {
    /// An attribute of these bytes.
    pub fn bytes(&mut self, kind: u16, value: &[u8]) {
        let start = self.open(kind);
        self.bytes.extend(value);
        self.close(start);
    }

    /// A number of 8 bits.
    pub fn u8(&mut self, kind: u16, value: u8) {
        self.bytes(kind, &[value]);
    }

    /// A number in the machine's byte order.
    pub fn u32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    /// A number in network byte order.
    pub fn be32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// A text and the zero byte that ends it.
    pub fn text(&mut self, kind: u16, value: &str) {
        let start = self.open(kind);
        self.bytes.extend(value.as_bytes());
        self.bytes.push(0);
        self.close(start);
    }

    /// An attribute that holds attributes.
    pub fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Attributes<'_>)) {
        let start = self.open(kind | NLA_F_NESTED);
        body(&mut Attributes { bytes: self.bytes, too_long: self.too_long });
        self.close(start);
    }

    fn open(&mut self, kind: u16) -> usize {
        let start = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.bytes.extend(kind.to_ne_bytes());
        start
    }

    fn close(&mut self, start: usize) {
        match u16::try_from(self.bytes.len() - start) {
            Ok(len) => self.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes()),
            Err(_) => *self.too_long = true,
        }
        self.bytes.resize(align(self.bytes.len()), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse::{attributes, messages};
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let mut request = Request::default();
        request.silent("begin", 16, 0, &[7], |_| {});
        request.add("make", 17, 0x100, &[1, 2, 3, 4], |attrs| {
            attrs.text(1, "abc");
            attrs.nest(2, |attrs| attrs.be32(3, 1));
        });
        request.silent("end", 18, 0, &[], |_| {});
        assert_eq!(request.last_answered(), Some(2));
        assert_eq!(request.message(2), (1, "make"));
        let read: Vec<_> = messages(request.bytes().unwrap()).collect();
        assert_eq!(read.iter().map(|m| (m.kind, m.seq)).collect::<Vec<_>>(), [(16, 1), (17, 2), (18, 3)]);
        let found: Vec<_> = attributes(&read[1].payload[4..]).collect();
        assert_eq!(found[0], (1, b"abc\0".as_slice()));
        assert_eq!(attributes(found[1].1).collect::<Vec<_>>(), [(3, [0, 0, 0, 1].as_slice())]);
    }

    #[test]
    fn an_attribute_that_is_too_long_is_not_sent() {
        let mut request = Request::default();
        request.add("make", 16, 0, &[], |attrs| attrs.bytes(1, &[0; 65532]));
        assert!(request.bytes().is_none());
    }
}
