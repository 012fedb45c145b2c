//! What the rules are, in the words of the real nft.

use std::net::Ipv4Addr;

use super::{
    attach::{assert_clean, block_on},
    everybody,
    namespace::{Namespace, nft, shell},
    networks, port, request,
};
use crate::{AttachRequest, NewNetwork, firewall, publish::PortProtocol};

/// One line per rule, without indentation; numbers of networks and the like replaced.
fn listing(replace: &[(&str, &str)]) -> String {
    let mut rules = nft("list ruleset");
    for (from, to) in replace {
        rules = rules.replace(from, to);
    }
    rules.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_rules_read_as_they_are_meant() {
    let Some(host) = Namespace::new() else { return };
    host.run(|| {
        let (_dir, networks) = networks();
        let new = NewNetwork {
            name: "net".into(),
            subnet: Some("10.9.0.0/24".parse().unwrap()),
            subnet6: Some("fd00:9::/64".parse().unwrap()),
            ..NewNetwork::default()
        };
        let network = networks.create(&new).unwrap();
        let ports = vec![
            port(None, 8080, 80, PortProtocol::Tcp),
            port(Some(Ipv4Addr::new(192, 0, 2, 1)), 53, 5353, PortProtocol::Udp),
            port(Some(Ipv4Addr::LOCALHOST), 8081, 81, PortProtocol::Tcp),
        ];
        let mac = Some("02:00:00:00:00:07".parse().unwrap());
        let request = AttachRequest { ports, mac, ..request("net", 1) };
        let attached = networks.attach(&request, &everybody).unwrap();
        let gateway = network.gateway_mac();
        let rules = listing(&[
            (&network.bridge(), "BRIDGE"),
            (&attached.attachment.lease.tap, "TAP"),
            (&gateway.to_string(), "GATEWAY"),
            (&gateway.link_local().to_string(), "LOCAL"),
        ]);
        assert_eq!(rules, include_str!("rules.nft").trim_end());
        block_on(attached.attachment.detach()).unwrap();
        assert_clean();
    });
}

#[test]
fn an_internal_networks_rules_read_as_they_are_meant() {
    let Some(host) = Namespace::new() else { return };
    host.run(|| {
        let (_dir, networks) = networks();
        let new = NewNetwork {
            name: "net".into(),
            subnet: Some("10.9.0.0/24".parse().unwrap()),
            subnet6: Some("fd00:9::/64".parse().unwrap()),
            internal: true,
            ..NewNetwork::default()
        };
        let network = networks.create(&new).unwrap();
        let attached = networks.attach(&request("net", 1), &everybody).unwrap();
        let rules = listing(&[(&network.bridge(), "BRIDGE")]);
        let inet = rules.split("table netdev").next().unwrap();
        assert_eq!(inet.trim_end(), include_str!("internal.nft").trim_end());
        assert!(attached.nic.interface.routes.is_empty());
        assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap().trim(), "0");
        block_on(attached.attachment.detach()).unwrap();
        assert_clean();
    });
}

#[test]
fn thousands_of_ports_can_be_published() {
    let Some(host) = Namespace::new() else { return };
    host.run(|| {
        let (_dir, networks) = networks();
        let ports = (1..=20_000).map(|number| port(None, number, number, PortProtocol::Tcp)).collect();
        let attached =
            networks.attach(&AttachRequest { ports, ..request("default", 1) }, &everybody).unwrap();
        assert_eq!(nft("list ruleset").matches("tcp . ").count(), 40_000);
        block_on(attached.attachment.detach()).unwrap();
        assert_clean();
    });
}

#[test]
fn forwarding_keeps_the_hosts_own_routes() {
    let Some(host) = Namespace::new() else { return };
    host.run(|| {
        let (_dir, networks) = networks();
        shell("ip link add up0 type bridge && ip link add up1 type bridge");
        shell(
            "echo 1 > /proc/sys/net/ipv6/conf/up0/accept_ra; echo 0 > /proc/sys/net/ipv6/conf/up1/accept_ra",
        );
        let attached = networks.attach(&request("default", 1), &everybody).unwrap();
        let read =
            |path: &str| std::fs::read_to_string(format!("/proc/sys/net/{path}")).unwrap().trim().to_owned();
        assert_eq!((read("ipv4/ip_forward"), read("ipv6/conf/all/forwarding")), ("1".into(), "1".into()));
        assert_eq!(
            (read("ipv6/conf/up0/accept_ra"), read("ipv6/conf/up1/accept_ra")),
            ("2".into(), "0".into())
        );
        let bridge = attached.attachment.network.bridge();
        assert_eq!(read(&format!("ipv6/conf/{bridge}/accept_ra")), "0");
        block_on(attached.attachment.detach()).unwrap();
    });
}

#[test]
fn firewalls_of_others_are_found() {
    let Some(host) = Namespace::new() else { return };
    host.run(|| {
        let chains = [
            "ip filter FORWARD { type filter hook forward priority 0 ; policy drop ; }",
            "inet fw forward { type filter hook forward priority 10 ; policy accept ; }",
            "inet open forward { type filter hook forward priority 20 ; policy accept ; }",
            "inet mine input { type filter hook input priority 0 ; policy drop ; }",
        ];
        for chain in chains {
            let table: Vec<_> = chain.split(' ').take(2).collect();
            nft(&format!("add table {}", table.join(" ")));
            nft(&format!("add chain {chain}"));
        }
        nft("add rule inet fw forward ct state established accept");
        nft("add rule inet fw forward counter reject with icmpx type admin-prohibited");
        nft("add rule inet open forward ip saddr 10.0.0.0/8 drop");

        let (_dir, networks) = networks();
        let attached = networks.attach(&request("default", 1), &everybody).unwrap();
        let found: Vec<_> = attached.obstacles.iter().map(|o| (o.family, o.table.as_str())).collect();
        assert_eq!(found, [("ip", "filter"), ("inet", "fw")]);
        for command in attached.obstacles.iter().flat_map(firewall::Obstacle::remedy) {
            shell(&command);
        }
        assert_eq!(firewall::obstacles().unwrap(), []);
        block_on(attached.attachment.detach()).unwrap();
    });
}
