//! The one place where what networks say in types becomes messages for the agent (agent.proto).

use std::net::IpAddr;

use husk_network::{
    names::table::Names,
    nic::{Address, Interface, Neighbour, Route},
};
use husk_protocol::agent;

/// An interface that the guest is to have.
pub(super) fn interface(interface: &Interface) -> agent::Interface {
    agent::Interface {
        mac: interface.mac.to_string(),
        name: interface.name.clone(),
        mtu: interface.mtu,
        addresses: interface.addresses.iter().map(address).collect(),
        routes: interface.routes.iter().map(route).collect(),
        neighbours: interface.neighbours.iter().map(neighbour).collect(),
        no_arp: interface.no_arp,
        ..Default::default()
    }
}

fn address(address: &Address) -> agent::Address {
    agent::Address {
        prefix: address.ip.to_string(),
        peer: text(address.peer),
        scope: address.scope.0.into(),
        ..Default::default()
    }
}

fn route(route: &Route) -> agent::Route {
    agent::Route {
        destination: route.destination.to_string(),
        gateway: text(route.gateway),
        source: text(route.source),
        metric: route.metric,
        scope: route.scope.0.into(),
        kind: route.kind.number().into(),
        onlink: route.onlink,
        mtu: route.mtu.unwrap_or_default(),
        ..Default::default()
    }
}

fn neighbour(neighbour: &Neighbour) -> agent::Neighbour {
    let [a, b, c, d, e, f] = neighbour.mac;
    agent::Neighbour {
        ip: neighbour.ip.to_string(),
        mac: format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"),
        ..Default::default()
    }
}

/// An address as text; empty: there is none.
fn text(ip: Option<IpAddr>) -> String {
    ip.map(|ip| ip.to_string()).unwrap_or_default()
}

/// The names that the guest's resolver knows.
pub(super) fn names(names: &Names) -> agent::Names {
    let names = names.iter().map(|(name, addresses)| agent::Name {
        name: name.clone(),
        addresses: addresses.iter().map(ToString::to_string).collect(),
        ..Default::default()
    });
    agent::Names { names: names.collect(), ..Default::default() }
}

#[cfg(test)]
mod tests {
    use husk_network::nic::{RouteKind, Scope};

    use super::*;

    #[test]
    fn an_interface_is_told_in_the_agents_texts() {
        let mut given = Interface::new("02:00:00:00:0e:01".parse().unwrap(), "eth0");
        (given.mtu, given.no_arp) = (1430, true);
        let peer = Some("10.9.9.2".parse().unwrap());
        given.addresses = vec![
            Address { ip: "10.9.9.1/32".parse().unwrap(), peer, scope: Scope(253) },
            Address { ip: "fd09::2/64".parse().unwrap(), peer: None, scope: Scope::GLOBAL },
        ];
        let default = Route::default_by("fe80::1".parse().unwrap());
        given.routes = vec![
            Route { mtu: Some(1300), metric: 50, onlink: true, ..default },
            Route {
                destination: "10.50.0.0/16".parse().unwrap(),
                gateway: None,
                source: Some("10.9.9.1".parse().unwrap()),
                scope: Scope(253),
                kind: RouteKind::Prohibit,
                ..default
            },
        ];
        let mac = [3, 0xbf, 0, 0, 0, 1];
        given.neighbours = vec![Neighbour { ip: "10.9.0.77".parse().unwrap(), mac }];

        let told = interface(&given);
        assert_eq!((told.mac.as_str(), told.name.as_str()), ("02:00:00:00:0e:01", "eth0"));
        assert_eq!((told.mtu, told.no_arp), (1430, true));
        let addresses = told.addresses.iter().map(|a| (a.prefix.as_str(), a.peer.as_str(), a.scope));
        assert_eq!(addresses.collect::<Vec<_>>(), [("10.9.9.1/32", "10.9.9.2", 253), ("fd09::2/64", "", 0)]);
        let [by_default, prohibited] = &told.routes[..] else { panic!("{told:?}") };
        assert_eq!((by_default.destination.as_str(), by_default.gateway.as_str()), ("::/0", "fe80::1"));
        assert_eq!((by_default.metric, by_default.mtu, by_default.onlink), (50, 1300, true));
        assert_eq!((by_default.kind, by_default.scope, by_default.source.as_str()), (1, 0, ""));
        assert_eq!((prohibited.gateway.as_str(), prohibited.source.as_str()), ("", "10.9.9.1"));
        assert_eq!((prohibited.kind, prohibited.scope, prohibited.mtu), (8, 253, 0));
        assert_eq!(told.neighbours[0].ip, "10.9.0.77");
        assert_eq!(told.neighbours[0].mac, "03:bf:00:00:00:01");
    }

    #[test]
    fn names_keep_all_their_addresses() {
        let addresses = ["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        let given = Names::from([("web".into(), addresses.into())]);
        let told = names(&given);
        assert_eq!(told.names.len(), 1);
        assert_eq!(told.names[0].name, "web");
        assert_eq!(told.names[0].addresses, ["10.0.0.2", "fd00::2"]);
    }
}
