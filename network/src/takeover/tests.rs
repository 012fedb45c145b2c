mod guest;
mod traffic;
mod watch;

use super::*;
use crate::testing::{Sandboxed, block_on, ip};
use guest::Pod;

fn prefixes(interface: &Interface) -> Vec<&str> {
    interface
        .addresses
        .iter()
        .map(|address| address.prefix.as_str())
        .filter(|prefix| !prefix.starts_with("fe80"))
        .collect()
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
        let (takeover, nics) = Takeover::begin(pod.open()).await.unwrap();
        let before = takeover.sysctls().unwrap();
        assert_eq!(nics.len(), 1, "down, and a bridge's port, are not for the guest: {nics:?}");
        let interface = &nics[0].interface;
        assert_eq!((interface.mac.as_str(), interface.name.as_str()), ("02:00:00:00:0e:01", "eth0"));
        assert_eq!((interface.mtu, interface.no_arp), (1430, false));
        assert_eq!(prefixes(interface), ["10.9.9.1/32", "10.9.0.2/24", "fd09::2/64"]);
        assert_eq!((interface.addresses[0].peer.as_str(), interface.addresses[0].scope), ("10.9.9.2", 253));
        assert_eq!((interface.neighbours[0].ip.as_str(), interface.neighbours.len()), ("10.9.0.77", 1));
        assert_eq!(interface.neighbours[0].mac, "02:00:00:00:00:77");

        let routes: Vec<_> = interface
            .routes
            .iter()
            .map(|r| {
                format!(
                    "{} via {} src {} metric {} mtu {} kind {} onlink {}",
                    r.destination, r.gateway, r.source, r.metric, r.mtu, r.kind, r.onlink
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
        let (_takeover, nics) = Takeover::begin(pod.open()).await.unwrap();
        assert_eq!(prefixes(&nics[0].interface), ["10.9.0.2/32"]);
        let routes: Vec<_> =
            nics[0].interface.routes.iter().map(|r| (r.destination.as_str(), r.gateway.as_str())).collect();
        assert_eq!(routes, [("10.9.0.1/32", ""), ("10.9.0.0/24", "10.9.0.1")]);
    });
}

#[test]
fn a_tap_that_nobody_holds_is_given_as_it_is() {
    let Some(_own) = Sandboxed::enter() else { return };
    let pod = Pod::new();
    pod.ip("tuntap add tap7 mode tap");
    pod.ip("link set tap7 up");
    block_on(async {
        let (takeover, nics) = Takeover::begin(pod.open()).await.unwrap();
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
        let (takeover, nics) = Takeover::begin(pod.open()).await.unwrap();
        assert!(nics.is_empty());
        takeover.release().await.unwrap();
    });
}
