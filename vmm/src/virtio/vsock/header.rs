//! The packet header of virtio-vsock (virtio 1.2, section 5.10.6).

/// Size of a packet header in bytes.
pub(super) const HEADER_LEN: usize = 44;
/// Most payload bytes a packet may carry, in either direction.
pub(super) const MAX_PAYLOAD_LEN: usize = 64 * 1024;
/// The context id of the host.
pub(super) const HOST_CID: u64 = 2;
/// Socket type: a stream, the only one there is here.
pub(super) const TYPE_STREAM: u16 = 1;
/// SHUTDOWN flag: the sender of the packet will receive no more data.
pub(super) const SHUTDOWN_RECEIVE: u32 = 1;
/// SHUTDOWN flag: the sender of the packet will send no more data.
pub(super) const SHUTDOWN_SEND: u32 = 2;

/// What a packet is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    /// Asks for a connection.
    Request,
    /// Accepts a connection.
    Response,
    /// Refuses or ends a connection.
    Reset,
    /// Says which directions are closed for good.
    Shutdown,
    /// Carries data.
    Data,
    /// Tells the sender's buffer space.
    CreditUpdate,
    /// Asks for a [`Op::CreditUpdate`].
    CreditRequest,
}

impl Op {
    /// The operation with that number, if there is one.
    pub(super) fn from_raw(raw: u16) -> Option<Self> {
        Some(match raw {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Reset,
            4 => Self::Shutdown,
            5 => Self::Data,
            6 => Self::CreditUpdate,
            7 => Self::CreditRequest,
            _ => return None,
        })
    }

    /// Its number.
    pub(super) fn to_raw(self) -> u16 {
        match self {
            Self::Request => 1,
            Self::Response => 2,
            Self::Reset => 3,
            Self::Shutdown => 4,
            Self::Data => 5,
            Self::CreditUpdate => 6,
            Self::CreditRequest => 7,
        }
    }
}

/// The two ports of a connection, which name it: both context ids are always the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// The guest's port.
    pub(super) guest_port: u32,
    /// The host's port.
    pub(super) host_port: u32,
}

/// A packet header with the fields of the standard. Numbers come unchecked from the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Context id of the sender.
    pub(super) src_cid: u64,
    /// Context id of the receiver.
    pub(super) dst_cid: u64,
    /// Port of the sender.
    pub(super) src_port: u32,
    /// Port of the receiver.
    pub(super) dst_port: u32,
    /// Payload length in bytes.
    pub(super) len: u32,
    /// Socket type.
    pub(super) kind: u16,
    /// Number of the operation.
    pub(super) op: u16,
    /// Flags of the operation.
    pub(super) flags: u32,
    /// The sender's whole buffer space in bytes.
    pub(super) buf_alloc: u32,
    /// How many bytes the sender's buffer has passed on so far, modulo 2^32.
    pub(super) fwd_cnt: u32,
}

impl Header {
    /// A packet from the host to the guest without payload, flags and credit.
    pub(super) fn to_guest(guest_cid: u64, key: Key, op: Op) -> Self {
        Self {
            src_cid: HOST_CID,
            dst_cid: guest_cid,
            src_port: key.host_port,
            dst_port: key.guest_port,
            len: 0,
            kind: TYPE_STREAM,
            op: op.to_raw(),
            flags: 0,
            buf_alloc: 0,
            fwd_cnt: 0,
        }
    }

    /// The connection that a packet of the guest belongs to.
    pub(super) fn guest_key(&self) -> Key {
        Key { guest_port: self.src_port, host_port: self.dst_port }
    }

    /// Decodes the bytes of a header. Every value is accepted.
    pub(super) fn from_bytes(bytes: &[u8; HEADER_LEN]) -> Self {
        let mut rest = bytes.as_slice();
        Self {
            src_cid: u64::from_le_bytes(take(&mut rest)),
            dst_cid: u64::from_le_bytes(take(&mut rest)),
            src_port: u32::from_le_bytes(take(&mut rest)),
            dst_port: u32::from_le_bytes(take(&mut rest)),
            len: u32::from_le_bytes(take(&mut rest)),
            kind: u16::from_le_bytes(take(&mut rest)),
            op: u16::from_le_bytes(take(&mut rest)),
            flags: u32::from_le_bytes(take(&mut rest)),
            buf_alloc: u32::from_le_bytes(take(&mut rest)),
            fwd_cnt: u32::from_le_bytes(take(&mut rest)),
        }
    }

    /// Encodes the header.
    pub(super) fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let mut rest = bytes.as_mut_slice();
        put(&mut rest, self.src_cid.to_le_bytes());
        put(&mut rest, self.dst_cid.to_le_bytes());
        put(&mut rest, self.src_port.to_le_bytes());
        put(&mut rest, self.dst_port.to_le_bytes());
        put(&mut rest, self.len.to_le_bytes());
        put(&mut rest, self.kind.to_le_bytes());
        put(&mut rest, self.op.to_le_bytes());
        put(&mut rest, self.flags.to_le_bytes());
        put(&mut rest, self.buf_alloc.to_le_bytes());
        put(&mut rest, self.fwd_cnt.to_le_bytes());
        bytes
    }
}

/// Splits `N` bytes off the front; zeros if there are not as many, which a header's length rules out.
fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let Some((field, tail)) = rest.split_first_chunk::<N>() else { return [0; N] };
    *rest = tail;
    *field
}

/// Writes `N` bytes to the front and moves on.
fn put<const N: usize>(rest: &mut &mut [u8], field: [u8; N]) {
    if let Some((slot, tail)) = std::mem::take(rest).split_first_chunk_mut::<N>() {
        *slot = field;
        *rest = tail;
    }
}
