mod guest;
mod traffic;
mod watch;

use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;

use super::*;
use crate::{
    nic::{Address, Neighbour, Scope},
    testing::{Sandboxed, block_on, ip},
};
use guest::Pod;

fn is_link_local(address: &Address) -> bool {
    matches!(address.ip, IpNet::V6(ip) if ip.addr().is_unicast_link_local())
}

fn prefixes(interface: &Interface) -> Vec<String> {
    let addresses = interface.addresses.iter().filter(|address| !is_link_local(address));
    addresses.map(|address| address.ip.to_string()).collect()
}

#[test]
fn everything_in_the_namespace_is_described() {
    let Some(_own) = Sandboxed::enter() else { return };
    let pod = Pod::new();
    pod.ip("link set eth0 address 02:00:00:00:0e:01 mtu 1430");
    pod.ip("addr add 10.9.0.2/24 dev eth0");
    pod.ip("addr add 10.9.9.1 peer 10.9.9.2/32 dev eth0 scope link");
    pod.ip("-6 addr add fd09::2/64 dev eth0 nodad");
    pod.ip("route add 169.254.1.1 dev eth0 scope link");
    pod.ip("route add default via 169.254.1.1 dev eth0 metric 50 mtu 1300 src 10.9.0.2");
    pod.ip("route add 10.50.0.0/16 via 172.30.0.1 dev eth0 onlink");
    pod.ip("route add 10.80.0.0/16 via inet6 fe80::9 dev eth0");
    pod.ip("route add blackhole 192.168.99.0/24");
    pod.ip("route add 10.60.0.0/16 dev eth0 table 77");
    pod.ip("-6 route add default via fe80::1 dev eth0");
    pod.ip("-6 route add unreachable fd77::/16");
    pod.ip("neigh add 10.9.0.77 lladdr 02:00:00:00:00:77 dev eth0 nud permanent");
    pod.ip("link add idle type veth peer name idle2");
    pod.ip("link add br0 type bridge");
    pod.ip("link set idle master br0 up");
    let sysctl = |path: &str, value: &str| {
        pod.netns.run(|| std::fs::write(format!("/proc/sys/net/{path}"), value).unwrap()).unwrap();
    };

    block_on(async {
        let (takeover, nics) = Takeover::begin(pod.open()).unwrap();
        let before = takeover.sysctls().unwrap();
        assert_eq!(nics.len(), 1, "down, and a bridge's port, are not for the guest: {nics:?}");
        let interface = &nics[0].interface;
        assert_eq!(
            (interface.mac.to_string().as_str(), interface.name.as_str()),
            ("02:00:00:00:0e:01", "eth0")
        );
        assert_eq!((interface.mtu, interface.no_arp), (1430, false));
        assert_eq!(prefixes(interface), ["10.9.9.1/32", "10.9.0.2/24", "fd09::2/64"]);
        let first = interface.addresses[0];
        assert_eq!((first.peer, first.scope), (Some("10.9.9.2".parse().unwrap()), Scope(253)));
        let neighbour = Neighbour { ip: "10.9.0.77".parse().unwrap(), mac: [2, 0, 0, 0, 0, 0x77] };
        assert_eq!(interface.neighbours, [neighbour]);

        let routes: Vec<_> = interface
            .routes
            .iter()
            .map(|r| {
                let text = |ip: Option<IpAddr>| ip.map(|ip| ip.to_string()).unwrap_or_default();
                let (gateway, source, mtu) = (text(r.gateway), text(r.source), r.mtu.unwrap_or_default());
                let (metric, kind, onlink) = (r.metric, r.kind.number(), r.onlink);
                let to = r.destination;
                format!(
                    "{to} via {gateway} src {source} metric {metric} mtu {mtu} kind {kind} onlink {onlink}"
                )
            })
            .collect();
        assert_eq!(
            routes,
            [
                "169.254.1.1/32 via  src  metric 0 mtu 0 kind 1 onlink false",
                "192.168.99.0/24 via  src  metric 0 mtu 0 kind 6 onlink false",
                "fd77::/16 via  src  metric 1024 mtu 0 kind 7 onlink false",
                "10.50.0.0/16 via 172.30.0.1 src  metric 0 mtu 0 kind 1 onlink true",
                "10.80.0.0/16 via fe80::9 src  metric 0 mtu 0 kind 1 onlink false",
                "0.0.0.0/0 via 169.254.1.1 src 10.9.0.2 metric 50 mtu 1300 kind 1 onlink false",
                "::/0 via fe80::1 src  metric 1024 mtu 0 kind 1 onlink false",
            ]
        );

        for name in
            ["net.ipv4.ip_unprivileged_port_start", "net.ipv4.conf.eth0.arp_ignore", "net.ipv4.tcp_retries2"]
        {
            assert!(!before.contains_key(name), "{before:?}");
        }
        sysctl("ipv4/ip_unprivileged_port_start", "80");
        sysctl("ipv4/conf/eth0/arp_ignore", "1");
        let after = takeover.sysctls().unwrap();
        assert_eq!(after["net.ipv4.ip_unprivileged_port_start"], "80");
        assert_eq!(after["net.ipv4.conf.eth0.arp_ignore"], "1");
        assert_eq!(after.len(), before.len() + 2);
        takeover.release().await.unwrap();
    });
}

/// As the `ptp` plugin leaves it: the network of the address is not on the link.
#[test]
fn an_address_without_its_route_goes_without_its_prefix() {
    let Some(_own) = Sandboxed::enter() else { return };
    let pod = Pod::new();
    pod.ip("addr add 10.9.0.2/24 dev eth0");
    pod.ip("route del 10.9.0.0/24 dev eth0");
    pod.ip("route add 10.9.0.1 dev eth0 scope link");
    pod.ip("route add 10.9.0.0/24 via 10.9.0.1");
    block_on(async {
        let (_takeover, nics) = Takeover::begin(pod.open()).unwrap();
        assert_eq!(prefixes(&nics[0].interface), ["10.9.0.2/32"]);
        let gateway: IpAddr = "10.9.0.1".parse().unwrap();
        let routes: Vec<_> =
            nics[0].interface.routes.iter().map(|r| (r.destination.to_string(), r.gateway)).collect();
        assert_eq!(routes, [("10.9.0.1/32".to_owned(), None), ("10.9.0.0/24".to_owned(), Some(gateway))]);
    });
}

#[test]
fn a_tap_that_nobody_holds_is_given_as_it_is() {
    let Some(_own) = Sandboxed::enter() else { return };
    let pod = Pod::new();
    pod.ip("tuntap add tap7 mode tap");
    pod.ip("link set tap7 up");
    block_on(async {
        let (takeover, nics) = Takeover::begin(pod.open()).unwrap();
        let names: Vec<_> = nics.iter().map(|nic| nic.interface.name.as_str()).collect();
        assert_eq!(names, ["eth0", "tap7"]);
        let links = pod.ip("-o link");
        assert!(links.contains("hkt0") && !links.contains("hkt1"), "one tap of ours, beside eth0: {links}");
        let tap7 = pod.ip("-o link show tap7");
        assert!(tap7.contains("LOWER_UP"), "held: {tap7}");
        takeover.release().await.unwrap();
    });
}

#[test]
fn a_namespace_without_interfaces_is_no_error() {
    let Some(_own) = Sandboxed::enter() else { return };
    let pod = Pod::new();
    pod.ip("link del eth0");
    block_on(async {
        let (takeover, nics) = Takeover::begin(pod.open()).unwrap();
        assert!(nics.is_empty());
        takeover.release().await.unwrap();
    });
}

proptest! {
    #[test]
    fn any_message_is_read_without_harm(message in proptest::collection::vec(any::<u8>(), 0..96)) {
        let _ = (Link::read(&message), address::Found::read(&message), address::neighbour(&message));
        // Of the main table, with one attribute of each kind of gateway.
        let route = [2, 16, 0, 0, libc::RT_TABLE_MAIN, 4, 0, libc::RTN_UNICAST, 0, 0, 0, 0].to_vec();
        for kind in [libc::RTA_MULTIPATH, libc::RTA_VIA] {
            let length = u16::try_from(4 + message.len() / 4 * 4).unwrap();
            let mut route = route.clone();
            route.extend([length.to_ne_bytes(), kind.to_ne_bytes()].concat());
            route.extend(&message[..usize::from(length) - 4]);
            let _ = route::Found::read(&route);
        }
        let _ = route::Found::read(&message);
    }

    #[test]
    fn the_first_of_several_ways_is_the_guests(index: u32, gateway: [u8; 4], dead_end: [u8; 4]) {
        let hop = |index: u32, gateway: [u8; 4]| {
            let mut hop = [16, 0, 4, 0].to_vec();
            hop.extend(index.to_ne_bytes());
            hop.extend([8_u16.to_ne_bytes(), libc::RTA_GATEWAY.to_ne_bytes()].concat());
            hop.extend(gateway);
            hop
        };
        let mut message = [2, 0, 0, 0, libc::RT_TABLE_MAIN, 4, 0, libc::RTN_UNICAST, 0, 0, 0, 0].to_vec();
        message.extend([36_u16.to_ne_bytes(), libc::RTA_MULTIPATH.to_ne_bytes()].concat());
        message.extend([hop(index, gateway), hop(7, dead_end)].concat());
        let found = route::Found::read(&message).unwrap();
        let way = (found.index, found.route.gateway, found.route.onlink);
        prop_assert_eq!(way, (Some(index), Some(IpAddr::from(gateway)), true));
    }
}
