//! A guest that pretends to be somebody else: frames as it sends them, and what another guest gets.

use std::{
    fs::File,
    io::{Read, Write},
    net::{Ipv4Addr, Ipv6Addr},
    sync::mpsc,
    thread,
    time::Duration,
};

use super::{
    attach::{assert_clean, block_on},
    everybody,
    namespace::Namespace,
    networks, request,
};
use crate::Lease;

const VNET_HEADER: [u8; 10] = [0; 10];
const MARK: &[u8] = b"husk test frame ";
/// Long enough to be sure that something is wrong.
const TIMEOUT: Duration = Duration::from_secs(20);
const OTHER: [u8; 6] = [2, 9, 9, 9, 9, 9];

fn frame(source: [u8; 6], ether_type: u16, payload: &[u8]) -> Vec<u8> {
    [&[0xff; 6], source.as_slice(), &ether_type.to_be_bytes(), payload].concat()
}

fn ipv4(source: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(20 + payload.len() + MARK.len() + 1).unwrap().to_be_bytes();
    let start = [0x45, 0, len[0], len[1], 0, 0, 0, 0, 64, protocol, 0, 0];
    let mut packet = [&start, source.octets().as_slice(), &[255; 4], payload].concat();
    let words = packet[..20].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum: u32 = words.sum();
    let checksum = !u16::try_from(sum % 0xffff).unwrap();
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet
}

fn ipv6(source: Ipv6Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len() + MARK.len() + 1).unwrap().to_be_bytes();
    let to: Ipv6Addr = "ff02::1".parse().unwrap();
    let start = [0x60, 0, 0, 0, len[0], len[1], protocol, 255];
    [&start, source.octets().as_slice(), &to.octets(), payload].concat()
}

fn arp(mac: [u8; 6], sender: Ipv4Addr) -> Vec<u8> {
    [&[0, 1, 8, 0, 6, 4, 0, 2], mac.as_slice(), &sender.octets(), &[0; 10]].concat()
}

fn udp(source_port: u16) -> Vec<u8> {
    let length = u16::try_from(8 + MARK.len() + 1).unwrap();
    [source_port, 9, length, 0].iter().flat_map(|field| field.to_be_bytes()).collect()
}

fn icmpv6(icmp_type: u8, target: Ipv6Addr) -> Vec<u8> {
    [&[icmp_type, 0, 0, 0, 0, 0, 0, 0], target.octets().as_slice()].concat()
}

/// What is tried: what it is, whether it has to arrive, and the frame.
fn attempts(own: &Lease, gateway: Ipv4Addr, gateway6: Ipv6Addr) -> Vec<(&'static str, bool, Vec<u8>)> {
    let (mac, ip, ip6) = (own.mac.octets(), own.ipv4, own.ipv6.unwrap());
    let local = own.mac.link_local();
    let none6 = Ipv6Addr::UNSPECIFIED;
    let hidden = [[58, 0, 1, 4, 0, 0, 0, 0].as_slice(), &icmpv6(134, gateway6)].concat();
    let tagged = [&[0, 5, 8, 0], ipv4(ip, 17, &udp(9)).as_slice()].concat();
    vec![
        ("IPv4", true, frame(mac, 0x800, &ipv4(ip, 17, &udp(9)))),
        ("IPv4 with foreign MAC", false, frame(OTHER, 0x800, &ipv4(ip, 17, &udp(9)))),
        ("IPv4 with foreign address", false, frame(mac, 0x800, &ipv4(gateway, 17, &udp(9)))),
        ("DHCP server's answer", false, frame(mac, 0x800, &ipv4(ip, 17, &udp(67)))),
        ("ARP", true, frame(mac, 0x806, &arp(mac, ip))),
        ("ARP probe", true, frame(mac, 0x806, &arp(mac, Ipv4Addr::UNSPECIFIED))),
        ("ARP for the gateway", false, frame(mac, 0x806, &arp(mac, gateway))),
        ("ARP with foreign MAC", false, frame(mac, 0x806, &arp(OTHER, ip))),
        ("IPv6", true, frame(mac, 0x86dd, &ipv6(ip6, 17, &udp(9)))),
        ("IPv6 with link-local address", true, frame(mac, 0x86dd, &ipv6(local, 17, &udp(9)))),
        ("IPv6 with foreign address", false, frame(mac, 0x86dd, &ipv6(gateway6, 17, &udp(9)))),
        ("IPv6 without address", false, frame(mac, 0x86dd, &ipv6(none6, 17, &udp(9)))),
        ("DHCPv6 server's answer", false, frame(mac, 0x86dd, &ipv6(local, 17, &udp(547)))),
        ("neighbour solicitation", true, frame(mac, 0x86dd, &ipv6(ip6, 58, &icmpv6(135, gateway6)))),
        ("search for duplicates", true, frame(mac, 0x86dd, &ipv6(none6, 58, &icmpv6(135, ip6)))),
        ("neighbour advertisement", true, frame(mac, 0x86dd, &ipv6(ip6, 58, &icmpv6(136, ip6)))),
        (
            "advertisement of link-local address",
            true,
            frame(mac, 0x86dd, &ipv6(local, 58, &icmpv6(136, local))),
        ),
        ("advertisement for the gateway", false, frame(mac, 0x86dd, &ipv6(ip6, 58, &icmpv6(136, gateway6)))),
        ("router advertisement", false, frame(mac, 0x86dd, &ipv6(local, 58, &icmpv6(134, none6)))),
        ("hidden router advertisement", false, frame(mac, 0x86dd, &ipv6(local, 0, &hidden))),
        ("redirect", false, frame(mac, 0x86dd, &ipv6(local, 58, &icmpv6(137, ip6)))),
        ("VLAN tag", false, frame(mac, 0x8100, &tagged)),
        ("unknown protocol", false, frame(mac, 0x88cc, &[0; 40])),
        ("nothing but a header", false, frame(OTHER, 0x800, &[])),
        ("last one", true, frame(mac, 0x806, &arp(mac, ip))),
    ]
}

/// Reads a tap and hands on the number behind each mark.
fn read_marks(mut tap: File, to: &mpsc::Sender<usize>) {
    let mut buffer = vec![0; 70_000];
    while let Ok(len) = tap.read(&mut buffer) {
        let marked = buffer[..len].windows(MARK.len()).position(|window| window == MARK);
        let Some(at) = marked else { continue };
        if to.send(buffer[at + MARK.len()].into()).is_err() {
            return;
        }
    }
}

#[test]
fn frames_of_others_do_not_reach_the_bridge() {
    let Some(host) = Namespace::new() else { return };
    host.run(|| {
        let (_dir, networks) = networks();
        let network = networks.get("default").unwrap();
        let attacker = networks.attach(&request("default", 1), &everybody).unwrap();
        let witness = networks.attach(&request("default", 2), &everybody).unwrap();
        let (sender, received) = mpsc::channel();
        let witness_tap = File::from(witness.nic.tap);
        thread::spawn(move || read_marks(witness_tap, &sender));

        let mut tap = File::from(attacker.nic.tap);
        let lease = &attacker.attachment.lease;
        let attempts = attempts(lease, network.ipv4.gateway, network.ipv6.unwrap().gateway);
        for (number, (what, _, frame)) in attempts.iter().enumerate() {
            let number = u8::try_from(number).unwrap();
            let bytes = [&VNET_HEADER, frame.as_slice(), MARK, &[number]].concat();
            assert_eq!(tap.write(&bytes).unwrap(), bytes.len(), "{what}");
        }
        // They arrive in the order in which they were sent: the last tells that the others are through.
        let mut arrived = Vec::new();
        while arrived.last() != Some(&(attempts.len() - 1)) {
            arrived.push(received.recv_timeout(TIMEOUT).unwrap());
        }
        let arrived: Vec<_> = arrived.into_iter().map(|number| attempts[number].0).collect();
        let expected: Vec<_> =
            attempts.iter().filter(|(_, passes, _)| *passes).map(|(what, _, _)| *what).collect();
        assert_eq!(arrived, expected);
        for attached in [attacker.attachment, witness.attachment] {
            block_on(attached.detach()).unwrap();
        }
        assert_clean();
    });
}
