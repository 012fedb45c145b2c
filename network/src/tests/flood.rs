//! A guest that sends to everybody, and what the host remembers of it.

use std::{
    collections::HashSet,
    fs::File,
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Instant,
};

use super::{
    attach::{assert_clean, block_on},
    everybody,
    namespace::{Namespace, ip, shell},
    networks, request,
};
use husk_base::Mac;

const VNET_HEADER: [u8; 10] = [0; 10];
/// More than the host's tables take without complaint.
const ADDRESSES: u32 = 2000;
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);

/// A datagram, the smallest there is.
fn datagram(ether: [Mac; 2], from: IpAddr, to: IpAddr) -> Vec<u8> {
    let udp = [9u16, 9, 8, 0].iter().flat_map(|field| field.to_be_bytes());
    let (ether_type, header) = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header =
                [&[0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0], &from.octets()[..], &to.octets()].concat();
            let words = header.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
            let sum: u32 = words.sum();
            header[10..12].copy_from_slice(&(!u16::try_from(sum % 0xffff).unwrap()).to_be_bytes());
            (0x0800_u16, header)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            (0x86dd, [&[0x60, 0, 0, 0, 0, 8, 17, 64], &from.octets()[..], &to.octets()].concat())
        }
        _ => panic!("two families"),
    };
    let [source, destination] = ether.map(Mac::octets);
    let mut frame = [&VNET_HEADER[..], &destination, &source, &ether_type.to_be_bytes(), &header].concat();
    frame.extend(udp);
    frame
}

#[test]
fn the_host_looks_for_no_neighbours_that_a_guest_invents() {
    let Some(host) = Namespace::new() else { return };
    host.run(|| {
        let (_dir, networks) = networks();
        let network = networks.get("default").unwrap();
        let attached = networks.attach(&request("default", 1), &everybody).unwrap();
        let lease = attached.attachment.lease.clone();
        let mut tap = File::from(attached.nic.tap);
        let ether = [lease.mac, network.gateway_mac()];
        let ipv6 = network.ipv6.unwrap();
        let (own4, own6) = (lease.ipv4, lease.ipv6.unwrap());
        for number in 100..100 + ADDRESSES {
            let in4 = |first: Ipv4Addr| IpAddr::from(Ipv4Addr::from(first.to_bits() + number));
            let in6 = |first: Ipv6Addr| IpAddr::from(Ipv6Addr::from(first.to_bits() + u128::from(number)));
            for (from, to) in [
                (own4.into(), in4(network.ipv4.subnet.network())),
                (own6.into(), in6(ipv6.subnet.network())),
                (own6.into(), in6(LINK_LOCAL)),
            ] {
                tap.write_all(&datagram(ether, from, to)).unwrap();
            }
            // Nor are other Ethernet addresses than its own remembered.
            let [a, b, c, d] = number.to_be_bytes();
            let ether = [Mac::local([a, b, c, d, 1]), network.gateway_mac()];
            tap.write_all(&datagram(ether, own4.into(), network.ipv4.gateway.into())).unwrap();
        }
        let bridge = network.bridge();
        let all = ip(&format!("neighbour show dev {bridge} nud all"));
        // Groups and the like are not looked for.
        let known = all.lines().filter(|line| !line.contains("NOARP"));
        let known: HashSet<IpAddr> =
            known.map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
        assert!(known == [own4.into(), own6.into()].into(), "{} neighbours", known.len());
        let learned = shell(&format!("bridge fdb show br {bridge} dynamic"));
        // Static ones are shown, too: where the guest is.
        assert!(learned.lines().all(|line| line.starts_with(&lease.mac.to_string())), "{learned}");
        block_on(attached.attachment.detach()).unwrap();
        assert_clean();
    });
}

/// How many packets an interface has received.
fn received(interface: &str) -> u64 {
    let shown = ip(&format!("-s -o link show dev {interface}"));
    let numbers = shown.split_once("RX:").unwrap().1.split('\\').nth(1).unwrap();
    numbers.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_guest_can_keep_everybody_busy_only_so_much() {
    const FRAMES: u64 = 30_000;
    const MOST: u64 = 1000;
    let Some(host) = Namespace::new() else { return };
    host.run(|| {
        let (_dir, networks) = networks();
        let network = networks.get("default").unwrap();
        let attached = networks.attach(&request("default", 1), &everybody).unwrap();
        let lease = attached.attachment.lease.clone();
        let mut tap = File::from(attached.nic.tap);
        let before = received(&network.bridge());
        let mut frame = datagram(
            [lease.mac, network.gateway_mac()],
            lease.ipv4.into(),
            network.ipv4.subnet.broadcast().into(),
        );
        frame[VNET_HEADER.len()..][..6].fill(0xff);
        let started = Instant::now();
        for _ in 0..FRAMES {
            tap.write_all(&frame).unwrap();
        }
        let allowed = MOST * (started.elapsed().as_secs() + 2);
        let arrived = received(&network.bridge()) - before;
        assert!((MOST..=allowed).contains(&arrived), "{arrived} of {FRAMES}, {allowed} were allowed");
        // Others are not held up by that.
        let before = received(&network.bridge());
        let other =
            datagram([lease.mac, network.gateway_mac()], lease.ipv4.into(), network.ipv4.gateway.into());
        (0..MOST * 2).for_each(|_| tap.write_all(&other).unwrap());
        assert!(received(&network.bridge()) - before >= MOST * 2);
        block_on(attached.attachment.detach()).unwrap();
        assert_clean();
    });
}
