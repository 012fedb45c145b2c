//! Many on one network, and one that is a burden to the others.

use std::{
    collections::HashSet,
    fs,
    io::{Read, Write},
    net::{IpAddr, TcpListener},
    thread,
    time::Duration,
};

use husk_tests::{
    environment::{PYTHON, image},
    husk::{Husk, shell_args},
    leftovers,
    process::Running,
    world::{OUTSIDE, World, shell},
};
use serde_json::Value;

/// With so much to do, in an emulated machine.
const LONG: Duration = Duration::from_secs(300);

/// Sends what it can think of to everybody on its network and elsewhere, until its input ends. Prints what it has sent.
const FLOOD: &str = r#"
import ipaddress, os, random, select, socket, struct, sys
mac = bytes.fromhex(open('/sys/class/net/eth0/address').read().strip().replace(':', ''))
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
raw.bind(('eth0', 0))
raw.setblocking(False)
gateway = bytes.fromhex(next(l.split()[3] for l in open('/proc/net/arp') if 'eth0' in l).replace(':', ''))
everybody = b'\xff' * 6
probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
probe.connect(('192.0.2.2', 9))
own = ipaddress.ip_address(probe.getsockname()[0])
probe = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
probe.connect(('2001:db8::2', 9))
own6 = ipaddress.ip_address(probe.getsockname()[0])
net, net6 = int(own) & ~0xfff, int(own6) >> 64 << 64
udp = struct.pack('!4H', 9, 9, 8, 0)
def checksum(data):
    total = sum(struct.unpack('!%dH' % (len(data) // 2), data))
    total = (total >> 16) + (total & 0xffff)
    return ~(total + (total >> 16)) & 0xffff
def ipv4(to):
    head = struct.pack('!BBHHHBBH', 0x45, 0, 28, 0, 0, 64, 17, 0) + own.packed + to.to_bytes(4, 'big')
    return b'\x08\x00' + head[:10] + struct.pack('!H', checksum(head)) + head[12:] + udp
def ipv6(to):
    return b'\x86\xdd' + struct.pack('!IHBB', 6 << 28, 8, 17, 64) + own6.packed + to.to_bytes(16, 'big') + udp
def arp(asked):
    body = struct.pack('!HHBBH', 1, 0x800, 6, 4, 1) + mac + own.packed + bytes(6) + asked.to_bytes(4, 'big')
    return b'\x08\x06' + body
def frame():
    kind = random.randrange(8)
    n = random.getrandbits(12)
    if kind == 0: return everybody + mac + ipv4(net + 0xfff)
    if kind == 1: return everybody + mac + arp(net + n)
    if kind == 2: return gateway + mac + ipv4(net + n)
    if kind == 3: return gateway + mac + ipv4(random.randrange(0x0b000000, 0x7f000000))
    if kind == 4: return gateway + mac + ipv6(net6 + random.getrandbits(64))
    if kind == 5: return gateway + mac + ipv6((0xfe80 << 112) + random.getrandbits(64))
    if kind == 6: return random.choice([gateway, everybody]) + b'\x02' + random.randbytes(5) + ipv4(net + 1)
    return random.randbytes(random.randrange(14, 1500))
sent = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    for _ in range(100):
        try:
            sent += raw.send(frame()) > 0
        except BlockingIOError:
            select.select([], [raw], [], 1)
    if sent >= 1000:
        print('flooding', flush=True)
print('sent', sent)
"#;

/// What the VMM itself has taken of the host's memory, without the guest's, in KiB.
fn own_memory(process: &leftovers::Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn a_flood_stops_nobody_and_fills_nothing() {
    let (world, husk) = (World::new(), Husk::with_network());
    const REQUESTS: usize = 5;
    let server = world.outside_thread(|| {
        let listener = TcpListener::bind((OUTSIDE, 80)).unwrap();
        for _ in 0..REQUESTS {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1000];
            assert!(stream.read(&mut request).unwrap() > 0);
            stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nserved\n").unwrap();
        }
    });
    let get = format!(
        "read line
         for i in $(seq {REQUESTS}); do printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 100 {OUTSIDE} 80 | tail -n 1; done
         cat >/dev/null"
    );
    let mut other = husk.start(shell_args(&["-i"], &format!("echo ready; {get}")));
    other.wait_for_out("ready");
    let mut flood = husk.start(["run", "--rm", "-i", &image(PYTHON), "python3", "-c", FLOOD]);
    flood.wait_for_out("flooding");

    other.write(b"go\n");
    other.wait_for_out_within(&format!("ready\n{}", "served\n".repeat(REQUESTS)), LONG);
    server.join().unwrap();
    assert!(!flood.has_ended());

    let network: Value = serde_json::from_slice(&husk.run(["network", "inspect", "default"]).stdout).unwrap();
    let containers = network[0]["containers"].as_array().unwrap();
    let leased: HashSet<&str> = containers
        .iter()
        .flat_map(|container| [&container["ipv4"], &container["ipv6"]])
        .map(|address| address.as_str().unwrap())
        .collect();
    let bridge = shell("ip -o link show type bridge").split(": ").nth(1).unwrap().to_owned();
    let neighbours = shell(&format!("ip neighbour show dev {bridge} nud all"));
    // The guests' own link-local addresses, too, if they have spoken.
    let known: HashSet<&str> = neighbours
        .lines()
        .filter(|line| !line.contains("NOARP"))
        .map(|line| line.split(' ').next().unwrap())
        .filter(|address| !leased.contains(address))
        .collect();
    let local = |address: &&str| address.parse::<IpAddr>().is_ok() && address.starts_with("fe80:");
    assert!(
        known.len() <= 2 && known.iter().all(local),
        "{} neighbours, as {:?}",
        known.len(),
        known.iter().next()
    );
    let learned = shell(&format!("bridge fdb show br {bridge} dynamic"));
    let macs: Vec<&str> = containers.iter().map(|container| container["mac"].as_str().unwrap()).collect();
    // Static ones are shown, too: where the guests are.
    let is_guest = |line: &str| macs.iter().any(|mac| line.starts_with(mac));
    assert!(learned.lines().all(is_guest), "{} Ethernet addresses", learned.lines().count());
    for vmm in leftovers::vmms(husk.root()) {
        assert!(own_memory(&vmm) < 64 * 1024, "{vmm}: {} KiB", own_memory(&vmm));
    }

    flood.write(b"stop\n");
    let output = flood.finish().expect_code(0);
    println!("{}", output.out().lines().last().unwrap());
    other.end();
    husk.assert_nothing_left();
    world.assert_no_network_left();
}

#[test]
fn twenty_start_at_once() {
    start_at_once(20);
}

#[test]
#[ignore = "takes more than an emulated machine has: scripts/e2e.sh runs it where there is KVM"]
fn fifty_start_at_once() {
    start_at_once(50);
}

fn start_at_once(count: usize) {
    let (world, husk) = (World::new(), Husk::with_network());
    let server = world.outside_thread(move || {
        let listener = TcpListener::bind((OUTSIDE, 7000)).unwrap();
        for _ in 0..count {
            listener.accept().unwrap().0.write_all(b"served\n").unwrap();
        }
    });
    let script = format!(
        "ip -o address show eth0 | awk '{{print $4}}' | grep -v ^fe80
         nc -w 200 {OUTSIDE} 7000 </dev/null && echo ready; cat >/dev/null"
    );
    let options = ["-i", "-m", "64m", "--boot-timeout", "600"];
    let started = std::time::Instant::now();
    let mut all: Vec<Running> = (0..count).map(|_| husk.start(shell_args(&options, &script))).collect();
    all.iter_mut().for_each(|running| running.wait_for_out_within("served\nready", LONG));
    println!("{count} were ready after {} s", started.elapsed().as_secs());
    server.join().unwrap();
    let out: Vec<String> = all.iter().map(Running::out).collect();
    let addresses: HashSet<&str> =
        out.iter().flat_map(|out| out.lines().filter(|line| line.contains('/'))).collect();
    assert_eq!(addresses.len(), 2 * count, "{addresses:?}");
    let network: Value = serde_json::from_slice(&husk.run(["network", "inspect", "default"]).stdout).unwrap();
    assert_eq!(network[0]["containers"].as_array().unwrap().len(), count);
    // All at once, as they came.
    thread::scope(|scope| all.into_iter().for_each(|running| drop(scope.spawn(|| running.end()))));
    husk.assert_nothing_left();
    world.assert_no_network_left();
}
