//! What dead sandboxes, and others, leave behind.

use std::net::Ipv4Addr;

use super::{
    attach::{assert_clean, block_on},
    everybody,
    namespace::{Namespace, ip, nft},
    networks, port, request, sandbox_id,
};
use husk_base::netlink::requests_sent;

use crate::{AttachRequest, Attached, publish::PortProtocol};

/// What kill -9 does: the tap is closed, nothing is said.
fn kill(attached: Attached) {
    drop(attached.nic.tap);
}

#[test]
fn what_the_dead_left_is_removed() {
    let Some(host) = Namespace::new() else { return };
    host.run(|| {
        let (_dir, networks) = networks();
        let publish = |number: u32, host_port| {
            let ports = vec![port(None, host_port, 80, PortProtocol::Tcp)];
            networks.attach(&AttachRequest { ports, ..request("default", number) }, &everybody).unwrap()
        };
        let (dead, living) = (publish(1, 8001), publish(2, 8002));
        let address = dead.attachment.lease.ipv4.to_string();
        let bridge = dead.attachment.network.bridge();
        assert!(ip(&format!("neighbour show dev {bridge} nud permanent")).contains(&address));
        kill(dead);
        let alive = |id: &str| id != sandbox_id(1);
        networks.repair(&alive).unwrap();

        let network = networks.get("default").unwrap();
        assert_eq!(networks.leases(&network).unwrap(), std::slice::from_ref(&living.attachment.lease));
        let rules = nft("list ruleset");
        assert!(!rules.contains("8001") && !rules.contains("hkt000001aaaa0"), "{rules}");
        assert!(rules.contains("8002") && rules.contains("hkt000002aaaa0"), "{rules}");
        assert!(!ip(&format!("neighbour show dev {bridge} nud permanent")).contains(&address));

        let before = requests_sent();
        networks.repair(&alive).unwrap();
        assert_eq!(requests_sent(), before, "nothing to do asks the kernel nothing");

        kill(living);
        networks.repair(&|_| false).unwrap();
        assert!(networks.leases(&network).unwrap().is_empty());
        assert_clean();
    });
}

#[test]
fn a_port_of_the_dead_is_free_on_another_network() {
    let Some(host) = Namespace::new() else { return };
    host.run(|| {
        let (_dir, networks) = networks();
        networks.create(&crate::NewNetwork { name: "other".into(), ..Default::default() }).unwrap();
        let ports = vec![port(Some(Ipv4Addr::new(10, 1, 1, 1)), 53, 53, PortProtocol::Udp)];
        let publish =
            |network: &str, number| AttachRequest { ports: ports.clone(), ..request(network, number) };
        kill(networks.attach(&publish("default", 1), &everybody).unwrap());
        let next = networks.attach(&publish("other", 2), &|id| id != sandbox_id(1)).unwrap();
        assert_eq!(networks.published(&sandbox_id(1)).unwrap(), []);
        assert_eq!(networks.published(&sandbox_id(2)).unwrap(), ports);
        assert_eq!(nft("list ruleset").matches("10.1.1.1 . 53").count(), 1);
        block_on(next.attachment.detach()).unwrap();
        assert_clean();
    });
}

#[test]
fn rules_that_others_flushed_come_back() {
    let Some(host) = Namespace::new() else { return };
    host.run(|| {
        let (_dir, networks) = networks();
        let first = networks.attach(&request("default", 1), &everybody).unwrap();
        nft("flush ruleset");
        let second = networks.attach(&request("default", 2), &everybody).unwrap();
        let rules = nft("list ruleset");
        assert!(rules.contains("masquerade") && rules.contains("hkt000001aaaa0"), "{rules}");
        nft("flush ruleset");
        block_on(second.attachment.detach()).unwrap();
        let rules = nft("list ruleset");
        assert!(rules.contains("hkt000001aaaa0") && !rules.contains("hkt000002aaaa0"), "{rules}");
        nft("flush ruleset");
        block_on(first.attachment.detach()).unwrap();
        assert_clean();
    });
}

#[test]
fn a_bridge_that_others_removed_comes_back() {
    let Some(host) = Namespace::new() else { return };
    host.run(|| {
        let (_dir, networks) = networks();
        let first = networks.attach(&request("default", 1), &everybody).unwrap();
        ip(&format!("link delete {}", first.attachment.network.bridge()));
        let second = networks.attach(&request("default", 2), &everybody).unwrap();
        for attached in [first, second] {
            block_on(attached.attachment.detach()).unwrap();
        }
        assert_clean();
    });
}
