//! The network, with veth devices for the machine's, checked by ip(8).

use std::process::Command;

use husk_protocol::agent::{
    Address, Interface, Neighbour, Network, PlugInRequest, Route, SetupSandboxRequest,
};
use serde_json::Value;
use ttrpc::Code;

use super::{
    containers::{guest_tests, message},
    guest::{Guest, context, in_guest, request, setup, spec},
};

/// Runs ip(8).
pub(super) fn ip(args: &str) -> String {
    let output = Command::new("ip").args(args.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn list(args: &str) -> Vec<Value> {
    serde_json::from_str(&ip(&format!("-d -j {args}"))).unwrap()
}

/// The entries' fields that are named and there, one line each.
fn lines(entries: &[Value], fields: &[&str]) -> Vec<String> {
    let line = |entry: &Value| {
        let text =
            |field: &&str| entry.get(*field).map(|v| format!("{field} {}", v.to_string().replace('"', "")));
        fields.iter().filter_map(text).collect::<Vec<_>>().join(" ")
    };
    entries.iter().map(line).collect()
}

/// Our routes, as ip(8) lists them.
fn routes(family: &str) -> Vec<String> {
    let all = list(&format!("{family} route show table all proto static"));
    let fields =
        ["type", "dst", "gateway", "via", "dev", "table", "prefsrc", "metric", "scope", "flags", "metrics"];
    lines(&all, &fields).into_iter().map(|line| line.replace(" table main", "")).collect()
}

fn addresses(name: &str) -> Vec<String> {
    let all = list(&format!("addr show dev {name}"));
    let all: Vec<Value> = all[0]["addr_info"].as_array().unwrap().clone();
    // The kernel makes the link-local address in its own time.
    let all: Vec<Value> = all.into_iter().filter(|a| !a["local"].to_string().contains("fe80:")).collect();
    lines(&all, &["local", "address", "prefixlen", "broadcast", "scope", "tentative", "nodad"])
}

fn neighbours(name: &str) -> Vec<String> {
    let mut lines =
        lines(&list(&format!("neigh show dev {name} nud permanent")), &["dst", "lladdr", "state"]);
    lines.sort();
    lines
}

/// A device as the kernel makes them: down, and with some name.
fn device(name: &str, last: u8) -> String {
    let mac = format!("02:00:00:00:00:{last:02x}");
    ip(&format!("link add {name} address {mac} type veth peer name p.{name}"));
    ip(&format!("link set p.{name} up"));
    mac
}

fn address(prefix: &str) -> Address {
    Address { prefix: prefix.into(), ..Default::default() }
}

fn route(destination: &str, gateway: &str) -> Route {
    Route { destination: destination.into(), gateway: gateway.into(), ..Default::default() }
}

fn neighbour(ip: &str, last: u8) -> Neighbour {
    Neighbour { ip: ip.into(), mac: format!("02:00:00:00:01:{last:02x}"), ..Default::default() }
}

fn described(mac: &str) -> Network {
    let interface = Interface {
        mac: mac.into(),
        name: "eth0".into(),
        mtu: 1400,
        addresses: vec![
            address("10.1.2.3/24"),
            Address { peer: "10.9.0.2".into(), ..address("10.9.0.1/32") },
            Address { scope: 253, ..address("10.8.0.1/31") },
            address("fd00::3/64"),
        ],
        routes: vec![
            Route { metric: 100, source: "10.1.2.3".into(), ..route("", "10.1.2.1") },
            route("192.168.7.1/32", ""),
            Route { mtu: 1300, ..route("172.16.0.0/12", "192.168.7.1") },
            Route { onlink: true, table: 1000, ..route("0.0.0.0/0", "192.168.9.1") },
            Route { kind: 6, ..route("10.66.0.0/16", "") },
            route("10.67.0.0/16", "fe80::1"),
            route("", "fd00::1"),
            route("fd01::/64", "fe80::1"),
            Route { kind: 7, metric: 7, ..route("fd66::/64", "") },
        ],
        neighbours: vec![neighbour("10.1.2.1", 1), neighbour("fe80::1", 2)],
        ..Default::default()
    };
    let sysctls = [
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv4.conf.eth0.rp_filter", "2"),
        ("net.ipv6.conf.eth0.hop_limit", "9"),
    ];
    Network {
        interfaces: vec![interface],
        sysctls: sysctls.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..Default::default()
    }
}

fn set_up(network: Network) -> SetupSandboxRequest {
    SetupSandboxRequest { hostname: "pod".into(), network: Some(network).into(), ..setup() }
}

fn setting(path: &str) -> String {
    std::fs::read_to_string(format!("/proc/sys/net/{path}")).unwrap().trim().to_owned()
}

fn everything() -> [String; 6] {
    [
        "link show",
        "addr show dev eth0",
        "-4 route show table all",
        "-6 route show table all",
        "neigh show nud permanent",
        "addr show dev other",
    ]
    .map(|args| ip(&format!("-d {args}")))
}

guest_tests! {
    async fn interfaces_become_what_is_described(guest: Guest) {
        let mac = device("old", 10);
        guest.api.setup_sandbox(context(), &set_up(described(&mac))).await.unwrap();
        let link = &list("link show dev eth0")[0];
        assert_eq!((&link["address"], link["mtu"].as_u64()), (&Value::from(mac), Some(1400)));
        assert!(link["flags"].as_array().unwrap().contains(&"UP".into()), "{link}");
        assert_eq!(addresses("eth0"), [
            "local 10.8.0.1 prefixlen 31 scope link",
            "local 10.1.2.3 prefixlen 24 broadcast 10.1.2.255 scope global",
            "local 10.9.0.1 address 10.9.0.2 prefixlen 32 scope global",
            "local fd00::3 prefixlen 64 scope global nodad true",
        ]);
        assert_eq!(routes("-4"), [
            "type unicast dst default gateway 192.168.9.1 dev eth0 table 1000 scope global flags [onlink]",
            "type unicast dst default gateway 10.1.2.1 dev eth0 prefsrc 10.1.2.3 metric 100 scope global flags []",
            "type blackhole dst 10.66.0.0/16 scope global flags []",
            "type unicast dst 10.67.0.0/16 via {family:inet6,host:fe80::1} dev eth0 scope global flags []",
            "type unicast dst 172.16.0.0/12 gateway 192.168.7.1 dev eth0 scope global flags [] metrics [{mtu:1300}]",
            "type unicast dst 192.168.7.1 dev eth0 scope link flags []",
        ]);
        assert_eq!(routes("-6"), [
            "type unicast dst fd01::/64 gateway fe80::1 dev eth0 metric 1024 scope global flags []",
            "type unreachable dst fd66::/64 dev lo metric 7 scope global flags []",
            "type unicast dst default gateway fd00::1 dev eth0 metric 1024 scope global flags []",
        ]);
        assert_eq!(neighbours("eth0"), [
            "dst 10.1.2.1 lladdr 02:00:00:00:01:01 state [PERMANENT]", "dst fe80::1 lladdr 02:00:00:00:01:02 state [PERMANENT]",
        ]);
        let settings = ["ipv4/ip_forward", "ipv4/conf/eth0/rp_filter", "ipv6/conf/eth0/hop_limit",
            "ipv6/conf/eth0/accept_ra", "ipv6/conf/eth0/accept_dad"].map(setting);
        assert_eq!(settings, ["1", "2", "9", "0", "0"]);
    }

    async fn updates_change_what_differs_and_nothing_else(guest: Guest) {
        let mac = device("old", 10);
        device("other", 11);
        ip("link set other up");
        for args in ["addr add 10.50.0.1/24 dev other", "route add 10.51.0.0/24 via 10.50.0.2",
            "neigh add 10.50.0.2 lladdr 02:00:00:00:00:99 dev other"]
        {
            ip(args);
        }
        let mut network = described(&mac);
        guest.api.setup_sandbox(context(), &set_up(network.clone())).await.unwrap();
        // So that the link-local address, too, is as it will stay.
        ip("link set eth0 addrgenmode none");
        let before = everything();
        guest.api.update_network(context(), &network).await.unwrap();
        assert_eq!(everything(), before);

        // Somebody inside added some, and the host wants other things by now.
        for args in ["addr add 10.77.0.1/24 dev eth0", "route add 10.78.0.0/24 via 10.77.0.2",
            "-6 route add fd78::/64 via fe80::9 dev eth0", "neigh add 10.77.0.2 lladdr 02:00:00:00:00:98 dev eth0"]
        {
            ip(args);
        }
        guest.api.update_network(context(), &network).await.unwrap();
        assert_eq!(everything(), before);
        let interface = &mut network.interfaces[0];
        interface.mtu = 9000;
        interface.addresses = vec![address("10.1.2.4/24"), address("fd00::4/64")];
        interface.routes = vec![route("", "10.1.2.254"), route("", "fe80::2")];
        interface.neighbours = vec![neighbour("10.1.2.1", 9)];
        guest.api.update_network(context(), &network).await.unwrap();
        assert_eq!(list("link show dev eth0")[0]["mtu"], 9000);
        assert_eq!(addresses("eth0"), [
            "local 10.1.2.4 prefixlen 24 broadcast 10.1.2.255 scope global",
            "local fd00::4 prefixlen 64 scope global nodad true",
        ]);
        assert_eq!(routes("-4"), [
            "type unicast dst default gateway 10.1.2.254 dev eth0 scope global flags []",
            "type blackhole dst 10.66.0.0/16 scope global flags []",
        ]);
        assert_eq!(neighbours("eth0"), ["dst 10.1.2.1 lladdr 02:00:00:00:01:09 state [PERMANENT]"]);
        assert_eq!(everything()[5], before[5]);
        assert_eq!(neighbours("other"), ["dst 10.50.0.2 lladdr 02:00:00:00:00:99 state [PERMANENT]"]);
    }

    async fn names_can_be_swapped(guest: Guest) {
        let (first, second) = (device("eth0", 10), device("eth1", 11));
        let interface = |mac: &str, name: &str, no_arp| {
            Interface { mac: mac.into(), name: name.into(), no_arp, ..Default::default() }
        };
        let interfaces = vec![interface(&first, "eth1", true), interface(&second, "eth0", false)];
        let network = Network { interfaces, ..Default::default() };
        guest.api.setup_sandbox(context(), &set_up(network)).await.unwrap();
        for (name, mac, no_arp) in [("eth1", first, true), ("eth0", second, false)] {
            let link = &list(&format!("link show dev {name}"))[0];
            assert_eq!(link["address"], mac.as_str(), "{name}");
            assert_eq!(link["flags"].as_array().unwrap().contains(&"NOARP".into()), no_arp, "{name}");
        }
    }

    async fn refuses_what_can_not_be(guest: Guest) {
        let mac = device("old", 10);
        device("other", 11);
        let refused = async |change: fn(&mut Network)| {
            let mut network = described(&mac);
            change(&mut network);
            message(guest.api.update_network(context(), &network).await)
        };
        let (code, text) = refused(|n| n.interfaces[0].mac = "02:00:00:00:00:77".into()).await;
        assert_eq!((code, text.as_str()),
            (Code::NOT_FOUND, "no network device has the address 02:00:00:00:00:77 (for eth0)"));
        let (code, text) = refused(|n| n.interfaces[0].addresses[1].prefix = "10.1.2".into()).await;
        assert_eq!((code, text.as_str()), (Code::INVALID_ARGUMENT,
            "interfaces[0].addresses[1].prefix is not an address and a length, as 10.0.0.1/24: \"10.1.2\""));
        let (code, text) = refused(|n| n.interfaces[0].name = "other".into()).await;
        assert_eq!((code, text.as_str()),
            (Code::ALREADY_EXISTS, "another network device is called \"other\" already"));
        let (code, _) = refused(|n| drop(n.sysctls.insert("net/../kernel/hostname".into(), "x".into()))).await;
        assert_eq!(code, Code::INVALID_ARGUMENT);
        // No driver takes this for a place.
        let nowhere = PlugInRequest { devices: vec!["nowhere".into()], ..Default::default() };
        let (_, text) = message(guest.api.plug_in(context(), &nowhere).await);
        assert!(text.starts_with("cannot plug in the device \"nowhere\": "), "{text}");
        // So far nothing has happened.
        assert!(!list("link show dev old")[0]["flags"].as_array().unwrap().contains(&"UP".into()));

        let (code, text) = refused(|n| drop(n.sysctls.insert("net.ipv4.none".into(), "x".into()))).await;
        assert_eq!((code, text.as_str()),
            (Code::NOT_FOUND, "the guest's kernel has no setting /proc/sys/net/ipv4/none"));
        let (code, text) = refused(|n| n.interfaces[0].routes[0].gateway = "10.200.0.1".into()).await;
        assert_eq!(code, Code::INVALID_ARGUMENT);
        let expected = "cannot add a route to 0.0.0.0/0 by 10.200.0.1 on eth0: Network is unreachable (os error 101)";
        assert!(text.starts_with(expected) && text.ends_with(" (Nexthop has invalid gateway)"), "{text}");
        let (code, text) = refused(|n| n.interfaces[0].mtu = 7).await;
        assert_eq!(code, Code::INVALID_ARGUMENT);
        assert!(text.starts_with("cannot bring eth0 up with an MTU of 7: "), "{text}");
        // All else was done.
        assert_eq!(addresses("eth0").len(), 4);
    }

    async fn containers_share_it_and_keep_off_its_settings(guest: Guest) {
        let mac = device("old", 10);
        guest.api.setup_sandbox(context(), &set_up(described(&mac))).await.unwrap();
        let script = "cat /proc/net/dev; cat /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/ip_default_ttl; echo 7 > /proc/sys/net/ipv4/ip_default_ttl";
        let mut spec = spec(&["sh", "-c", script]);
        spec["linux"]["sysctl"] =
            serde_json::json!({"net.ipv4.ip_default_ttl": "77", "kernel.shm_rmid_forced": "1"});
        let (_, out, err) = guest.run(&request(&spec)).await;
        assert!(out.contains(" eth0:") && out.ends_with("\n1\n77\n"), "{out}{err}");
        assert!(err.contains("can't create /proc/sys/net/ipv4/ip_default_ttl: Read-only file system"), "{err}");
        guest.delete().await;
        spec["linux"]["sysctl"] = serde_json::json!({"net.ipv4../../kernel/x": "1"});
        assert_eq!(message(guest.create(&request(&spec)).await).0, Code::INVALID_ARGUMENT);
    }
}
