//! Definitions on disk, on hosts of different kinds.

use super::{
    attach::{assert_clean, block_on},
    everybody,
    namespace::{Namespace, ip, shell},
    networks, request,
};
use crate::{Error, NewNetwork};

fn named(name: &str) -> NewNetwork {
    NewNetwork { name: name.into(), ..NewNetwork::default() }
}

#[test]
fn the_default_network_suits_the_host() {
    let Some(host) = Namespace::new() else { return };
    host.run(|| {
        let (_dir, networks) = networks();
        ip("link add up0 mtu 1442 type bridge");
        ip("address add 10.208.0.9/21 dev up0");
        ip("link set up0 up");
        ip("route add default via 10.208.0.1");
        ip("link add down0 type bridge");
        ip("address add 10.208.31.1/24 dev down0");
        let network = networks.get("default").unwrap();
        assert_eq!(network.mtu, 1442);
        assert_eq!(network.ipv4.subnet.to_string(), "10.208.32.0/20");
        let ipv6 = network.ipv6.unwrap();
        assert!(ipv6.subnet.to_string().starts_with("fd") && ipv6.subnet.prefix_len() == 64, "{ipv6:?}");
        assert_eq!(networks.get("default").unwrap(), network);
        assert_eq!(networks.get(&network.id).unwrap(), network);
        assert_eq!(networks.get(&network.id[..4]).unwrap(), network);
    });
}

#[test]
fn a_host_without_ipv6_gets_a_network_without() {
    let Some(host) = Namespace::new() else { return };
    host.run(|| {
        let (_dir, networks) = networks();
        shell("echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6");
        assert_eq!(networks.get("default").unwrap().ipv6, None);
        let attached = networks.attach(&request("default", 1), &everybody).unwrap();
        assert_eq!(attached.nic.interface.addresses.len(), 1);
        block_on(attached.attachment.detach()).unwrap();
        assert_clean();
    });
}

#[test]
fn overlapping_subnets_are_refused() {
    let Some(host) = Namespace::new() else { return };
    host.run(|| {
        let (_dir, networks) = networks();
        ip("link add up0 type bridge");
        ip("address add 192.168.7.1/24 dev up0");
        ip("link set up0 up");
        let new =
            |name: &str, subnet: &str| NewNetwork { subnet: Some(subnet.parse().unwrap()), ..named(name) };
        networks.create(&new("a", "10.5.0.0/16")).unwrap();
        let error = networks.create(&new("b", "10.5.6.0/24")).unwrap_err().to_string();
        assert!(error.contains("10.5.0.0/16") && error.contains("network a"), "{error}");
        let error = networks.create(&new("b", "192.168.0.0/16")).unwrap_err().to_string();
        assert!(error.contains("192.168.7") && error.contains("up0"), "{error}");
        assert!(matches!(networks.create(&new("a", "10.6.0.0/16")), Err(Error::NameInUse(_))));
        assert!(matches!(networks.create(&named("host")), Err(Error::ReservedName(_))));
        ip("route add 10.0.0.0/8 dev up0");
        assert!(matches!(networks.create(&named("c")), Err(Error::NoSubnet)));
    });
}

#[test]
fn a_network_in_use_stays() {
    let Some(host) = Namespace::new() else { return };
    host.run(|| {
        let (_dir, networks) = networks();
        for name in ["used", "unused"] {
            networks.create(&named(name)).unwrap();
        }
        let attached = networks
            .attach(&crate::AttachRequest { name: "web".into(), ..request("used", 1) }, &everybody)
            .unwrap();
        let error = networks.remove("used", &everybody).unwrap_err().to_string();
        assert!(error.contains("used") && error.contains("web"), "{error}");
        networks.get("default").unwrap();
        let pruned = networks.prune(&everybody).unwrap();
        assert_eq!(pruned.iter().map(|n| n.name.as_str()).collect::<Vec<_>>(), ["unused"]);
        block_on(attached.attachment.detach()).unwrap();
        networks.remove("used", &everybody).unwrap();
        assert!(matches!(networks.get("used"), Err(Error::NotFound(_))));
        assert_eq!(networks.list().unwrap().len(), 1);
        assert_clean();
    });
}

#[test]
fn a_removed_network_takes_along_what_the_dead_left() {
    let Some(host) = Namespace::new() else { return };
    host.run(|| {
        let (_dir, networks) = networks();
        networks.create(&named("net")).unwrap();
        let attached = networks.attach(&request("net", 1), &everybody).unwrap();
        drop(attached.nic);
        networks.remove("net", &|_| false).unwrap();
        assert_clean();
        // Whoever still thinks to be on it leaves without an error.
        block_on(attached.attachment.detach()).unwrap();
        assert_clean();
    });
}
