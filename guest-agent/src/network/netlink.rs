//! A netlink socket and the layout of its messages (netlink(7)): as much of it as a guest's network takes. Messages go
//! out many at a time, and only the last of them is acknowledged; whatever fails answers anyway.

use std::{
    io,
    mem::size_of_val,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket},
};

/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// `struct nlmsgerr` of a capped answer: the error and the header of the message that it is about.
const ERROR: usize = 4 + HEADER;
/// <linux/netlink.h>: the flag that asks for an answer, ...
const NLM_F_ACK: u16 = 4;
/// ... and the text of an error, in an extended answer.
const NLMSGERR_ATTR_MSG: u16 = 1;
/// What the kernel fills at most when it dumps, and more than any answer to a request.
const BUFFER: usize = 32 * 1024;
/// Requests that are sent at once. If all of them failed, the answers had to fit into the socket's buffer.
const BATCH: usize = 64;

/// A message that is being built. Its length and number are filled in when it is sent.
#[derive(Debug, Clone)]
pub(super) struct Message(Vec<u8>);

impl Message {
    /// A message of type `kind` that begins with `body`, a struct of rtnetlink(7). `flags` are NLM_F_*, without
    /// NLM_F_REQUEST, which every request has.
    pub(super) fn new(kind: u16, flags: libc::c_int, body: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        // NLM_F_* are bits of a 16-bit field.
        let [low, high, ..] = (flags | libc::NLM_F_REQUEST).to_le_bytes();
        bytes.extend_from_slice(&u16::from_le_bytes([low, high]).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(body);
        Self(bytes)
    }

    /// Adds an attribute. All that are ever added are shorter than 64 KiB.
    pub(super) fn attribute(mut self, kind: u16, payload: &[u8]) -> Self {
        let length = u16::try_from(payload.len() + 4).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(payload);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Adds an attribute when there is one.
    pub(super) fn optional(self, kind: u16, payload: Option<impl AsRef<[u8]>>) -> Self {
        match payload {
            Some(payload) => self.attribute(kind, payload.as_ref()),
            None => self,
        }
    }

    fn append_to(&self, out: &mut Vec<u8>, sequence: u32, acknowledge: bool) {
        let start = out.len();
        out.extend_from_slice(&self.0);
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        out[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        out[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
        if acknowledge {
            let at = start + 6;
            let flags = u16::from_ne_bytes([out[at], out[at + 1]]) | NLM_F_ACK;
            out[at..at + 2].copy_from_slice(&flags.to_ne_bytes());
        }
    }
}

/// Why the kernel refused a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) errno: Errno,
    /// The kernel's own words, or empty.
    pub(super) text: String,
}

/// A socket to rtnetlink(7). It blocks, but never for long: the kernel does the work within the call that sends.
#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    pub(super) fn open() -> io::Result<Self> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        let socket = Self { fd, sequence: 0 };
        // Errors with the kernel's own words, and without a copy of the request.
        socket.set(libc::NETLINK_EXT_ACK)?;
        socket.set(libc::NETLINK_CAP_ACK)?;
        Ok(socket)
    }

    fn set(&self, option: libc::c_int) -> io::Result<()> {
        let on: libc::c_int = 1;
        let length = libc::socklen_t::try_from(size_of_val(&on)).map_err(io::Error::other)?;
        // SAFETY: the descriptor is open, and `on` lives through the call and has the length that is given.
        let result = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_NETLINK,
                option,
                std::ptr::from_ref(&on).cast(),
                length,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Sends all requests, in order, and calls `refused` with the position of each that fails. A failed one does not
    /// keep the kernel from those after it.
    pub(super) fn request<'a>(
        &mut self,
        requests: impl ExactSizeIterator<Item = &'a Message>,
        mut refused: impl FnMut(usize, Refusal),
    ) -> io::Result<()> {
        let total = requests.len();
        let mut bytes = Vec::with_capacity(4096);
        let (mut first, mut position) = (0, 0);
        for message in requests {
            let last_of_batch = position + 1 == total || position + 1 - first == BATCH;
            self.sequence = self.sequence.wrapping_add(1);
            message.append_to(&mut bytes, self.sequence, last_of_batch);
            position += 1;
            if last_of_batch {
                let (base, count) = (first, position - first);
                self.exchange(&bytes, count, |at, refusal| refused(base + at, refusal))?;
                bytes.clear();
                first = position;
            }
        }
        Ok(())
    }

    /// Sends a batch of `count` requests and reads answers until the last of them is answered.
    fn exchange(
        &self,
        bytes: &[u8],
        count: usize,
        mut refused: impl FnMut(usize, Refusal),
    ) -> io::Result<()> {
        send(self.fd.as_raw_fd(), bytes, MsgFlags::empty())?;
        let mut buffer = vec![0; BUFFER];
        loop {
            let length = recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            for answer in messages(&buffer[..length]) {
                // How many requests were sent after the one that this is about.
                let later =
                    usize::try_from(self.sequence.wrapping_sub(answer.sequence)).unwrap_or(usize::MAX);
                let (true, Some(error)) = (later < count, answer.error()) else { continue };
                if let Some(refusal) = error {
                    refused(count - 1 - later, refusal);
                }
                if later == 0 {
                    return Ok(());
                }
            }
        }
    }

    /// Asks for a list and calls `each` with the body of every entry.
    pub(super) fn dump(&mut self, request: &Message, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        let mut bytes = Vec::new();
        self.sequence = self.sequence.wrapping_add(1);
        request.append_to(&mut bytes, self.sequence, false);
        send(self.fd.as_raw_fd(), &bytes, MsgFlags::empty())?;
        let mut buffer = vec![0; BUFFER];
        loop {
            let length = recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            for answer in messages(&buffer[..length]).filter(|answer| answer.sequence == self.sequence) {
                if i32::from(answer.kind) == libc::NLMSG_DONE {
                    return Ok(());
                }
                match answer.error() {
                    Some(Some(refusal)) => return Err(refusal.errno.into()),
                    Some(None) => return Ok(()),
                    None => each(answer.body),
                }
            }
        }
    }
}

/// A message from the kernel.
#[derive(Debug)]
struct Answer<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &'a [u8],
}

impl Answer<'_> {
    /// For an answer of type NLMSG_ERROR, the error that it tells of, or its inner None, which says that all went well.
    fn error(&self) -> Option<Option<Refusal>> {
        if i32::from(self.kind) != libc::NLMSG_ERROR {
            return None;
        }
        let code = self.body.first_chunk::<4>().map_or(-libc::EPROTO, |bytes| i32::from_ne_bytes(*bytes));
        if code == 0 {
            return Some(None);
        }
        let extended = i32::from(self.flags) & libc::NLM_F_ACK_TLVS != 0;
        let text = attributes(self.body.get(ERROR..).filter(|_| extended).unwrap_or_default())
            .find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG)
            .map(|(_, text)| String::from_utf8_lossy(text).trim_end_matches('\0').to_owned());
        Some(Some(Refusal { errno: Errno::from_raw(code.wrapping_neg()), text: text.unwrap_or_default() }))
    }
}

/// The messages in what was received. Ends at the first that is not whole.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Answer<'_>> {
    std::iter::from_fn(move || {
        let (header, _) = bytes.split_at_checked(HEADER)?;
        let length = usize::try_from(u32::from_ne_bytes(header[..4].try_into().ok()?)).ok()?;
        let body = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Answer {
            kind: u16::from_ne_bytes(header[4..6].try_into().ok()?),
            flags: u16::from_ne_bytes(header[6..8].try_into().ok()?),
            sequence: u32::from_ne_bytes(header[8..12].try_into().ok()?),
            body,
        })
    })
}

/// The attributes in `bytes`: type and value. Ends at the first that is not whole.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let [l0, l1, k0, k1] = *bytes.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        // Without the bits that say "nested" and "in network byte order".
        Some((u16::from_ne_bytes([k0, k1]) & 0x3fff, value))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes_of(message: &Message) -> Vec<u8> {
        let mut bytes = Vec::new();
        message.append_to(&mut bytes, 7, true);
        bytes
    }

    #[test]
    fn what_is_built_reads_back() {
        let message =
            Message::new(16, 0x400, &[1, 2, 3, 4]).attribute(3, b"eth0\0").optional(4, None::<[u8; 4]>);
        let bytes = bytes_of(&message.attribute(5, &[9; 4]));
        assert_eq!(bytes.len(), 16 + 4 + 12 + 8);
        let answer = messages(&bytes).next().unwrap();
        assert_eq!((answer.kind, answer.flags, answer.sequence), (16, 0x405, 7));
        let (body, rest) = answer.body.split_at(4);
        assert_eq!(body, [1, 2, 3, 4]);
        let found: Vec<_> = attributes(rest).collect();
        assert_eq!(found, [(3, &b"eth0\0"[..]), (5, &[9; 4][..])]);
        assert_eq!(messages(&bytes).count(), 1);
    }

    #[test]
    fn every_refusal_is_told_with_its_place() {
        let mut socket = Socket::open().unwrap();
        // No interface has this index; the requests ask for nothing else.
        let bad =
            Message::new(libc::RTM_SETLINK, 0, &[0, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0, 0, 0, 0, 0]);
        let requests = vec![bad; 2 * BATCH + 3];
        let mut refused = Vec::new();
        socket.request(requests.iter(), |at, refusal| refused.push((at, refusal.errno))).unwrap();
        let expected: Vec<_> = (0..requests.len()).map(|at| (at, Errno::ENODEV)).collect();
        assert_eq!(refused, expected);
        socket.request([].iter(), |_, _| panic!("nothing was asked")).unwrap();
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            for answer in messages(&bytes) {
                let _ = answer.error();
            }
            // Each attribute takes four bytes at least.
            prop_assert!(attributes(&bytes).count() <= bytes.len() / 4 + 1);
        }
    }
}
