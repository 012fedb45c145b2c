//! Joining and leaving.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use super::{
    everybody,
    namespace::{Namespace, ip, nft},
    networks, request,
};
use husk_base::netlink::requests_sent;

use crate::{Error, NewNetwork};

/// Nothing but the loopback and no rule is left.
pub(super) fn assert_clean() {
    assert_eq!(nft("list ruleset"), "");
    let links = ip("-o link show");
    assert_eq!(links.lines().count(), 1, "{links}");
}

pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

#[test]
fn fifty_join_at_once_and_leave_nothing() {
    let Some(host) = Namespace::new() else { return };
    host.run(|| {
        let (_dir, networks) = networks();
        let number = AtomicU32::new(0);
        let join =
            || networks.attach(&request("default", number.fetch_add(1, Ordering::Relaxed)), &everybody);
        let attached: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..50).map(|_| scope.spawn(join)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap().unwrap()).collect()
        });
        let leases: Vec<_> = attached.iter().map(|a| &a.attachment.lease).collect();
        assert_eq!(leases.iter().map(|l| l.ipv4).collect::<HashSet<_>>().len(), 50);
        assert_eq!(leases.iter().map(|l| l.ipv6.unwrap()).collect::<HashSet<_>>().len(), 50);
        assert_eq!(leases.iter().map(|l| l.mac).collect::<HashSet<_>>().len(), 50);
        let network = networks.get("default").unwrap();
        assert_eq!(networks.leases(&network).unwrap().len(), 50);
        assert_eq!(ip(&format!("-o link show master {}", network.bridge())).lines().count(), 50);

        thread::scope(|scope| {
            for attached in attached {
                scope.spawn(|| block_on(attached.attachment.detach()).unwrap());
            }
        });
        assert!(networks.leases(&network).unwrap().is_empty());
        assert_clean();
    });
}

#[test]
fn joining_takes_a_handful_of_requests() {
    let Some(host) = Namespace::new() else { return };
    host.run(|| {
        let (_dir, networks) = networks();
        networks.get("default").unwrap();
        let before = requests_sent();
        let first = networks.attach(&request("default", 1), &everybody).unwrap();
        // Tables; bridge; its addresses; chain and ports; tap; chains of others.
        assert_eq!(requests_sent() - before, 6);
        let before = requests_sent();
        let second = networks.attach(&request("default", 2), &everybody).unwrap();
        assert_eq!(requests_sent() - before, 2);
        for attached in [first, second] {
            block_on(attached.attachment.detach()).unwrap();
        }
        assert_clean();
    });
}

#[test]
fn the_guest_is_told_all_it_needs() {
    let Some(host) = Namespace::new() else { return };
    host.run(|| {
        let (_dir, networks) = networks();
        let network = networks.create(&NewNetwork {
            name: "net".into(),
            subnet: Some("10.9.0.0/24".parse().unwrap()),
            subnet6: Some("fd00:9::/64".parse().unwrap()),
            mtu: Some(1400),
            ..NewNetwork::default()
        });
        let network = network.unwrap();
        let attached = networks.attach(&request("net", 1), &everybody).unwrap();
        let interface = &attached.nic.interface;
        assert_eq!((interface.name.as_str(), interface.mtu), ("eth0", 1400));
        let addresses: Vec<_> = interface.addresses.iter().map(|a| a.ip.to_string()).collect();
        assert_eq!(addresses, ["10.9.0.2/24", "fd00:9::2/64"]);
        let routes = interface.routes.iter().map(|r| (r.destination.to_string(), r.gateway.unwrap()));
        let expected = ["0.0.0.0/0 10.9.0.1", "::/0 fd00:9::1"];
        assert_eq!(routes.map(|(to, by)| format!("{to} {by}")).collect::<Vec<_>>(), expected);
        for neighbour in &interface.neighbours {
            assert_eq!(neighbour.mac, network.gateway_mac().octets());
        }
        let bridge = ip(&format!("link show {}", network.bridge()));
        assert!(
            bridge.contains("mtu 1400") && bridge.contains(&network.gateway_mac().to_string()),
            "{bridge}"
        );
        let second = networks
            .attach(&crate::AttachRequest { default_route: false, ..request("net", 2) }, &everybody)
            .unwrap();
        assert!(second.nic.interface.routes.is_empty());
        for attached in [attached, second] {
            block_on(attached.attachment.detach()).unwrap();
        }
        assert_clean();
    });
}

#[test]
fn what_fails_leaves_nothing() {
    let Some(host) = Namespace::new() else { return };
    host.run(|| {
        let (_dir, networks) = networks();
        ip("tuntap add hkt000001aaaa0 mode tap");
        let error = networks.attach(&request("default", 1), &everybody).unwrap_err();
        assert!(error.to_string().contains("hkt000001aaaa0"), "{error}");
        ip("link delete hkt000001aaaa0");
        assert!(matches!(networks.attach(&request("nosuch", 1), &everybody), Err(Error::NotFound(_))));
        assert_clean();
    });
}

#[test]
fn a_second_interface_with_the_same_name_is_refused() {
    let Some(host) = Namespace::new() else { return };
    host.run(|| {
        let (_dir, networks) = networks();
        let first = networks.attach(&request("default", 1), &everybody).unwrap();
        networks.attach(&request("default", 1), &everybody).unwrap_err();
        let network = networks.get("default").unwrap();
        assert_eq!(networks.leases(&network).unwrap(), std::slice::from_ref(&first.attachment.lease));
        assert!(nft("list ruleset").contains("chain hkt000001aaaa0"));
        block_on(first.attachment.detach()).unwrap();
        assert_clean();
    });
}
