//! Bytes from a unix stream, and the descriptors that come along.

use std::{
    io,
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
};

/// Room for a control message with a few descriptors, aligned as one must be.
#[repr(C)]
union ControlBuffer {
    _alignment: libc::cmsghdr,
    bytes: [u8; 64],
}

/// Reads what there is into `bytes`. Returns how many bytes it read, and the descriptor that came with them.
///
/// # Errors
/// When the stream can't be read, or more than one descriptor came; all are closed then.
pub(super) fn receive(stream: &UnixStream, bytes: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut control = ControlBuffer { bytes: [0; 64] };
    let mut vector = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: zeros are a valid message header, one without any buffers.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<ControlBuffer>();
    // SAFETY: the header points to buffers of the lengths that it names, which live on.
    let count = unsafe { libc::recvmsg(stream.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    let mut passed = take_descriptors(&message);
    let all_fit = message.msg_flags & libc::MSG_CTRUNC == 0;
    let first = passed.pop();
    if all_fit && passed.is_empty() { Ok((count, first)) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Takes over all descriptors of a message that has been received.
fn take_descriptors(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut all = Vec::new();
    // SAFETY: the kernel has filled the control buffer, which lives on, and set its length.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: a header that is not null lies in the control buffer.
    while let Some(part) = unsafe { header.as_ref() } {
        if (part.cmsg_level, part.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: only does arithmetic.
            let empty = unsafe { libc::CMSG_LEN(0) } as usize;
            let count = part.cmsg_len.saturating_sub(empty) / size_of::<RawFd>();
            // SAFETY: the data follows the header in the same buffer.
            let data = unsafe { libc::CMSG_DATA(part) }.cast::<RawFd>();
            for index in 0..count {
                // SAFETY: the kernel says that so many descriptors are there, which need not be aligned.
                let fd = unsafe { data.add(index).read_unaligned() };
                // SAFETY: the kernel has just made it for us; nobody else knows of it.
                all.push(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
        // SAFETY: header and message are those from above.
        header = unsafe { libc::CMSG_NXTHDR(message, part) };
    }
    all
}
