//! Network interfaces, and traffic over them whose content both sides know.

use std::{
    fs::File,
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpStream},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    thread,
};

const BLOCK_LEN: usize = 64 << 10;
/// What who has received everything says.
const COMPLETE: u8 = 1;

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn request(interface: &str) -> libc::ifreq {
    // SAFETY: all of it is numbers, for which zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(interface.bytes()) {
        *to = from.cast_signed();
    }
    request
}

fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    let [a, b, c, d] = address.octets().map(u8::cast_signed);
    let family = u16::try_from(libc::AF_INET).unwrap_or(0);
    // A sockaddr_in: the address comes behind the port.
    libc::sockaddr { sa_family: family, sa_data: [0, 0, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0] }
}

/// Gives an interface an address and brings it up.
///
/// # Errors
/// When the kernel refuses.
pub fn bring_up(interface: &str, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
    // SAFETY: makes a descriptor, which is nobody else's, and touches no memory.
    let socket = unsafe {
        OwnedFd::from_raw_fd(checked(libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0))?)
    };
    let mask = Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0));
    let up = i16::try_from(libc::IFF_UP | libc::IFF_RUNNING).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut steps = [
        (libc::SIOCSIFADDR, request(interface)),
        (libc::SIOCSIFNETMASK, request(interface)),
        (libc::SIOCSIFFLAGS, request(interface)),
    ];
    steps[0].1.ifr_ifru.ifru_addr = socket_address(address);
    steps[1].1.ifr_ifru.ifru_addr = socket_address(mask);
    steps[2].1.ifr_ifru.ifru_flags = up;
    for (step, mut request) in steps {
        // SAFETY: the request is complete and lives on.
        checked(unsafe { libc::ioctl(socket.as_raw_fd(), step, &raw mut request) })?;
    }
    Ok(())
}

/// Makes a queue of a tap as the VMM wants it; the tap exists as long as one of its queues is open.
///
/// # Errors
/// When there are no taps, or this user may not make one.
pub fn tap_queue(name: &str, several: bool) -> io::Result<OwnedFd> {
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    let several = if several { libc::IFF_MULTI_QUEUE } else { 0 };
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | several;
    let mut request = request(name);
    request.ifr_ifru.ifru_flags = i16::try_from(flags).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the request is complete and lives on.
    checked(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    Ok(file.into())
}

/// Has a tap go on to exist when no queue of it is open.
///
/// # Errors
/// When the kernel refuses.
pub fn make_persistent(tap: &OwnedFd) -> io::Result<()> {
    // SAFETY: the argument is a number; no memory is touched.
    checked(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETPERSIST, 1) }).map(drop)
}

/// Has programs that are started from now on inherit a descriptor.
///
/// # Errors
/// When it is not open.
pub fn make_inheritable(fd: &OwnedFd) -> io::Result<()> {
    // SAFETY: changes a flag and touches no memory.
    checked(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, 0) }).map(drop)
}

/// Runs a test in a network namespace of its own; the programs that it starts are there as well. Needs root.
///
/// # Panics
/// When the namespace can't be had, or the test panics.
pub fn in_namespace(test: impl FnOnce() + Send) {
    let run = || {
        // SAFETY: moves this thread alone to another namespace; no memory is touched.
        checked(unsafe { libc::unshare(libc::CLONE_NEWNET) }).expect("a network namespace needs root");
        test();
    };
    thread::scope(|scope| {
        // Its message has been printed where it panicked.
        scope.spawn(run).join().expect("the test failed");
    });
}

/// The `number`th block of what is sent.
fn block(number: u64) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(BLOCK_LEN);
    while bytes.len() < BLOCK_LEN {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

/// Sends so many blocks.
fn send(mut stream: impl Write, blocks: u64) -> io::Result<()> {
    (0..blocks).try_for_each(|number| stream.write_all(&block(number)))
}

/// Receives so many blocks, and says which is the first that is not as it was sent.
fn receive(mut stream: impl Read, blocks: u64) -> io::Result<()> {
    let mut found = vec![0; BLOCK_LEN];
    for number in 0..blocks {
        stream.read_exact(&mut found)?;
        if found != block(number) {
            return Err(io::Error::other(format!("block {number} of {blocks} is not what was sent")));
        }
    }
    Ok(())
}

fn both_ways(stream: &TcpStream, out: u64, back: u64) -> io::Result<()> {
    let mut stream = stream;
    thread::scope(|scope| {
        let sending = scope.spawn(|| send(stream, out));
        receive(stream, back)?;
        sending.join().map_err(|_| io::Error::other("a thread panicked"))?
    })?;
    stream.write_all(&[COMPLETE])?;
    let mut other = [0];
    stream.read_exact(&mut other)?;
    if other == [COMPLETE] { Ok(()) } else { Err(io::Error::other("the other side is not content")) }
}

/// Asks [`serve`] for a transfer of so many blocks of 64 KiB each way, both at the same time.
///
/// # Errors
/// When the connection breaks, or something else arrives than was sent.
pub fn transfer(mut stream: &TcpStream, out: u64, back: u64) -> io::Result<()> {
    stream.write_all(&out.to_le_bytes())?;
    stream.write_all(&back.to_le_bytes())?;
    both_ways(stream, out, back)
}

/// Does what [`transfer`] asks for.
///
/// # Errors
/// As there.
pub fn serve(mut stream: &TcpStream) -> io::Result<()> {
    let (mut out, mut back) = ([0; 8], [0; 8]);
    stream.read_exact(&mut out)?;
    stream.read_exact(&mut back)?;
    both_ways(stream, u64::from_le_bytes(back), u64::from_le_bytes(out))
}
