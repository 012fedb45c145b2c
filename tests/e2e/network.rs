//! Networks of husk's own, with real traffic, each test in a small network made for it.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use husk_tests::{
    environment::{PYTHON, image},
    husk::{Husk, shell_args},
    leftovers,
    talk::{ask, try_to_ask},
    wait::{PATIENCE, wait_until},
    world::{HOST, HOST6, OUTSIDE, OUTSIDE6, World, shell},
};
use serde_json::Value;

/// Serves the word "served" to one after the other.
const SERVE: &str = "nc -ll -p 80 -e echo served &";
const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LOCALHOST6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

fn inspect(husk: &Husk, network: &str) -> Value {
    let output = husk.run(["network", "inspect", network]).expect_code(0);
    serde_json::from_slice::<Value>(&output.stdout).unwrap()[0].clone()
}

/// Sends back what arrives, on TCP to the end of one connection, on UDP for so many datagrams.
fn echo(address: IpAddr, port: u16, datagrams: usize) {
    let udp = UdpSocket::bind((address, port)).unwrap();
    udp.set_read_timeout(Some(PATIENCE)).unwrap();
    let tcp = TcpListener::bind((address, port)).unwrap();
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        for _ in 0..datagrams {
            let (len, peer) = udp.recv_from(&mut buffer).unwrap();
            udp.send_to(&buffer[..len], peer).unwrap();
        }
    });
    let (mut stream, _) = tcp.accept().unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    stream.write_all(&all).unwrap();
}

#[test]
fn a_container_reaches_the_world_which_sees_the_host() {
    let (world, husk) = (World::new(), Husk::with_network());
    let seen = world.outside_thread(|| {
        let listener = TcpListener::bind((OUTSIDE, 7000)).unwrap();
        listener.accept().unwrap().1.ip()
    });
    let script = format!(
        "nc -w 60 {OUTSIDE} 7000 </dev/null
         ping -c 1 -w 60 -q {OUTSIDE} >/dev/null && echo reached
         ping -6 -c 1 -w 60 -q {OUTSIDE6} >/dev/null && echo reached
         cat /sys/class/net/eth0/mtu
         ip route | grep -c ^default; ip -6 route | grep -c ^default
         [ $(ip -o -4 address show eth0 | awk '{{print $4}}' | cut -d/ -f1) = \
           $(grep $(hostname) /etc/hosts | head -n 1 | cut -f1) ] && echo known"
    );
    husk.shell(&[], &script).expect_out("reached\nreached\n1500\n1\n1\nknown\n");
    assert_eq!(seen.join().unwrap(), HOST);
    // Ordinary users may ping, too: an echo request without a raw socket.
    let ping = format!(
        "import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
s.settimeout(100)
s.sendto(bytes([8, 0, 0, 0, 0, 0, 0, 1]) + b'hello', ('{OUTSIDE}', 0))
print(s.recv(99)[-5:].decode())"
    );
    husk.run(["run", "--rm", "-u", "1234", &image(PYTHON), "python3", "-c", &ping]).expect_out("hello\n");
    husk.assert_nothing_left();
    world.assert_no_network_left();
}

#[test]
fn traffic_of_all_sorts_arrives_whole() {
    let (world, husk) = (World::new(), Husk::with_network());
    let sizes = [1, 1400, 1473, 9000, 60_000];
    let servers = [IpAddr::V4(OUTSIDE), IpAddr::V6(OUTSIDE6)]
        .map(|address| world.outside_thread(move || echo(address, 7000, sizes.len())));
    let client = format!(
        "import socket
data = bytes(range(256)) * 65536
for address in ('{OUTSIDE}', '{OUTSIDE6}'):
    with socket.create_connection((address, 7000), 100) as s:
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)
        got = b''
        while chunk := s.recv(1 << 16):
            got += chunk
    print(got == data)
    family = socket.AF_INET6 if ':' in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        s.settimeout(100)
        # The larger ones in fragments.
        for size in {sizes:?}:
            s.sendto(data[:size], (address, 7000))
            print(s.recv(1 << 16) == data[:size])
"
    );
    husk.run(["run", "--rm", &image(PYTHON), "python3", "-c", &client]).expect_out(&"True\n".repeat(12));
    servers.into_iter().for_each(|server| server.join().unwrap());
    husk.assert_nothing_left();
}

#[test]
fn published_ports_lead_to_the_container_from_everywhere() {
    let (world, husk) = (World::new(), Husk::with_network());
    let server = "import socket, sys, threading
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(('', 53))
def echo():
    while True:
        udp.sendto(*udp.recvfrom(1000))
threading.Thread(target=echo, daemon=True).start()
tcp = socket.create_server(('::', 80), family=socket.AF_INET6, dualstack_ipv6=True)
def serve():
    while True:
        with tcp.accept()[0] as stream:
            stream.sendall(b'served\\n')
threading.Thread(target=serve, daemon=True).start()
print('ready', flush=True)
sys.stdin.read()
";
    let args =
        ["run", "--rm", "-i", "--name", "web", "-p", "8080:80", "-p", "127.0.0.1::80", "-p", "5300:53/udp"];
    let mut container = husk.start([&args[..], &[&image(PYTHON), "python3", "-c", server]].concat());
    container.wait_for_out("ready");
    for address in [LOCALHOST, LOCALHOST6, HOST.into(), HOST6.into()] {
        assert_eq!(ask(address, 8080), "served\n", "{address}");
    }
    for address in [IpAddr::V4(HOST), IpAddr::V6(HOST6)] {
        let answer = world.outside_thread(move || ask(address, 8080));
        assert_eq!(answer.join().unwrap(), "served\n", "{address}");
    }
    let ask_udp = |address: IpAddr| {
        let any: IpAddr =
            if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        // Datagrams may be lost.
        wait_until("an echo", PATIENCE, || {
            socket.send_to(b"hello", (address, 5300)).unwrap();
            let mut buffer = [0; 16];
            socket.recv(&mut buffer).is_ok_and(|len| &buffer[..len] == b"hello")
        });
    };
    ask_udp(LOCALHOST);

    let ports = husk.run(["port", "web"]).expect_code(0).out();
    assert!(ports.contains("80/tcp -> 0.0.0.0:8080\n") && ports.contains("53/udp -> [::]:5300\n"), "{ports}");
    let random: Vec<&str> =
        ports.lines().filter_map(|line| line.strip_prefix("80/tcp -> 127.0.0.1:")).collect();
    assert_eq!(ask(LOCALHOST, random[0].parse().unwrap()), "served\n");
    // What is published on loopback is for the host alone.
    let port = random[0].parse().unwrap();
    assert!(world.outside_thread(move || try_to_ask(HOST, port).is_err()).join().unwrap());

    let vmms = leftovers::vmms(husk.root()).len();
    let taken = husk.shell(&["-p", "8080:80"], "true");
    taken.expect_failure(125, &["port 8080/tcp", "in use"]);
    assert_eq!(leftovers::vmms(husk.root()).len(), vmms);
    container.end();
    assert!(try_to_ask(LOCALHOST, 8080).is_err());
    husk.assert_nothing_left();
    world.assert_no_network_left();
}

#[test]
fn unpublished_ports_are_out_of_reach_from_outside() {
    let (world, husk) = (World::new(), Husk::with_network());
    let container = husk.start_living(&["--ip", "10.208.0.77"], SERVE);
    let address: IpAddr = Ipv4Addr::new(10, 208, 0, 77).into();
    assert_eq!(ask(address, 80), "served\n");
    // Even for who knows the way.
    world.outside(&format!("ip route add 10.208.0.0/20 via {HOST}"));
    let reached = world.outside_thread(move || {
        TcpStream::connect_timeout(&SocketAddr::new(address, 80), Duration::from_secs(3)).is_ok()
    });
    assert!(!reached.join().unwrap());
    container.end();
    husk.assert_nothing_left();
}

#[test]
fn containers_on_a_network_find_each_other_and_others_do_not() {
    let (world, husk) = (World::new(), Husk::with_network());
    for name in ["front", "back"] {
        husk.run(["network", "create", name]).expect_code(0);
    }
    let web = husk.start_living(&["--name", "web", "--network", "name=front,alias=www"], SERVE);
    let both = ["--network", "front", "--network", "back"];
    let get = |name: &str| format!("nc -w 60 {name} 80 </dev/null || echo unreached");
    husk.shell(&both, &get("web")).expect_out("served\n");
    husk.shell(&["--network", "front"], &get("WWW")).expect_out("served\n");
    // Of another network neither the name nor the address is good.
    husk.shell(&["--network", "back"], "nslookup web >/dev/null 2>&1 || echo unknown")
        .expect_out("unknown\n");
    let address = inspect(&husk, "front")["containers"][0]["ipv4"].as_str().unwrap().to_owned();
    let unreached = format!("nc -w 3 {address} 80 </dev/null || echo unreached");
    husk.shell(&["--network", "back"], &unreached).expect_out("unreached\n");
    husk.shell(&[], &unreached).expect_out("unreached\n");

    // One that comes later is known to one that was there.
    let mut early = husk.start(shell_args(
        &["-i", "--network", "front"],
        "echo ready; read line; until nc -w 60 later 80 </dev/null; do sleep 0.1; done",
    ));
    early.wait_for_out("ready");
    let later = husk.start_living(&["--name", "later", "--network", "front"], SERVE);
    early.write(b"go\n");
    early.wait_for_out("served");
    early.finish().expect_code(0);
    later.end();

    husk.run(["network", "rm", "front"]).expect_code(1);
    web.end();
    husk.run(["network", "rm", "front", "back"]).expect_out("removed front\nremoved back\n");
    husk.assert_nothing_left();
    world.assert_no_network_left();
}

#[test]
fn an_internal_network_has_no_way_out() {
    let (world, husk) = (World::new(), Husk::with_network());
    husk.run(["network", "create", "--internal", "--subnet", "10.99.0.0/24", "inside"]).expect_code(0);
    let web = husk.start_living(&["--network", "inside", "--ip", "10.99.0.9"], SERVE);
    let script = format!(
        "nc -w 60 10.99.0.9 80 </dev/null; ping -c 1 -w 2 -q {OUTSIDE} >/dev/null 2>&1 || echo unreached"
    );
    husk.shell(&["--network", "inside"], &script).expect_out("served\nunreached\n");
    husk.shell(&["--network", "inside", "--ip", "10.99.0.9"], "true")
        .expect_failure(125, &["10.99.0.9", "in use"]);
    husk.shell(&["--network", "inside", "--ip", "10.98.0.9"], "true").expect_failure(125, &["10.98.0.9"]);
    web.end();
    husk.assert_nothing_left();
    world.assert_no_network_left();
}

#[test]
fn bad_networks_are_refused() {
    let (_world, husk) = (World::new(), Husk::with_network());
    husk.run(["network", "create", "--subnet", "10.7.0.0/30", "tiny"]).expect_code(0);
    for (args, parts) in [
        (&["create", "tiny"][..], &["tiny", "exists"][..]),
        (&["create", "--subnet", "10.7.0.0/24", "big"], &["overlaps", "tiny"]),
        (&["create", "--subnet", "192.0.2.0/24", "host"], &["host"]),
        (&["create", "--subnet", "192.0.2.0/25", "wan"], &["overlaps", "wan0"]),
        (&["create", "a/b"], &["a/b"]),
        (&["create", "none"], &["none"]),
        (&["create", "--mtu", "1", "small"], &["MTU"]),
    ] {
        husk.run([&["network"], args].concat()).expect_failure(1, parts);
    }
    husk.shell(&["--network", "nowhere"], "true").expect_failure(125, &["nowhere"]);
    husk.shell(&["--network", "host"], "true").expect_code(125);
    let container = husk.start_living(&["--network", "tiny"], "");
    husk.shell(&["--network", "tiny"], "true").expect_failure(125, &["tiny", "no free address"]);
    container.end();
    husk.assert_nothing_left();
}

#[test]
fn a_spoofing_container_is_not_heard() {
    let (world, husk) = (World::new(), Husk::with_network());
    let victim = husk.start_living(&["--ip", "10.208.0.5"], "");
    let heard = world.outside_thread(|| {
        let socket = UdpSocket::bind((OUTSIDE, 7000)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut all = Vec::new();
        let mut buffer = [0; 64];
        while !all.ends_with(b"end") {
            let len = socket.recv(&mut buffer).unwrap();
            all.extend_from_slice(&buffer[..len]);
        }
        all
    });
    let script = format!(
        "import socket, struct
mac = bytes.fromhex(open('/sys/class/net/eth0/address').read().strip().replace(':', ''))
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
raw.bind(('eth0', 0))
victim, outside = socket.inet_aton('10.208.0.5'), socket.inet_aton('{OUTSIDE}')
def checksum(data):
    total = sum(struct.unpack('!%dH' % (len(data) // 2), data))
    total = (total >> 16) + (total & 0xffff)
    return ~(total + (total >> 16)) & 0xffff
udp = struct.pack('!4H', 5000, 7000, 8 + 6, 0) + b'forged'
ip = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, victim, outside)
ip = ip[:10] + struct.pack('!H', checksum(ip)) + ip[12:]
gateway = bytes.fromhex(next(l.split()[3] for l in open('/proc/net/arp') if 'eth0' in l).replace(':', ''))
raw.send(gateway + mac + b'\\x08\\x00' + ip + udp)
# From another Ethernet address, and an answer to a question about somebody else.
raw.send(gateway + b'\\x02\\0\\0\\0\\0\\1' + b'\\x08\\x00' + ip + udp)
raw.send(b'\\xff' * 6 + mac + b'\\x08\\x06' + struct.pack('!HHBBH', 1, 0x800, 6, 4, 2) + mac + victim + mac + victim)
# Garbage, too.
raw.send(b'\\0' * 60)
raw.send(b'\\xff' * 1400)
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.sendto(b'end', ('{OUTSIDE}', 7000))
"
    );
    husk.run(["run", "--rm", &image(PYTHON), "python3", "-c", &script]).expect_code(0);
    assert_eq!(heard.join().unwrap(), b"end");
    let neighbour = shell("ip neighbour show 10.208.0.5");
    let mac = inspect(&husk, "default")["containers"][0]["mac"].as_str().unwrap().to_owned();
    assert!(neighbour.is_empty() || neighbour.contains(&mac), "{neighbour}");
    victim.end();
    husk.assert_nothing_left();
}

#[test]
fn a_limit_of_bandwidth_holds() {
    let (world, husk) = (World::new(), Husk::with_network());
    let server = world.outside_thread(|| echo(OUTSIDE.into(), 7000, 0));
    let script = format!("head -c 300000 /dev/zero | nc {OUTSIDE} 7000 | wc -c; echo done; cat");
    let mut container =
        husk.start(shell_args(&["-i", "--network", "name=default,tx=1mbit,rx=1mbit"], &script));
    container.wait_for_out("done");
    assert!(container.out().starts_with("300000\n"));
    let socket =
        std::fs::read_dir(husk.run_dir()).unwrap().flatten().map(|entry| entry.path().join("control"));
    let socket = socket.into_iter().find(|path| path.exists()).unwrap();
    let mut control = std::os::unix::net::UnixStream::connect(socket).unwrap();
    control.write_all(b"{\"op\":\"metrics\"}\n").unwrap();
    let mut line = String::new();
    io::BufRead::read_line(&mut io::BufReader::new(&control), &mut line).unwrap();
    let metrics: Value = serde_json::from_str(&line).unwrap();
    for direction in ["rx_throttled", "tx_throttled"] {
        let throttled = metrics["ok"]["nets"]["net0"][direction].as_u64();
        assert!(throttled.is_some_and(|count| count > 0), "{direction} {metrics}");
    }
    server.join().unwrap();
    container.end();
}

#[test]
fn a_firewall_that_drops_is_named_with_what_helps() {
    let (world, husk) = (World::new(), Husk::with_network());
    shell(
        "nft add table ip theirs
         nft add chain ip theirs forward '{ type filter hook forward priority 0; policy drop; }'",
    );
    let before = shell("nft list ruleset");
    let reach = format!("ping -c 1 -w 2 -q {OUTSIDE} >/dev/null && echo reached || echo unreached");
    let output = husk.shell(&[], &reach).expect_code(0);
    let err = output.err();
    assert_eq!(output.out(), "unreached\n");
    assert!(err.starts_with("husk: note: ") && err.contains("chain forward of table ip theirs"), "{err}");
    let remedy = err.split_once("run: ").unwrap().1;
    assert_eq!(shell("nft list ruleset"), before);
    shell(remedy);
    let output = husk.shell(&[], &reach).expect_code(0);
    assert_eq!((output.out(), output.err()), ("reached\n".into(), String::new()));
    drop(world);
}

#[test]
fn what_a_kill_leaves_is_repaired() {
    let (world, husk) = (World::new(), Husk::with_network());
    husk.run(["network", "create", "mine"]).expect_code(0);
    for network in ["default", "mine"] {
        let killed = husk.start_living(&["--network", network, "-p", "8080:80"], SERVE);
        husk.kill_supervisor();
        killed.finish().expect_code(125);
        assert!(shell("nft list ruleset").contains("8080"));
    }
    // The next that starts, on whatever network, takes away what is left on all.
    husk.shell(&["-p", "8080:80"], "true").expect_code(0);
    world.assert_no_network_left();
    let killed = husk.start_living(&["--network", "mine"], "");
    husk.kill_supervisor();
    killed.finish().expect_code(125);
    let pruned = husk.run(["network", "prune"]).expect_code(0).out();
    assert!(pruned.contains("removed mine"), "{pruned}");
    world.assert_no_network_left();
    husk.shell(&["--network", "none"], "ls /sys/class/net").expect_out("lo\n");
    husk.assert_nothing_left();
}
