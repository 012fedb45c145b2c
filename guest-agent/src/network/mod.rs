//! The guest's network, as the host describes it (agent.proto, `Network`), by rtnetlink. Everything goes out in a few
//! calls, and nothing is waited for: not for a carrier, not for a check whether an address is taken.

mod messages;
mod plan;
mod requests;
mod sysctl;

use husk_base::netlink::{Failed, Socket};
use husk_protocol::agent::{self, Reason};

pub(crate) use self::sysctl::apply_of_container as apply_container_settings;
use self::{
    messages::Link,
    plan::Interface,
    requests::{Requests, What, broken, unusable},
};
use crate::failure::Failure;

/// Brings the interfaces that are described to that state, and leaves others alone. What an interface has and what is
/// not described goes, except for link-local IPv6 addresses and what the kernel itself made.
///
/// Everything is checked before anything is changed. When the kernel refuses a part, the rest is done all the same, and
/// the first refusal is the error. Called again with the same description, it changes nothing.
pub(crate) fn apply(network: &agent::Network) -> Result<(), Failure> {
    let interfaces = plan::interfaces(network)?;
    let settings = sysctl::checked(&network.sysctls)?;
    if interfaces.is_empty() {
        return sysctl::apply(&settings);
    }
    let socket = Socket::route().map_err(|error| unusable(&error))?;
    let mut links = Vec::new();
    let listed = messages::list_links(&socket, |entry| links.extend(messages::read_link(entry)));
    listed.map_err(|failed| broken(&failed))?;
    let found = interfaces.iter().map(|wanted| find(&links, wanted)).collect::<Result<Vec<_>, _>>()?;
    let pairs: Vec<(&Interface, &Link)> = interfaces.iter().zip(found).collect();
    renames(&pairs, &links)?.send(&socket)?;
    for interface in &interfaces {
        sysctl::prepare(&interface.name)?;
    }
    sysctl::apply(&settings)?;
    let mut requests = Requests::default();
    // An interface that was never up has nothing that could be too much.
    if pairs.iter().any(|(_, link)| link.up) {
        remove_others(&socket, &pairs, &mut requests).map_err(|failed| broken(&failed))?;
    }
    for (interface, link) in &pairs {
        configure(interface, link, &mut requests);
    }
    requests.send(&socket)
}

/// The device with the described address. Others may have taken its address, as a bridge does of its ports: the one that
/// has its name already goes first.
fn find<'a>(links: &'a [Link], wanted: &Interface) -> Result<&'a Link, Failure> {
    let mut same = links.iter().filter(|link| link.mac == Some(wanted.mac));
    let first = same.clone().next();
    same.find(|link| link.name == wanted.name).or(first).ok_or_else(|| {
        let message = format!("no network device has the address {} (for {})", wanted.mac, wanted.name);
        Failure::new(Reason::NO_SUCH_DEVICE, message)
    })
}

/// Gives every device its name. Devices whose names others of them want step aside first.
fn renames<'a>(pairs: &[(&'a Interface, &Link)], links: &[Link]) -> Result<Requests<'a>, Failure> {
    let mut requests = Requests::default();
    let misnamed = || pairs.iter().filter(|(interface, link)| interface.name != link.name);
    for (interface, link) in misnamed() {
        if pairs.iter().any(|(other, _)| other.name == link.name) {
            let aside = format!("husk.{}", link.index);
            messages::rename(requests.next(What::Name(interface)), link.index, &aside);
        }
        let holder = links.iter().find(|other| other.name == interface.name);
        if holder.is_some_and(|holder| pairs.iter().all(|(_, link)| link.index != holder.index)) {
            let message = format!("another network device is called {:?} already", interface.name);
            return Err(Failure::new(Reason::ALREADY_EXISTS, message));
        }
    }
    for (interface, link) in misnamed() {
        messages::rename(requests.next(What::Name(interface)), link.index, &interface.name);
    }
    Ok(requests)
}

/// Asks for the removal of what is not described.
fn remove_others(
    socket: &Socket,
    pairs: &[(&Interface, &Link)],
    requests: &mut Requests<'_>,
) -> Result<(), Failed> {
    let wanted = |index| pairs.iter().find(|(_, link)| link.index == index).map(|(interface, _)| *interface);
    messages::list_routes(socket, |entry| {
        let Some((index, route)) = messages::read_route(entry) else { return };
        if wanted(index).is_some_and(|interface| !interface.routes.contains(&route)) {
            messages::remove(requests.next(What::Removal), libc::RTM_DELROUTE, entry);
        }
    })?;
    messages::list_addresses(socket, |entry| {
        let Some((index, address)) = messages::read_address(entry) else { return };
        let link_local = matches!(address.ip, std::net::IpAddr::V6(ip) if ip.is_unicast_link_local());
        if wanted(index).is_some_and(|interface| !link_local && !interface.addresses.contains(&address)) {
            messages::remove(requests.next(What::Removal), libc::RTM_DELADDR, entry);
        }
    })?;
    messages::list_neighbours(socket, |entry| {
        let Some((index, neighbour)) = messages::read_neighbour(entry) else { return };
        let known = |interface: &Interface| interface.neighbours.iter().any(|known| known.ip == neighbour.ip);
        if wanted(index).is_some_and(|interface| !known(interface)) {
            messages::remove(requests.next(What::Removal), libc::RTM_DELNEIGH, entry);
        }
    })
}

/// Asks for everything that is described.
fn configure<'a>(interface: &'a Interface, link: &Link, requests: &mut Requests<'a>) {
    let (name, index) = (interface.name.as_str(), link.index);
    let mtu = interface.mtu.filter(|mtu| *mtu != link.mtu);
    messages::bring_up(requests.next(What::State(interface)), index, mtu, interface.no_arp);
    for address in &interface.addresses {
        messages::add_address(requests.next(What::Address(name, address)), index, address);
    }
    for route in &interface.routes {
        messages::add_route(requests.next(What::Route(name, route)), index, route);
    }
    for neighbour in &interface.neighbours {
        messages::set_neighbour(requests.next(What::Neighbour(name, neighbour)), index, neighbour);
    }
}
