//! Debian's plugins.

use super::*;
use crate::{
    nic::Route,
    publish::{PortMapping, PortProtocol},
    takeover::Takeover,
    testing::{ip, run},
};

const BRIDGE: &str = r#"{"type": "bridge", "bridge": "br-cni", "isGateway": true, "ipMasq": true, "ipam": IPAM},
    {"type": "portmap", "capabilities": {"portMappings": true}}, {"type": "firewall", "backend": "iptables"},
    {"type": "bandwidth", "capabilities": {"bandwidth": true}},
    {"type": "tuning", "sysctl": {"net.ipv4.conf.eth0.arp_ignore": "1"}}"#;
const CHECKED_BRIDGE: &str = r#"{"type": "bridge", "bridge": "br-cni", "isGateway": true, "ipMasq": true, "ipam": IPAM},
    {"type": "firewall", "backend": "iptables"}, {"type": "bandwidth", "capabilities": {"bandwidth": true}},
    {"type": "tuning", "sysctl": {"net.ipv4.conf.eth0.arp_ignore": "1"}}"#;
const PTP: &str = r#"{"type": "ptp", "ipMasq": true, "ipam": IPAM}"#;
const MACVLAN: &str = r#"{"type": "macvlan", "master": "up0", "ipam": IPAM}"#;

fn real(host: &Host, version: &str, plugins: &str) -> Option<NetworkConfig> {
    if !Path::new("/usr/lib/cni/host-local").exists() {
        eprintln!("SKIPPED: needs Debian's containernetworking-plugins");
        return None;
    }
    let ipam = format!(
        r#"{{"type": "host-local", "dataDir": "{}", "ranges": [[{{"subnet": "10.88.0.0/24"}}], [{{"subnet": "fd88::/64"}}]], "routes": [{{"dst": "0.0.0.0/0"}}, {{"dst": "::/0"}}]}}"#,
        host.dir.path().join("ipam").display()
    );
    let mut config = config(version, &plugins.replace("IPAM", &ipam));
    // The CHECK of portmap 1.1.1 looks for the rules of one family among those of the other, and so always fails.
    config.disable_check = plugins.contains("portmap");
    Some(config)
}

/// Interfaces, rules and addresses in use: what must be the same before and after. What plugins keep for the next
/// container (a bridge, chains, and jumps to them) is there from the first one on.
fn state(host: &Host) -> String {
    let links: Vec<_> =
        ip("-o link").lines().filter_map(|line| line.split(": ").nth(1).map(str::to_owned)).collect();
    let pod = netns::Netns::open(&host.netns()).unwrap().run(|| ip("-o addr") + &ip("route")).unwrap();
    let leases: Vec<_> = fs::read_dir(host.dir.path().join("ipam/net"))
        .map(|dir| {
            dir.map(|entry| entry.unwrap().file_name())
                .filter(|name| !name.to_string_lossy().starts_with(['l']))
                .collect()
        })
        .unwrap_or_default();
    let rules = run("iptables-save", &[]) + &run("iptables-save", &["-t", "nat"]);
    let rules: Vec<_> = rules.lines().filter(|line| line.starts_with("-A")).collect();
    format!("{links:?}\n{pod}\n{leases:?}\n{rules:#?}")
}

fn runtime(host: &Host) -> Runtime {
    let mut runtime = host.runtime();
    runtime.port_mappings =
        vec![PortMapping { host_ip: None, host_port: 8080, container_port: 80, protocol: PortProtocol::Tcp }];
    let (rate, burst) = (100_000_000, 8_000_000);
    runtime.bandwidth =
        Some(Bandwidth { ingress_rate: rate, ingress_burst: burst, egress_rate: rate, egress_burst: burst });
    runtime
}

/// One round of everything; the takeover sees what the plugins made.
async fn round(host: &Host, config: NetworkConfig) -> (crate::nic::Interface, Vec<String>) {
    let attachment = host.cni.add(config, runtime(host)).await.unwrap();
    host.cni.check(&attachment).await.unwrap();
    let (takeover, mut nics) = Takeover::begin(netns::Netns::open(&host.netns()).unwrap()).unwrap();
    assert_eq!(nics.len(), 1);
    let sysctls = takeover.sysctls().unwrap().into_keys().collect();
    // The plugins find what they made, taken over or not.
    host.cni.check(&attachment).await.unwrap();
    takeover.release().await.unwrap();
    host.cni.del(&attachment).await.unwrap();
    (nics.remove(0).interface, sysctls)
}

fn balanced(version: &str, plugins: &str) -> Option<(crate::nic::Interface, Vec<String>)> {
    let host = Host::new()?;
    let config = real(&host, version, plugins)?;
    ip("link add up0 type veth peer name up1");
    ip("link set up0 up");
    // Without a carrier, plugins wait for IPv6's duplicate address detection in vain.
    ip("link set up1 up");
    block_on(async {
        round(&host, config.clone()).await;
        let before = state(&host);
        let seen = round(&host, config).await;
        assert_eq!(state(&host), before, "something is left");
        assert!(!before.contains("10.88.0.2"), "{before}");
        assert_eq!(host.records(), 0);
        Some(seen)
    })
}

#[test]
fn a_bridge_with_all_that_can_be_chained_to_it_is_balanced() {
    for (version, plugins) in [("0.4.0", CHECKED_BRIDGE), ("1.0.0", BRIDGE)] {
        let Some((interface, sysctls)) = balanced(version, plugins) else { return };
        assert_eq!(interface.name, "eth0");
        assert_eq!(interface.addresses[0].ip.to_string(), "10.88.0.3/24", "the second address of the pool");
        for gateway in ["10.88.0.1", "fd88::1"] {
            let wanted = Route::default_by(gateway.parse().unwrap());
            let same =
                |route: &Route| (route.destination, route.gateway) == (wanted.destination, wanted.gateway);
            assert!(interface.routes.iter().any(same), "{interface:?}");
        }
        assert!(sysctls.contains(&"net.ipv4.conf.eth0.arp_ignore".to_owned()), "{sysctls:?}");
    }
}

#[test]
fn a_point_to_point_link_is_balanced() {
    let Some((interface, _)) = balanced("1.0.0", PTP) else { return };
    assert_eq!(interface.addresses[0].ip.to_string(), "10.88.0.3/32", "its network is not on the link");
    let at = |to: &str, by: Option<&str>| {
        let wanted = (to.parse().unwrap(), by.map(|by| by.parse().unwrap()));
        interface.routes.iter().position(|route| (route.destination, route.gateway) == wanted).unwrap()
    };
    assert!(at("10.88.0.1/32", None) < at("10.88.0.0/24", Some("10.88.0.1")), "{interface:?}");
    assert!(at("10.88.0.1/32", None) < at("0.0.0.0/0", Some("10.88.0.1")), "{interface:?}");
    assert!(at("fd88::1/128", None) < at("::/0", Some("fd88::1")), "{interface:?}");
}

#[test]
fn a_macvlan_is_balanced() {
    let Some((interface, _)) = balanced("0.3.1", MACVLAN) else { return };
    assert_eq!(interface.addresses[0].ip.to_string(), "10.88.0.3/24");
}

#[test]
fn a_chain_whose_last_plugin_fails_leaves_nothing() {
    let Some(host) = Host::new() else { return };
    let plugins = format!(r#"{BRIDGE}, {{"type": "last"}}"#);
    let Some(config) = real(&host, "1.0.0", &plugins) else { return };
    host.script("last", "[ $CNI_COMMAND = DEL ]");
    block_on(async {
        host.cni.add(config.clone(), runtime(&host)).await.unwrap_err();
        let before = state(&host);
        host.cni.add(config, runtime(&host)).await.unwrap_err();
        assert_eq!(state(&host), before);
        assert!(!before.contains("10.88.0.2") && !before.contains("8080"), "{before}");
    });
    assert_eq!(host.records(), 0);
}

/// Killed between ADD and DEL: nothing but the record on disk is known, and the namespace may be gone.
#[test]
fn the_dead_are_repaired() {
    let Some(host) = Host::new() else { return };
    let Some(config) = real(&host, "1.0.0", BRIDGE) else { return };
    block_on(async {
        round(&host, config.clone()).await;
        let before = state(&host);
        drop(host.cni.add(config.clone(), runtime(&host)).await.unwrap());
        assert_ne!(state(&host), before);
        assert!(host.cni.repair(|_| false).await.unwrap().is_empty());
        assert_eq!(state(&host), before);

        drop(host.cni.add(config, runtime(&host)).await.unwrap());
        netns::remove(&host.netns()).unwrap();
        let failures = host.cni.repair(|_| false).await.unwrap();
        assert!(failures.is_empty(), "{failures:?}");
        netns::create(&host.netns()).unwrap();
        let after = state(&host);
        assert!(!after.contains("8080") && !after.contains("10.88.0.3"), "{after}");
    });
    assert_eq!(host.records(), 0);
}
