//! Reads messages. Nothing here can panic or loop for ever, whatever the bytes.

use super::{HEADER, align};

/// A message that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message<'a> {
    /// Its type.
    pub(super) kind: u16,
    /// Its flags.
    pub(super) flags: u16,
    /// The sequence number of the request it answers.
    pub(super) seq: u32,
    /// What follows the header.
    pub(super) payload: &'a [u8],
}

/// The messages of a datagram, up to the first that is cut off.
pub(super) fn messages(mut rest: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let len = usize::try_from(read_u32(rest)?).ok()?;
        let header = rest.get(..HEADER)?;
        let payload = rest.get(HEADER..len)?;
        rest = rest.get(align(len)..).unwrap_or_default();
        Some(Message {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            seq: read_u32(&header[8..])?,
            payload,
        })
    })
}

/// Types and values of attributes, up to the first that is cut off.
pub fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (len, kind) = (rest.get(..2)?, rest.get(2..4)?);
        let len = usize::from(u16::from_ne_bytes([len[0], len[1]]));
        let kind = u16::from_ne_bytes([kind[0], kind[1]]) & 0x3fff;
        let value = rest.get(4..len)?;
        rest = rest.get(align(len)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the first attribute of this type.
pub fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// The number, in the machine's byte order, that the bytes begin with.
pub fn read_u32(bytes: &[u8]) -> Option<u32> {
    bytes.get(..4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes)
}

/// A text, which a zero byte ends.
pub fn read_text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_can_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for message in messages(&bytes) {
                prop_assert!(message.payload.len() < bytes.len());
            }
            let inside: usize = attributes(&bytes).map(|(_, value)| value.len() + 4).sum();
            prop_assert!(inside <= bytes.len());
            let _ = find(&bytes, 1);
        }
    }
}
