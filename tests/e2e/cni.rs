//! Networks that others make: Debian's CNI plugins, and namespaces that somebody prepared.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use husk_tests::{
    environment::{BUSYBOX, image},
    husk::{Husk, shell_args},
    leftovers,
    talk::ask,
    wait::{PATIENCE, wait_until},
    world::{OUTSIDE, World, shell},
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::signal::Signal,
};
use serde_json::{Value, json};

/// Gives this thread directories of its own in place of the machine's: CNI's configurations, the plugins' state, and names
/// of namespaces.
fn own_directories() -> tempfile::TempDir {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    let dir = tempfile::Builder::new().prefix("husk-cni-").tempdir().unwrap();
    for (name, place) in [("net.d", "/etc/cni/net.d"), ("state", "/var/lib/cni"), ("netns", "/run/netns")] {
        fs::create_dir_all(place).unwrap();
        let own = dir.path().join(name);
        fs::create_dir(&own).unwrap();
        mount(Some(&own), place, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    }
    dir
}

fn configure(name: &str, plugins: &Value) {
    let config = json!({"cniVersion": "1.0.0", "name": name, "plugins": plugins});
    fs::write(format!("/etc/cni/net.d/{name}.conflist"), config.to_string()).unwrap();
}

fn host_local(subnet: &str) -> Value {
    json!({"type": "host-local", "ranges": [[{"subnet": subnet}]], "routes": [{"dst": "0.0.0.0/0"}]})
}

fn leased() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![PathBuf::from("/var/lib/cni")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            match entry.file_type().unwrap().is_dir() {
                true => dirs.push(entry.path()),
                false if name.parse::<Ipv4Addr>().is_ok() => found.push(entry.path()),
                false => {}
            }
        }
    }
    found
}

#[test]
fn debians_plugins_make_networks_that_work() {
    let (_world, husk) = (World::new(), Husk::with_network());
    let _dirs = own_directories();
    let bridge = json!({"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "mtu": 1400,
                        "ipam": host_local("10.88.0.0/24")});
    let chain = [
        bridge,
        json!({"type": "portmap", "capabilities": {"portMappings": true}}),
        json!({"type": "bandwidth", "ingressRate": 800_000_000, "ingressBurst": 80_000_000,
               "egressRate": 800_000_000, "egressBurst": 80_000_000}),
        json!({"type": "tuning", "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}}),
        json!({"type": "firewall"}),
    ];
    configure("bridged", &json!(chain));
    configure("direct", &json!([{"type": "ptp", "ipMasq": true, "ipam": host_local("10.89.0.0/24")}]));
    configure(
        "lan",
        &json!([{"type": "macvlan", "master": "wan0",
                 "ipam": {"type": "host-local", "ranges": [[{"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.100"}]]}}]),
    );
    let reach =
        format!("ping -c 1 -w 60 -q {OUTSIDE} >/dev/null && echo reached; cat /sys/class/net/eth0/mtu");
    husk.shell(&["--network", "cni:bridged"], &reach).expect_out("reached\n1400\n");
    husk.shell(&["--network", "cni:direct"], &reach).expect_out("reached\n1500\n");
    husk.shell(&["--network", "cni:lan"], &reach).expect_out("reached\n1500\n");
    let both = "ls /sys/class/net | tr '\\n' ' '";
    husk.shell(&["--network", "cni:bridged", "--network", "cni:direct"], both).expect_out("eth0 eth1 lo ");

    let serve = "nc -ll -p 80 -e echo served &";
    let web = husk.start_living(&["--network", "cni:bridged", "-p", "8080:80"], serve);
    assert_eq!(ask(Ipv4Addr::LOCALHOST, 8080), "served\n");
    assert_eq!(leased().len(), 1);
    web.signal(Signal::SIGKILL);
    web.finish().expect_code(137);
    wait_until("the VM to end", PATIENCE, || leftovers::processes(husk.root()).is_empty());
    // DEL comes with the next start.
    husk.shell(&["--network", "none"], "true").expect_code(0);
    assert_eq!(leased(), Vec::<PathBuf>::new());
    assert!(!shell("ip -o link").contains("veth"));
    assert_eq!(fs::read_dir(husk.run_dir().join("netns")).unwrap().count(), 0);
}

#[test]
fn failing_plugins_leave_nothing() {
    let (_world, husk) = (World::new(), Husk::with_network());
    let dirs = own_directories();
    let bridge = json!({"type": "bridge", "bridge": "cni0", "ipam": host_local("10.88.0.0/24")});
    configure("half", &json!([bridge, {"type": "tuning", "sysctl": {"net.ipv4.conf.none.such": "1"}}]));
    let plugins = dirs.path().join("plugins");
    fs::create_dir(&plugins).unwrap();
    let plugin = plugins.join("rubbish");
    fs::write(&plugin, "#!/bin/sh\necho '{\"cniVersion\": \"1.0.0\", \"ips\": [{\"address\": 7}]}'\n")
        .unwrap();
    fs::set_permissions(&plugin, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    configure("rubbish", &json!([bridge, {"type": "rubbish"}]));
    let husk = husk.env("CNI_PATH", &plugins);
    for (network, parts) in
        [("half", &["tuning", "ADD"][..]), ("rubbish", &["rubbish"]), ("missing", &["missing", "half"])]
    {
        husk.run(["run", "--rm", "--network", &format!("cni:{network}"), &image(BUSYBOX), "true"])
            .expect_failure(125, parts);
        assert_eq!(leased(), Vec::<PathBuf>::new());
        assert!(!shell("ip -o link").contains("veth"));
    }
    husk.run(["run", "--rm", "--network", "cni:../x", &image(BUSYBOX), "true"]).expect_code(125);
    husk.run(["run", "--rm", "--network", "ns:/no/such", &image(BUSYBOX), "true"])
        .expect_failure(125, &["/no/such"]);
    husk.run(["run", "--rm", "--network", "ns:/etc/passwd", &image(BUSYBOX), "true"])
        .expect_failure(125, &["/etc/passwd"]);
}

#[test]
fn a_prepared_namespace_is_taken_over() {
    let (_world, husk) = (World::new(), Husk::with_network());
    let _dirs = own_directories();
    shell(
        "ip netns add pod
         ip link add out0 type veth peer name in0 netns pod
         ip address add 10.50.0.1/24 dev out0; ip link set out0 up mtu 1300
         ip -n pod link set lo up
         ip -n pod link set in0 address 02:00:00:00:50:02 mtu 1300 up
         ip -n pod address add 10.50.0.2/24 dev in0
         ip -n pod -6 address add fd50::2/64 dev in0 nodad
         ip -n pod route add default via 10.50.0.1
         ip -n pod route add 10.60.0.0/16 via 10.50.0.9 metric 7
         ip -n pod neighbour add 10.50.0.9 lladdr 02:00:00:00:50:09 dev in0
         ip netns exec pod sysctl -q -w net.ipv4.ip_unprivileged_port_start=80",
    );
    let script = "cat /sys/class/net/in0/address /sys/class/net/in0/mtu
        ip -6 -o address show in0 scope global | grep -c fd50::2/64
        ip route | tr '\\n' ';'; echo
        grep '^10.50.0.9 ' /proc/net/arp | awk '{print $3, $4}'
        cat /proc/sys/net/ipv4/ip_unprivileged_port_start
        httpd -p 127.0.0.1:80 -h /etc
        nc -ll -p 81 -e echo served &";
    let mut pod = husk.start(shell_args(
        &["-i", "--network", "ns:/run/netns/pod", "--hostname", "the-pod"],
        &format!(
            "{script}\necho ready; read line; ip -o -4 address | grep -v 127 | awk '{{print $2,$4}}'; cat"
        ),
    ));
    pod.wait_for_out("ready");
    let out = pod.out();
    let expected = "02:00:00:00:50:02\n1300\n1\ndefault via 10.50.0.1 dev in0 ;\
                    10.50.0.0/24 dev in0 scope link  src 10.50.0.2 ;10.60.0.0/16 via 10.50.0.9 dev in0  metric 7 ;\n\
                    0x6 02:00:00:00:50:09\n80\nready\n";
    let squeeze = |text: &str| text.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    assert_eq!(squeeze(&out), squeeze(expected));
    assert_eq!(ask(Ipv4Addr::new(10, 50, 0, 2), 81), "served\n");
    // As Kubernetes forwards ports: from inside the namespace, to its loopback address.
    let get = "import urllib.request as u; print(u.urlopen('http://127.0.0.1/hostname', None, 100).read().decode(), end='')";
    let forwarded = shell(&format!("ip netns exec pod python3 -c \"{get}\""));
    assert_eq!(forwarded, "the-pod\n");
    // What comes and changes later arrives, too.
    shell(
        "ip -n pod address add 10.50.0.3/24 dev in0
         ip link add out1 type veth peer name in1 netns pod
         ip address add 10.51.0.1/24 dev out1; ip link set out1 up
         ip -n pod link set in1 up; ip -n pod address add 10.51.0.2/24 dev in1",
    );
    for address in [Ipv4Addr::new(10, 50, 0, 3), Ipv4Addr::new(10, 51, 0, 2)] {
        assert_eq!(ask(address, 81), "served\n");
    }
    pod.write(b"go\n");
    pod.wait_for_out("in1 10.51.0.2/24");
    assert!(pod.out().contains("in0 10.50.0.2/24\nin0 10.50.0.3/24\n"), "{}", pod.out());
    pod.end();
    // The namespace is its owner's again, as it was.
    let left = shell("ip -n pod -o link; tc -n pod qdisc show dev in0; ip -n pod -4 -o address show in0");
    assert!(!left.contains("ingress") && !left.contains("tap") && left.contains("10.50.0.2/24"), "{left}");
    shell("ip netns delete pod");
    husk.assert_nothing_left();
    assert!(Path::new("/run/netns").exists());
}
