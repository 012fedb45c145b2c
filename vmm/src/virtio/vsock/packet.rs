//! Packets of the guest: a header and its payload.

use super::{
    chain::Buffers,
    header::{HEADER_LEN, HOST_CID, Header, MAX_PAYLOAD_LEN, Op, TYPE_STREAM},
};

/// What became of the bytes of a packet from the guest.
#[derive(Debug)]
pub(super) enum Parsed<'m> {
    /// Not for us, or too short to say from whom it is: nobody to answer.
    Drop,
    /// From the guest, but not as the standard wants it: answered by a reset.
    Malformed(Header),
    /// A packet and its payload, which is empty unless the operation carries data.
    Packet(Header, Op, Buffers<'m>),
}

/// Checks a packet of the guest whose context id is `guest_cid`. The header is read from guest memory once.
pub(super) fn parse(mut bytes: Buffers<'_>, guest_cid: u64) -> Parsed<'_> {
    let Some(head) = bytes.split_to(HEADER_LEN) else { return Parsed::Drop };
    let mut raw = [0; HEADER_LEN];
    head.copy_to(&mut raw);
    let header = Header::from_bytes(&raw);
    if header.src_cid != guest_cid || header.dst_cid != HOST_CID {
        return Parsed::Drop;
    }
    let Some(op) = Op::from_raw(header.op) else { return Parsed::Malformed(header) };
    let Ok(len) = usize::try_from(header.len) else { return Parsed::Malformed(header) };
    if header.kind != TYPE_STREAM || len > MAX_PAYLOAD_LEN {
        return Parsed::Malformed(header);
    }
    match bytes.split_to(if op == Op::Data { len } else { 0 }) {
        Some(payload) => Parsed::Packet(header, op, payload),
        None => Parsed::Malformed(header),
    }
}
