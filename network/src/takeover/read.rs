//! Reads a namespace: its interfaces, and what the guest is to make of each.

use husk_base::netlink::Socket;

use super::{
    Error, Result,
    address::{self, neighbour},
    link::{self, Link},
    route,
};
use crate::nic::{Interface, Neighbour};

/// More of anything in one namespace than this is an error, not a network.
const MAX_MESSAGES: usize = 16_384;
/// Of no family in particular: `struct ifaddrmsg` and `struct ndmsg`.
const ANY_ADDRESS: [u8; 8] = [0; 8];
const ANY_NEIGHBOUR: [u8; 12] = [0; 12];

/// An interface, with everything that belongs to it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    pub(super) link: Link,
    pub(super) interface: Interface,
}

/// All interfaces of a namespace that are for the guest, in the order in which they were made; `own` tells
/// which are our taps.
///
/// # Errors
/// What the kernel said, or that there is no end to it.
pub(super) fn interfaces(socket: &Socket, own: impl Fn(u32) -> bool) -> Result<Vec<Found>> {
    let any_link = [0; link::HEADER];
    let mut links = list(socket, "read interfaces", libc::RTM_GETLINK, &any_link, Link::read)?;
    links.retain(|link| !own(link.index));
    links.sort_by_key(|link| link.index);
    let addresses = list(socket, "read addresses", libc::RTM_GETADDR, &ANY_ADDRESS, address::Found::read)?;
    let any_route = [0; route::HEADER];
    let mut routes = list(socket, "read routes", libc::RTM_GETROUTE, &any_route, route::Found::read)?;
    routes.sort_by_key(route::Found::order);
    let neighbours = list(socket, "read neighbours", libc::RTM_GETNEIGH, &ANY_NEIGHBOUR, neighbour)?;
    Ok(describe(links, &addresses, &routes, &neighbours))
}

/// Reads what the kernel has of a kind.
fn list<T>(
    socket: &Socket,
    what: &'static str,
    kind: u16,
    header: &[u8],
    read: impl Fn(&[u8]) -> Option<T>,
) -> Result<Vec<T>> {
    let (mut found, mut count) = (Vec::new(), 0);
    socket.dump(what, kind, header, |message| {
        count += 1;
        if count <= MAX_MESSAGES {
            found.extend(read(message));
        }
    })?;
    if count > MAX_MESSAGES { Err(Error::TooMany { what, limit: MAX_MESSAGES }) } else { Ok(found) }
}

/// Puts together what belongs together.
fn describe(
    links: Vec<Link>,
    addresses: &[address::Found],
    routes: &[route::Found],
    neighbours: &[(u32, Neighbour)],
) -> Vec<Found> {
    let first = links.first().map(|link| link.index);
    let describe_one = |link: Link| {
        let at = |index: u32| index == link.index;
        let on_link = |found: &address::Found| {
            let network = found.address.ip.trunc();
            routes.iter().any(|found| {
                found.from_kernel && found.index.is_some_and(at) && found.route.destination == network
            })
        };
        let interface = Interface {
            mac: link.mac,
            name: link.name.clone(),
            mtu: link.mtu,
            addresses: addresses
                .iter()
                .filter(|found| at(found.index))
                .map(|found| found.for_guest(on_link(found)))
                .collect(),
            routes: routes
                .iter()
                // What leads nowhere is added once. What the guest's kernel makes itself is not sent.
                .filter(|found| found.index.or(first).is_some_and(at) && !found.from_kernel)
                .map(|found| found.route)
                .collect(),
            neighbours: neighbours.iter().filter(|(index, _)| at(*index)).map(|(_, entry)| *entry).collect(),
            no_arp: link.no_arp,
        };
        Found { link, interface }
    };
    links.into_iter().map(describe_one).collect()
}
