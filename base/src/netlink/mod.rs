//! Netlink, as far as links, routes and rules need it: several messages in one datagram, which the kernel has
//! dealt with when sending it returns. So nothing here waits, except for the kernel's own work.
//!
//! The formats are those of `netlink(7)` and `linux/netlink.h`.

mod address;
mod message;
mod parse;
mod socket;

pub use address::{family, octets, read_ip};
pub use message::{Attributes, Request};
pub use parse::{attributes, find, read_text, read_u32};
pub use socket::{Failed, Socket, requests_sent};

/// Type of a route or link message's answer that reports success or failure.
const NLMSG_ERROR: u16 = 2;
/// Type of the message that ends a dump.
const NLMSG_DONE: u16 = 3;
/// Length of a message's header: length, type, flags, sequence number, port.
const HEADER: usize = 16;

const fn align(len: usize) -> usize {
    len.saturating_add(3) & !3
}
