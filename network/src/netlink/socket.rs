//! Sends requests and collects what the kernel says to them.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket,
    sockopt,
};

use super::{
    HEADER, NLMSG_DONE, NLMSG_ERROR,
    message::Request,
    parse::{Message, find, messages, read_u32},
};

/// Requests larger than this need a larger send buffer than sockets have by default.
const LARGE: usize = 100 * 1024;
/// What the kernel puts into one datagram at most: 32 KiB, or the size of the reader's buffer.
const BUFFER: usize = 32 * 1024;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLM_F_DUMP: u16 = 0x300;
const NLMSGERR_ATTR_MSG: u16 = 1;
/// A dump that changes under way is begun again this often.
const DUMP_ATTEMPTS: u32 = 5;

/// A request that the kernel refused.
#[derive(Debug)]
pub(crate) struct Failed {
    /// What its message was for.
    pub(crate) what: &'static str,
    /// Why it was refused.
    pub(crate) source: io::Error,
    /// The kernel's own words, if it has any: ": Device already exists".
    pub(crate) words: String,
}

impl Failed {
    /// The kernel's reason.
    pub(crate) fn errno(&self) -> i32 {
        self.source.raw_os_error().unwrap_or(libc::EIO)
    }

    fn new(what: &'static str, source: impl Into<io::Error>) -> Self {
        Self { what, source: source.into(), words: String::new() }
    }
}

/// A netlink socket of the calling thread's network namespace.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
}

#[cfg(test)]
thread_local! {
    /// How many requests this thread has sent.
    pub(crate) static ROUND_TRIPS: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

impl Socket {
    /// For links, addresses, routes and neighbours.
    pub(crate) fn route() -> io::Result<Self> {
        Self::open(SockProtocol::NetlinkRoute)
    }

    /// For nftables.
    pub(crate) fn netfilter() -> io::Result<Self> {
        Self::open(SockProtocol::NetlinkNetFilter)
    }

    fn open(protocol: SockProtocol) -> io::Result<Self> {
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        // Errors come without a copy of the request, but with a text. Old kernels know neither: no harm.
        for option in [libc::NETLINK_CAP_ACK, libc::NETLINK_EXT_ACK] {
            let on: libc::c_int = 1;
            // SAFETY: the pointer and the length describe `on`, which outlives the call; the descriptor is open.
            unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_NETLINK, option, (&raw const on).cast(), 4) };
        }
        Ok(Self { fd })
    }

    /// Sends a request and returns what failed: for each message of a request for links, and for the whole of a batch of
    /// nftables.
    pub(crate) fn send_all(&self, request: &Request) -> Result<Vec<Failed>, Failed> {
        self.write(request)?;
        let mut failed = Vec::new();
        let last = request.last_answered();
        let mut answered = false;
        self.read(|message| {
            if message.kind == NLMSG_ERROR {
                answered |= Some(message.seq) == last;
                if let Some((source, words)) = refusal(&message) {
                    failed.push(Failed { what: request.what(message.seq), source, words });
                }
            }
            true
        })?;
        if answered || !failed.is_empty() {
            return Ok(failed);
        }
        Err(Failed::new("hear from kernel about request", io::ErrorKind::UnexpectedEof))
    }

    /// Sends a request all of which has to succeed.
    pub(crate) fn send(&self, request: &Request) -> Result<(), Failed> {
        match self.send_all(request)?.into_iter().next() {
            Some(failed) => Err(failed),
            None => Ok(()),
        }
    }

    /// Asks for all objects of a kind, and hands each message's payload to `each`.
    pub(crate) fn dump(
        &self,
        what: &'static str,
        kind: u16,
        header: &[u8],
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), Failed> {
        let mut request = Request::default();
        request.silent(what, kind, NLM_F_DUMP, header, |_| {});
        for _ in 0..DUMP_ATTEMPTS {
            self.write(&request)?;
            let mut found = Vec::new();
            let (mut done, mut interrupted, mut refused) = (false, false, None);
            self.read(|message| {
                interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                match message.kind {
                    NLMSG_DONE => done = true,
                    NLMSG_ERROR => {
                        refused = refusal(&message);
                        done = true;
                    }
                    _ => found.push(message.payload.to_vec()),
                }
                !done
            })?;
            if let Some((source, words)) = refused {
                return Err(Failed { what, source, words });
            }
            if done && !interrupted {
                found.iter().for_each(|payload| each(payload));
                return Ok(());
            }
        }
        Err(Failed::new(what, io::ErrorKind::Interrupted))
    }

    fn write(&self, request: &Request) -> Result<(), Failed> {
        #[cfg(test)]
        ROUND_TRIPS.set(ROUND_TRIPS.get() + 1);
        let too_large = || Failed::new("send request", io::Error::from_raw_os_error(libc::EMSGSIZE));
        let bytes = request.bytes().ok_or_else(too_large)?;
        if bytes.len() > LARGE {
            setsockopt(&self.fd, sockopt::SndBufForce, &(2 * bytes.len()))
                .map_err(|errno| Failed::new("make room for request", errno))?;
        }
        let kernel = NetlinkAddr::new(0, 0);
        let sent = sendto(self.fd.as_raw_fd(), bytes, &kernel, MsgFlags::empty())
            .map_err(|errno| Failed::new("send request", errno))?;
        if sent == bytes.len() { Ok(()) } else { Err(too_large()) }
    }

    /// Reads until there is no more, or until `each` wants no more. The kernel deals with a request while it is sent, and
    /// goes on with a dump while it is read: so there is nothing to wait for.
    fn read(&self, mut each: impl FnMut(Message<'_>) -> bool) -> Result<(), Failed> {
        let mut buffer = vec![0; BUFFER];
        loop {
            let len = match recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(len) => len,
                Err(nix::Error::EAGAIN) => return Ok(()),
                Err(nix::Error::EINTR) => continue,
                Err(errno) => return Err(Failed::new("read kernel's answer", errno)),
            };
            for message in messages(&buffer[..len]) {
                if !each(message) {
                    return Ok(());
                }
            }
        }
    }
}

/// Why a request was refused, and the kernel's words for it; `None`: it was not.
fn refusal(message: &Message<'_>) -> Option<(io::Error, String)> {
    let errno = read_u32(message.payload)?.cast_signed().checked_neg().filter(|errno| *errno != 0)?;
    let mut words = String::new();
    if message.flags & NLM_F_ACK_TLVS != 0 {
        // After the error comes the request's header, and the rest of the request unless it is left out.
        let request = message.payload.get(4..).unwrap_or_default();
        let len = if message.flags & NLM_F_CAPPED == 0 { read_u32(request).unwrap_or(0) } else { 0 };
        let skip = usize::try_from(len).unwrap_or(usize::MAX).max(HEADER);
        let text = find(request.get(super::align(skip)..).unwrap_or_default(), NLMSGERR_ATTR_MSG);
        if let Some(text) = text {
            words = format!(": {}", String::from_utf8_lossy(text).trim_end_matches('\0'));
        }
    }
    Some((io::Error::from_raw_os_error(errno), words))
}
