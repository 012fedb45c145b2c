//! tc redirection between two interfaces: what comes in at one goes out at the other, before the namespace's
//! own stack sees it, so that stack neither answers ARP nor TCP for addresses that are now the guest's.
//!
//! The filter is `u32` with a mask of nothing, rather than `matchall`: it does the same, and more kernels
//! have it.

use husk_base::netlink::{Failed, Request, Socket};

use super::filter::{self, Action, Key};

/// Before any network protocol: ETH_P_ALL.
const EVERY_PROTOCOL: u16 = 3;

/// Redirects both ways.
///
/// # Errors
/// What the kernel said; `ENODEV` when one of the two is gone.
pub(super) fn connect(socket: &Socket, one: u32, other: u32) -> Result<(), Failed> {
    redirect(socket, one, other)?;
    redirect(socket, other, one)
}

/// Ends the redirection from an interface, which may be gone, or never have had one.
///
/// # Errors
/// What the kernel said.
pub(super) fn disconnect(socket: &Socket, index: u32) -> Result<(), Failed> {
    let mut request = Request::default();
    filter::remove_ingress(&mut request, index);
    request.answer();
    match socket.send(&request) {
        Err(failed) if matches!(failed.errno(), libc::ENODEV | libc::ENOENT | libc::EINVAL) => Ok(()),
        result => result,
    }
}

fn redirect(socket: &Socket, from: u32, to: u32) -> Result<(), Failed> {
    let mut request = Request::default();
    // A killed husk may have left one, whose filter points to a tap that is gone.
    filter::remove_ingress(&mut request, from);
    filter::add_ingress(&mut request, from);
    filter::add(&mut request, from, 0, EVERY_PROTOCOL, &[Key::default()], Some(Action::Redirect(to)));
    request.answer();
    match socket.send_all(&request)?.into_iter().find(|failed| failed.at > 0) {
        Some(failed) => Err(failed),
        None => Ok(()),
    }
}
