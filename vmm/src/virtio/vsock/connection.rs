//! The state of one connection: who may still say what, and how much. No input or output happens here.

use super::header::{Header, Key, Op, SHUTDOWN_RECEIVE, SHUTDOWN_SEND};

/// Bytes that the device holds for a host peer that reads slowly, per connection, and so the credit that a guest has.
pub(super) const BUF_ALLOC: u32 = 128 * 1024;
/// The guest hears of room that became free when it is this many bytes.
const CREDIT_STEP: u32 = BUF_ALLOC / 4;

/// What to do about a packet of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing.
    Nothing,
    /// The guest accepted the host's request.
    Accepted,
    /// The payload may be passed on; the connection counts it as held until it is [`Connection::forwarded`].
    Data,
    /// The guest closed one direction or both.
    Shutdown,
    /// The guest ended the connection.
    Closed,
    /// The guest broke the protocol: reset the connection.
    Violation,
}

/// Packets without data that wait for a buffer of the guest.
#[derive(Debug, Default)]
struct Pending {
    request: bool,
    response: bool,
    shutdown: bool,
    credit_update: bool,
    credit_request: bool,
}

/// One connection between a port of the guest and a port of the host.
#[derive(Debug)]
pub(super) struct Connection {
    guest_cid: u64,
    key: Key,
    established: bool,
    pending: Pending,
    /// The guest's buffer, as it last told (virtio 1.2, section 5.10.6.3).
    guest_buf_alloc: u32,
    /// What the guest's buffer passed on, as it last told, modulo 2^32.
    guest_fwd_cnt: u32,
    /// Bytes sent to the guest, modulo 2^32.
    sent: u32,
    /// Bytes that came from the guest and are not yet forwarded.
    held: u32,
    /// Bytes forwarded to the host's peer, modulo 2^32.
    fwd_cnt: u32,
    /// The value of `fwd_cnt` that the guest has been told.
    told_fwd_cnt: u32,
    host_sends: bool,
    host_receives: bool,
    guest_sends: bool,
    guest_receives: bool,
}

impl Connection {
    /// A connection that the host's peer asked for: the guest is to be asked.
    pub(super) fn from_host(guest_cid: u64, key: Key) -> Self {
        let pending = Pending { request: true, ..Pending::default() };
        Self {
            guest_cid,
            key,
            established: false,
            pending,
            guest_buf_alloc: 0,
            guest_fwd_cnt: 0,
            sent: 0,
            held: 0,
            fwd_cnt: 0,
            told_fwd_cnt: 0,
            host_sends: true,
            host_receives: true,
            guest_sends: true,
            guest_receives: true,
        }
    }

    /// A connection that the guest asked for with `request` and that the host's peer accepted.
    pub(super) fn from_guest(guest_cid: u64, request: &Header) -> Self {
        Self {
            established: true,
            pending: Pending { response: true, ..Pending::default() },
            guest_buf_alloc: request.buf_alloc,
            guest_fwd_cnt: request.fwd_cnt,
            ..Self::from_host(guest_cid, request.guest_key())
        }
    }

    /// Its name.
    pub(super) fn key(&self) -> Key {
        self.key
    }

    /// Whether both sides agreed to it.
    pub(super) fn is_established(&self) -> bool {
        self.established
    }

    /// Whether the guest has not heard of it at all.
    pub(super) fn is_unknown_to_guest(&self) -> bool {
        self.pending.request
    }

    /// Takes in a packet of the guest.
    pub(super) fn on_packet(&mut self, header: &Header, op: Op) -> Action {
        self.guest_buf_alloc = header.buf_alloc;
        self.guest_fwd_cnt = header.fwd_cnt;
        match (op, self.established) {
            (Op::Reset, _) => return Action::Closed,
            (Op::Response, false) if !self.pending.request => {
                self.established = true;
                return Action::Accepted;
            }
            (Op::Data, true) => return self.on_data(header.len),
            (Op::Shutdown, true) => {
                self.guest_receives &= header.flags & SHUTDOWN_RECEIVE == 0;
                self.guest_sends &= header.flags & SHUTDOWN_SEND == 0;
                return Action::Shutdown;
            }
            (Op::CreditUpdate, true) => {}
            (Op::CreditRequest, true) => self.pending.credit_update = true,
            _ => return Action::Violation,
        }
        Action::Nothing
    }

    fn on_data(&mut self, len: u32) -> Action {
        match self.held.checked_add(len) {
            Some(held) if held <= BUF_ALLOC && self.guest_sends => {
                self.held = held;
                Action::Data
            }
            _ => Action::Violation,
        }
    }

    /// `count` bytes reached the host's peer, or were dropped because it doesn't want them.
    pub(super) fn forwarded(&mut self, count: u32) {
        self.held = self.held.saturating_sub(count);
        self.fwd_cnt = self.fwd_cnt.wrapping_add(count);
        self.pending.credit_update |= self.fwd_cnt.wrapping_sub(self.told_fwd_cnt) >= CREDIT_STEP;
    }

    /// The host's peer sends no more.
    pub(super) fn host_sends_no_more(&mut self) {
        self.pending.shutdown |= std::mem::take(&mut self.host_sends);
    }

    /// The host's peer receives no more.
    pub(super) fn host_receives_no_more(&mut self) {
        self.pending.shutdown |= std::mem::take(&mut self.host_receives);
    }

    /// Whether the host's peer still takes data.
    pub(super) fn host_receives(&self) -> bool {
        self.host_receives
    }

    /// Whether the guest may still send data.
    pub(super) fn guest_sends(&self) -> bool {
        self.guest_sends
    }

    /// Whether the guest still takes data.
    pub(super) fn guest_receives(&self) -> bool {
        self.guest_receives
    }

    /// Whether data may still go from the host's peer to the guest.
    pub(super) fn is_open_to_guest(&self) -> bool {
        self.host_sends && self.guest_receives
    }

    /// Whether nothing more will happen: neither direction is open and nothing is held.
    pub(super) fn is_finished(&self) -> bool {
        !self.is_open_to_guest() && (!self.host_receives || (!self.guest_sends && self.held == 0))
    }

    /// How many bytes may be sent to the guest now.
    pub(super) fn credit(&self) -> u32 {
        if !self.established || self.pending.response || !self.is_open_to_guest() {
            return 0;
        }
        self.guest_buf_alloc.saturating_sub(self.sent.wrapping_sub(self.guest_fwd_cnt))
    }

    /// Whether [`Self::next_control`] has a packet.
    pub(super) fn has_control(&self) -> bool {
        let Pending { request, response, shutdown, credit_update, credit_request } = self.pending;
        request || response || shutdown || credit_update || credit_request
    }

    /// The next packet without data that the guest is to get.
    pub(super) fn next_control(&mut self) -> Option<Header> {
        let pending = &mut self.pending;
        let op = if std::mem::take(&mut pending.request) {
            Op::Request
        } else if std::mem::take(&mut pending.response) {
            Op::Response
        } else if std::mem::take(&mut pending.shutdown) {
            return Some(self.shutdown_packet());
        } else if std::mem::take(&mut pending.credit_request) {
            Op::CreditRequest
        } else if std::mem::take(&mut pending.credit_update) {
            Op::CreditUpdate
        } else {
            return None;
        };
        Some(self.packet(op))
    }

    /// The packet that carries `len` bytes, which must be within [`Self::credit`].
    pub(super) fn data_packet(&mut self, len: u32) -> Header {
        let left = self.credit().saturating_sub(len);
        self.sent = self.sent.wrapping_add(len);
        // Asked once each time the credit runs out: the guest's answer may well be that there is none.
        self.pending.credit_request |= left == 0;
        Header { len, ..self.packet(Op::Data) }
    }

    /// The packet that tells which directions the host's side has closed.
    fn shutdown_packet(&mut self) -> Header {
        let receive = if self.host_receives { 0 } else { SHUTDOWN_RECEIVE };
        let send = if self.host_sends { 0 } else { SHUTDOWN_SEND };
        Header { flags: receive | send, ..self.packet(Op::Shutdown) }
    }

    /// The last packet of a connection that ended in order: both directions are closed.
    pub(super) fn farewell(&mut self) -> Header {
        Header { flags: SHUTDOWN_RECEIVE | SHUTDOWN_SEND, ..self.packet(Op::Shutdown) }
    }

    /// A packet with the credit that the guest has; every one of them spares a credit update.
    fn packet(&mut self, op: Op) -> Header {
        self.told_fwd_cnt = self.fwd_cnt;
        self.pending.credit_update = false;
        Header {
            buf_alloc: BUF_ALLOC,
            fwd_cnt: self.fwd_cnt,
            ..Header::to_guest(self.guest_cid, self.key, op)
        }
    }
}
