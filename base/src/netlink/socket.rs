//! Sends requests and collects what the kernel says to them.

use std::{
    cell::Cell,
    io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, setsockopt,
    socket, sockopt,
};

use super::{
    HEADER, NLMSG_DONE, NLMSG_ERROR,
    message::Request,
    parse::{Message, find, messages, read_text, read_u32},
};

/// Requests larger than this need a larger send buffer than sockets have by default.
const LARGE: usize = 100 * 1024;
/// The answers to more messages than this need a larger receive buffer than sockets have by default.
const MANY: usize = 64;
/// What an answer takes of a receive buffer, in bytes, with what the kernel keeps of it.
const ANSWER: usize = 1024;
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
pub struct Failed {
    /// The place of its message among those that were sent together, from 0; when none of them was dealt
    /// with, beyond them.
    pub at: usize,
    /// What its message was for.
    pub what: &'static str,
    /// Why it was refused.
    pub source: io::Error,
    /// The kernel's own words, as in "Device already exists"; empty if it has none.
    pub words: String,
}

impl Failed {
    /// The kernel's reason.
    pub fn errno(&self) -> i32 {
        self.source.raw_os_error().unwrap_or(libc::EIO)
    }

    fn new(what: &'static str, source: impl Into<io::Error>) -> Self {
        Self { at: usize::MAX, what, source: source.into(), words: String::new() }
    }
}

/// A netlink socket of the network namespace in which it was opened.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
}

thread_local! {
    static REQUESTS: Cell<u32> = const { Cell::new(0) };
}

/// How many requests the calling thread has sent: what something costs, for tests of that.
pub fn requests_sent() -> u32 {
    REQUESTS.get()
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Socket {
    /// Opens one for links, addresses, routes and neighbours.
    ///
    /// # Errors
    /// When the kernel refuses one.
    pub fn route() -> io::Result<Self> {
        Self::open(SockProtocol::NetlinkRoute)
    }

    /// Opens one for nftables.
    ///
    /// # Errors
    /// When the kernel refuses one.
    pub fn netfilter() -> io::Result<Self> {
        Self::open(SockProtocol::NetlinkNetFilter)
    }

    /// Opens one that receives events of these groups (`RTMGRP_*` of rtnetlink(7)).
    ///
    /// # Errors
    /// When the kernel refuses one.
    pub fn subscribe(groups: u32) -> io::Result<Self> {
        let socket = Self::route()?;
        bind(socket.fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        Ok(socket)
    }

    /// Reads the events that have come, without waiting for more. Says whether there were any; events that
    /// were lost because too many had come count, too.
    ///
    /// # Errors
    /// When the socket can't be read.
    pub fn drain(&self) -> io::Result<bool> {
        let mut buffer = vec![0; BUFFER];
        let mut any = false;
        loop {
            match recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(_) | Err(nix::Error::ENOBUFS) => any = true,
                Err(nix::Error::EINTR) => {}
                Err(nix::Error::EAGAIN) => return Ok(any),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn open(protocol: SockProtocol) -> io::Result<Self> {
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        // Errors come without a copy of the request, but with a text. Old kernels know neither: no harm.
        for option in [libc::NETLINK_CAP_ACK, libc::NETLINK_EXT_ACK] {
            let on: libc::c_int = 1;
            // SAFETY: the pointer and the length describe `on`, which outlives the call; the descriptor is
            // open.
            unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_NETLINK, option, (&raw const on).cast(), 4) };
        }
        Ok(Self { fd })
    }

    /// Sends a request and returns what failed: for each message of a request for links, and for the whole of
    /// a batch of nftables.
    ///
    /// # Errors
    /// When the request can't be sent, or answers can't be read.
    pub fn send_all(&self, request: &Request) -> Result<Vec<Failed>, Failed> {
        self.write(request)?;
        let mut failed = Vec::new();
        let last = request.last_answered();
        let mut answered = false;
        self.read(|message| {
            if message.kind == NLMSG_ERROR {
                answered |= Some(message.seq) == last;
                if let Some((source, words)) = refusal(&message) {
                    let (at, what) = request.message(message.seq);
                    failed.push(Failed { at, what, source, words });
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
    ///
    /// # Errors
    /// The first that failed.
    pub fn send(&self, request: &Request) -> Result<(), Failed> {
        match self.send_all(request)?.into_iter().next() {
            Some(failed) => Err(failed),
            None => Ok(()),
        }
    }

    /// Asks for all objects of a kind, and hands each message's payload to `each`.
    ///
    /// # Errors
    /// When the kernel refuses, or when the objects change so fast that no list of them is consistent.
    pub fn dump(
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
                    // A dump that is broken off ends with an error in place of its end, or in it.
                    NLMSG_DONE | NLMSG_ERROR => {
                        refused = refusal(&message);
                        done = true;
                    }
                    _ => found.push(message.payload.to_vec()),
                }
                !done
            })?;
            if let Some((source, words)) = refused {
                return Err(Failed { at: 0, what, source, words });
            }
            if done && !interrupted {
                found.iter().for_each(|payload| each(payload));
                return Ok(());
            }
        }
        Err(Failed::new(what, io::ErrorKind::Interrupted))
    }

    fn write(&self, request: &Request) -> Result<(), Failed> {
        REQUESTS.set(REQUESTS.get().wrapping_add(1));
        let too_large = || Failed::new("send request", io::Error::from_raw_os_error(libc::EMSGSIZE));
        let bytes = request.bytes().ok_or_else(too_large)?;
        if bytes.len() > LARGE {
            setsockopt(&self.fd, sockopt::SndBufForce, &(2 * bytes.len()))
                .map_err(|errno| Failed::new("make room for request", errno))?;
        }
        if request.len() > MANY {
            setsockopt(&self.fd, sockopt::RcvBufForce, &(ANSWER * request.len()))
                .map_err(|errno| Failed::new("make room for answers", errno))?;
        }
        let kernel = NetlinkAddr::new(0, 0);
        let sent = sendto(self.fd.as_raw_fd(), bytes, &kernel, MsgFlags::empty())
            .map_err(|errno| Failed::new("send request", errno))?;
        if sent == bytes.len() { Ok(()) } else { Err(too_large()) }
    }

    /// Reads until there is no more, or until `each` wants no more. The kernel deals with a request while it
    /// is sent, and goes on with a dump while it is read: so there is nothing to wait for.
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
            words = read_text(text);
        }
    }
    Some((io::Error::from_raw_os_error(errno), words))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// To an interface that is not there.
    fn set_nothing(request: &mut Request) {
        let mut header = [0; 16];
        header[4..8].copy_from_slice(&i32::MAX.to_ne_bytes());
        request.silent("set nothing", libc::RTM_SETLINK, 0, &header, |_| {});
    }

    #[test]
    fn every_refusal_is_told_with_its_place() {
        let socket = Socket::route().unwrap();
        let mut request = Request::default();
        (0..64).for_each(|_| set_nothing(&mut request));
        request.answer();
        let before = requests_sent();
        let failed = socket.send_all(&request).unwrap();
        assert_eq!(requests_sent(), before + 1);
        assert_eq!(failed.iter().map(|failed| failed.at).collect::<Vec<_>>(), (0..64).collect::<Vec<_>>());
        let reason = |failed: &Failed| (failed.what, failed.errno());
        assert!(failed.iter().all(|failed| reason(failed) == ("set nothing", libc::ENODEV)), "{failed:?}");
        assert_eq!(socket.send(&request).unwrap_err().at, 0);
    }

    #[test]
    fn more_answers_than_fit_into_a_sockets_usual_buffer_are_all_heard() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: only root can have a larger buffer");
            return;
        }
        let mut request = Request::default();
        (0..1000).for_each(|_| set_nothing(&mut request));
        request.answer();
        assert_eq!(Socket::route().unwrap().send_all(&request).unwrap().len(), 1000);
    }

    #[test]
    fn a_dump_lists_loopback() {
        let socket = Socket::route().unwrap();
        let mut names = Vec::new();
        let each = |link: &[u8]| names.extend(find(&link[16..], libc::IFLA_IFNAME).map(<[u8]>::to_vec));
        socket.dump("read links", libc::RTM_GETLINK, &[0; 16], each).unwrap();
        assert!(names.contains(&b"lo\0".to_vec()), "{names:?}");
        assert!(socket.dump("read nothing", 0x7ffe, &[], |_| ()).is_err());
    }

    #[test]
    fn events_are_noticed_once() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: only root can make network namespaces");
            return;
        }
        let inside = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let (events, socket) = (Socket::subscribe(1).unwrap(), Socket::route().unwrap());
            assert!(!events.drain().unwrap());
            // Loopback is the first interface of each namespace; IFF_UP is 1.
            let mut header = [0; 16];
            header[4..8].copy_from_slice(&1_u32.to_ne_bytes());
            header[8..12].copy_from_slice(&1_u32.to_ne_bytes());
            header[12..].copy_from_slice(&1_u32.to_ne_bytes());
            let mut request = Request::default();
            request.add("set loopback up", libc::RTM_NEWLINK, 0, &header, |_| {});
            socket.send(&request).unwrap();
            assert!(events.drain().unwrap());
            assert!(!events.drain().unwrap());
        });
        inside.join().unwrap();
    }

    #[test]
    fn a_request_without_an_answer_is_an_error() {
        let socket = Socket::route().unwrap();
        assert!(socket.send(&Request::default()).is_err());
    }
}
