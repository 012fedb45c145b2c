//! The tap beside an interface: made inside the namespace, held by nobody but us.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::{errno::Errno, net::if_::if_nametoindex};

/// What the VMM wants of a tap.
const FLAGS: libc::c_int = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
/// The kernel puts the first free number for `%d`.
const NAME: &str = "hkt%d";

/// A tap of ours.
#[derive(Debug)]
pub(super) struct Tap {
    pub(super) fd: OwnedFd,
    pub(super) index: u32,
}

/// Makes a tap in the namespace of the calling thread. It goes with its descriptor.
///
/// # Errors
/// When /dev/net/tun can't be opened, or we may not.
pub(super) fn create() -> io::Result<Tap> {
    open(NAME)
}

/// Opens a persistent tap of the calling thread's namespace.
///
/// # Errors
/// `EBUSY` when somebody holds it already, `EINVAL` when it is of another kind (multi-queue).
pub(super) fn attach(name: &str) -> io::Result<Tap> {
    open(name)
}

fn open(name: &str) -> io::Result<Tap> {
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: an ifreq is plain bytes, for which zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero.
    let room = request.ifr_name.len() - 1;
    if name.len() > room {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = i16::try_from(FLAGS).map_err(io::Error::other)?;
    // SAFETY: TUNSETIFF reads and writes an ifreq, which outlives the call.
    Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    let name: Vec<u8> = request.ifr_name.iter().map(|c| c.cast_unsigned()).take_while(|c| *c != 0).collect();
    let index = if_nametoindex(name.as_slice())?;
    Ok(Tap { fd: file.into(), index })
}
