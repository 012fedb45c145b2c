//! Reads a namespace: its interfaces, and what the guest is to make of each.

use husk_protocol::agent::{Interface, Neighbour};
use rtnetlink::{
    Handle,
    packet_route::{AddressFamily, address::AddressMessage, route::RouteMessage},
};

use super::{Result, address, link::Link, netlink::collect, route};

/// An interface, with everything that belongs to it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    pub(super) link: Link,
    pub(super) interface: Interface,
}

/// All interfaces of a namespace that are for the guest, in the order in which they were made; `own` tells which
/// are our taps.
///
/// # Errors
/// What the kernel said.
pub(super) async fn interfaces(handle: &Handle, own: impl Fn(u32) -> bool) -> Result<Vec<Found>> {
    // One after the other: a netlink socket has one dump at a time.
    let links = collect("read interfaces", handle.link().get().execute()).await?;
    let addresses = collect("read addresses", handle.address().get().execute()).await?;
    let mut routes = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        routes.extend(collect("read routes", handle.route().get(of_family(family)).execute()).await?);
    }
    let neighbours = collect("read neighbours", handle.neighbours().get().execute()).await?;

    let mut links: Vec<Link> = links.iter().filter_map(Link::read).filter(|link| !own(link.index)).collect();
    links.sort_by_key(|link| link.index);
    let neighbours: Vec<_> = neighbours.iter().filter_map(address::neighbour).collect();
    Ok(describe(links, &addresses, &routes, &neighbours))
}

fn of_family(family: AddressFamily) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message
}

/// Puts together what belongs together.
fn describe(
    links: Vec<Link>,
    addresses: &[AddressMessage],
    routes: &[RouteMessage],
    neighbours: &[(u32, Neighbour)],
) -> Vec<Found> {
    let addresses: Vec<_> = addresses.iter().filter_map(address::Found::read).collect();
    let mut routes: Vec<_> = routes.iter().filter_map(route::Found::read).collect();
    routes.sort_by_key(route::Found::order);
    let first = links.first().map(|link| link.index);
    let describe_one = |link: Link| {
        let at = |index: u32| index == link.index;
        let on_link = |address: &address::Found| {
            routes.iter().any(|route| {
                route.from_kernel && route.index.is_some_and(at) && route.destination == address.ip.trunc()
            })
        };
        let interface = Interface {
            mac: link.mac.clone(),
            name: link.name.clone(),
            mtu: link.mtu,
            addresses: addresses
                .iter()
                .filter(|address| at(address.index))
                .map(|address| address.to_agent(on_link(address)))
                .collect(),
            routes: routes
                .iter()
                // What leads nowhere is added once. What the guest's kernel makes itself is not sent.
                .filter(|route| route.index.or(first).is_some_and(at) && !route.from_kernel)
                .map(route::Found::to_agent)
                .collect(),
            neighbours: neighbours
                .iter()
                .filter(|(index, _)| at(*index))
                .map(|(_, entry)| entry.clone())
                .collect(),
            no_arp: link.no_arp,
            ..Interface::default()
        };
        Found { link, interface }
    };
    links.into_iter().map(describe_one).collect()
}
