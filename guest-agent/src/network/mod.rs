//! The guest's network, as the host describes it (agent.proto, `Network`), by rtnetlink. Everything goes out in a few
//! calls, and nothing is waited for: not for a carrier, not for a check whether an address is taken.

mod messages;
mod netlink;
mod plan;
mod sysctl;

use std::{fmt, io};

use husk_protocol::agent::{self, Reason};
use nix::errno::Errno;

pub(crate) use self::sysctl::apply_of_container as apply_container_settings;
use self::{
    messages::Link,
    netlink::{Message, Refusal, Socket},
    plan::{Address, Interface, Neighbour, Route},
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
    let mut socket = Socket::open().map_err(failed)?;
    let mut links = Vec::new();
    socket.dump(&messages::list_links(), |entry| links.extend(messages::read_link(entry))).map_err(failed)?;
    let found = interfaces.iter().map(|wanted| find(&links, wanted)).collect::<Result<Vec<_>, _>>()?;
    let pairs: Vec<(&Interface, &Link)> = interfaces.iter().zip(found).collect();
    send(&mut socket, &renames(&pairs, &links)?)?;
    for interface in &interfaces {
        sysctl::prepare(&interface.name)?;
    }
    sysctl::apply(&settings)?;
    let mut requests = Vec::new();
    // An interface that was never up has nothing that could be too much.
    if pairs.iter().any(|(_, link)| link.up) {
        remove_others(&mut socket, &pairs, &mut requests).map_err(failed)?;
    }
    for (interface, link) in &pairs {
        configure(interface, link, &mut requests);
    }
    send(&mut socket, &requests)
}

fn failed(error: io::Error) -> Failure {
    Failure::io("cannot speak to the kernel about the network", &error)
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
fn renames<'a>(pairs: &[(&'a Interface, &'a Link)], links: &'a [Link]) -> Result<Vec<Request<'a>>, Failure> {
    let mut requests = Vec::new();
    let mut misnamed = Vec::new();
    for (interface, link) in pairs.iter().filter(|(interface, link)| interface.name != link.name) {
        let request =
            |name: &str| Request { message: messages::rename(link.index, name), what: What::Name(interface) };
        if pairs.iter().any(|(other, _)| other.name == link.name) {
            requests.push(request(&format!("husk.{}", link.index)));
        }
        let holder = links.iter().find(|other| other.name == interface.name);
        if holder.is_some_and(|holder| pairs.iter().all(|(_, link)| link.index != holder.index)) {
            let message = format!("another network device is called {:?} already", interface.name);
            return Err(Failure::new(Reason::ALREADY_EXISTS, message));
        }
        misnamed.push(request(&interface.name));
    }
    requests.append(&mut misnamed);
    Ok(requests)
}

/// Asks for the removal of what is not described.
fn remove_others(
    socket: &mut Socket,
    pairs: &[(&Interface, &Link)],
    requests: &mut Vec<Request<'_>>,
) -> io::Result<()> {
    let wanted = |index| pairs.iter().find(|(_, link)| link.index == index).map(|(interface, _)| *interface);
    socket.dump(&messages::list_routes(), |entry| {
        let Some((index, route)) = messages::read_route(entry) else { return };
        if wanted(index).is_some_and(|interface| !interface.routes.contains(&route)) {
            requests.push(Request::removal(libc::RTM_DELROUTE, entry));
        }
    })?;
    socket.dump(&messages::list_addresses(), |entry| {
        let Some((index, address)) = messages::read_address(entry) else { return };
        let link_local = matches!(address.ip, std::net::IpAddr::V6(ip) if ip.is_unicast_link_local());
        if wanted(index).is_some_and(|interface| !link_local && !interface.addresses.contains(&address)) {
            requests.push(Request::removal(libc::RTM_DELADDR, entry));
        }
    })?;
    socket.dump(&messages::list_neighbours(), |entry| {
        let Some((index, neighbour)) = messages::read_neighbour(entry) else { return };
        let known = |interface: &Interface| interface.neighbours.iter().any(|known| known.ip == neighbour.ip);
        if wanted(index).is_some_and(|interface| !known(interface)) {
            requests.push(Request::removal(libc::RTM_DELNEIGH, entry));
        }
    })
}

/// Asks for everything that is described.
fn configure<'a>(interface: &'a Interface, link: &Link, requests: &mut Vec<Request<'a>>) {
    let (name, index) = (interface.name.as_str(), link.index);
    let mtu = interface.mtu.filter(|mtu| *mtu != link.mtu);
    let message = messages::bring_up(index, mtu, interface.no_arp);
    requests.push(Request { message, what: What::State(interface) });
    requests.extend(interface.addresses.iter().map(|address| Request {
        message: messages::add_address(index, address),
        what: What::Address(name, address),
    }));
    requests.extend(
        interface.routes.iter().map(|route| Request {
            message: messages::add_route(index, route),
            what: What::Route(name, route),
        }),
    );
    requests.extend(interface.neighbours.iter().map(|neighbour| Request {
        message: messages::set_neighbour(index, neighbour),
        what: What::Neighbour(name, neighbour),
    }));
}

/// A request to the kernel, and what it is about.
struct Request<'a> {
    message: Message,
    what: What<'a>,
}

impl Request<'_> {
    fn removal(kind: u16, entry: &[u8]) -> Self {
        Self { message: messages::remove(kind, entry), what: What::Removal }
    }
}

enum What<'a> {
    Name(&'a Interface),
    State(&'a Interface),
    Address(&'a str, &'a Address),
    Route(&'a str, &'a Route),
    Neighbour(&'a str, &'a Neighbour),
    Removal,
}

impl What<'_> {
    /// Whether a refusal says that there is nothing to do: the kernel adds no route twice, and what goes with another
    /// thing (a route with its source address) can't be removed after it.
    fn is_done(&self, errno: Errno) -> bool {
        match self {
            Self::Route(..) => errno == Errno::EEXIST,
            Self::Removal => {
                matches!(errno, Errno::ESRCH | Errno::EADDRNOTAVAIL | Errno::ENOENT | Errno::ENXIO)
            }
            _ => false,
        }
    }
}

/// Completes the sentence "cannot ...".
impl fmt::Display for What<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(interface) => write!(f, "call the device {} {}", interface.mac, interface.name),
            Self::State(Interface { name, mtu: Some(mtu), .. }) => {
                write!(f, "bring {name} up with an MTU of {mtu}")
            }
            Self::State(Interface { name, .. }) => write!(f, "bring {name} up"),
            Self::Address(name, address) => write!(f, "add {}/{} to {name}", address.ip, address.length),
            Self::Route(name, route) => {
                write!(f, "add a route to {}/{}", route.destination, route.length)?;
                if let Some(gateway) = route.gateway {
                    write!(f, " by {gateway}")?;
                }
                write!(f, " on {name}")
            }
            Self::Neighbour(name, neighbour) => write!(f, "set the neighbour {} on {name}", neighbour.ip),
            Self::Removal => f.write_str("remove what is not described"),
        }
    }
}

fn send(socket: &mut Socket, requests: &[Request<'_>]) -> Result<(), Failure> {
    let mut first = Ok(());
    let refused = |at: usize, refusal: Refusal| {
        let what = &requests[at].what;
        if first.is_ok() && !what.is_done(refusal.errno) {
            first = Err(refusal_failure(what, &refusal));
        }
    };
    socket.request(requests.iter().map(|request| &request.message), refused).map_err(failed)?;
    first
}

fn refusal_failure(what: &What<'_>, refusal: &Refusal) -> Failure {
    // What follows from a wrong description. The rest is the machine's fault.
    let reason = match refusal.errno {
        Errno::EINVAL | Errno::ERANGE | Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EADDRNOTAVAIL => {
            Reason::INVALID_REQUEST
        }
        Errno::EEXIST => Reason::ALREADY_EXISTS,
        _ => Reason::UNSPECIFIED,
    };
    let error = io::Error::from(refusal.errno);
    let text = match refusal.text.as_str() {
        "" => format!("cannot {what}: {error}"),
        text => format!("cannot {what}: {error} ({text})"),
    };
    Failure::new(reason, text)
}
