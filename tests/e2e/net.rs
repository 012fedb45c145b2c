//! Network interfaces on taps, each test in a network namespace of its own.

use std::{
    fs::File,
    net::{Ipv4Addr, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    thread,
};

use husk_tests::{
    net::{bring_up, in_namespace, make_inheritable, make_persistent, tap_queue, transfer},
    oci::noise,
    vm::{Plan, Vm},
    wait::PATIENCE,
};
use serde_json::{Value, json};

const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// 64 MiB in the blocks of a transfer.
const MIB_64: u64 = 1024;

/// Boots a VM with an interface whose tap has the host's address, and gives the guest its own.
fn boot(plan: Plan, net: &Value) -> Vm {
    let mut vm = plan.with("nets", json!([net])).boot();
    assert_eq!(vm.ask(&format!("up eth0 {GUEST}")), "ok");
    assert_eq!(vm.ask("tcp 80"), "ok");
    vm
}

fn connect() -> TcpStream {
    let stream = TcpStream::connect((GUEST, 80)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn counter(vm: &Vm, name: &str) -> u64 {
    vm.control("metrics")["ok"]["nets"]["eth0"][name].as_u64().unwrap()
}

fn reset(mut vm: Vm) {
    vm.tell("reset");
    let (output, ended) = vm.finish();
    assert_eq!(output.expect_code(0).err(), "");
    assert!(!ended.console().contains("failed"), "{}", ended.console());
}

#[test]
fn one_queue_pair_moves_much_and_large_both_ways() {
    in_namespace(|| {
        make_persistent(&tap_queue("tap0", false).unwrap()).unwrap();
        bring_up("tap0", HOST, 24).unwrap();
        let net = json!({"id": "eth0", "tap": {"name": "tap0"}, "mac": "02:00:00:00:00:02", "mtu": 1400});
        let mut vm = boot(Plan::new(), &net);
        assert_eq!(vm.ask("net eth0"), "mac=02:00:00:00:00:02 mtu=1400 queues=1");

        // Frames larger than packets: neither side has cut them up.
        for (out, back, direction) in [(MIB_64, 0, "rx"), (0, MIB_64, "tx")] {
            let [frames, bytes] = [format!("{direction}_frames"), format!("{direction}_bytes")];
            let before = [counter(&vm, &frames), counter(&vm, &bytes)];
            transfer(&connect(), out, back).unwrap();
            let (frames, bytes) = (counter(&vm, &frames) - before[0], counter(&vm, &bytes) - before[1]);
            assert!((64 << 20..80 << 20).contains(&bytes), "{bytes} {direction} bytes");
            assert!(bytes / frames > 2800, "{frames} frames of {bytes} {direction} bytes");
        }
        transfer(&connect(), MIB_64 / 4, MIB_64 / 4).unwrap();

        assert_eq!(vm.ask("udp 90"), "ok");
        let socket = UdpSocket::bind((HOST, 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        for len in [1, 1372, 1373, 9000, 60_000] {
            let sent = noise(len);
            socket.send_to(&sent, (GUEST, 90)).unwrap();
            let mut found = vec![0; 1 << 16];
            let len = socket.recv(&mut found).unwrap();
            assert!(found[..len] == sent, "{len} bytes");
        }
        for name in ["rx_dropped", "rx_errors", "rx_throttled", "tx_dropped", "tx_errors", "tx_throttled"] {
            assert_eq!(counter(&vm, name), 0, "{name}");
        }
        reset(vm);
    });
}

#[test]
fn two_queue_pairs_serve_two_cpus() {
    in_namespace(|| {
        let queues = [0, 1].map(|_| tap_queue("tap0", true).unwrap());
        queues.iter().for_each(|queue| make_inheritable(queue).unwrap());
        bring_up("tap0", HOST, 24).unwrap();
        let fds = queues.each_ref().map(AsRawFd::as_raw_fd);
        let net = json!({"id": "eth0", "tap": {"fds": fds}, "mac": "02:00:00:00:00:02", "queue_pairs": 2});
        // With less memory the guest's TCP drops what it has no room for, and waits ever longer to be sent it again.
        let mut vm = boot(Plan::new().with("vcpus", 2).with("mem_size_mib", 512), &net);
        assert_eq!(vm.ask("net eth0"), "mac=02:00:00:00:00:02 mtu=1500 queues=2");
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| transfer(&connect(), 64, 64).unwrap());
            }
        });
        for name in ["rx_dropped", "rx_errors", "tx_dropped", "tx_errors", "control_errors"] {
            assert_eq!(counter(&vm, name), 0, "{name}");
        }
        reset(vm);
    });
}

#[test]
fn rate_limits_change_while_frames_move() {
    in_namespace(|| {
        make_persistent(&tap_queue("tap0", false).unwrap()).unwrap();
        bring_up("tap0", HOST, 24).unwrap();
        let net = json!({"id": "eth0", "tap": {"name": "tap0"}, "mac": "02:00:00:00:00:02"});
        let vm = boot(Plan::new(), &net);
        // Less than any machine moves.
        let limit = json!({"bytes": {"size": 10_000, "refill_ms": 100}});
        let ask = |id: &str, rx: &Value, tx: &Value| {
            vm.control_line(&json!({"op": "set_net_limit", "id": id, "rx": rx, "tx": tx}).to_string())
        };
        assert_eq!(ask("eth0", &limit, &limit)["ok"], json!({}));
        transfer(&connect(), 4, 4).unwrap();
        let throttled = [counter(&vm, "rx_throttled"), counter(&vm, "tx_throttled")];
        assert!(throttled.iter().all(|count| *count > 0), "{throttled:?}");
        assert_eq!(ask("eth0", &json!({}), &json!({}))["ok"], json!({}));
        transfer(&connect(), 32, 32).unwrap();
        assert_eq!([counter(&vm, "rx_throttled"), counter(&vm, "tx_throttled")], throttled);
        assert!(ask("eth1", &limit, &limit)["error"].as_str().unwrap().contains("eth1"));
        let zero = json!({"ops": {"size": 0, "refill_ms": 1}});
        assert!(ask("eth0", &zero, &limit)["error"].is_string());
        reset(vm);
    });
}

#[test]
fn an_interface_joins_a_running_vm() {
    in_namespace(|| {
        let mut vm = Plan::new().with("spare_nets", 1).boot();
        assert!(vm.ask("net eth0").starts_with("error: "));
        let attach = |id: &str, mac: &str| json!({"op": "attach_net", "id": id, "mac": mac, "mtu": 1400});
        let line = attach("late", "02:00:00:00:00:02");
        let answer = vm.control_line(&line.to_string());
        assert!(answer["error"].as_str().is_some_and(|text| text.contains("no descriptor")), "{answer}");
        let answer = vm.control_with_file(&line, &File::open("/dev/null").unwrap());
        assert!(answer["error"].as_str().is_some_and(|text| text.contains("as a tap")), "{answer}");

        let tap = File::from(tap_queue("tap0", false).unwrap());
        let answer = vm.control_with_file(&line, &tap);
        assert_eq!(answer["ok"]["slot"], "sparenet0", "{answer}");
        // The VMM has it.
        drop(tap);
        bring_up("tap0", HOST, 24).unwrap();
        let device = answer["ok"]["device"].as_str().unwrap();
        assert_eq!(vm.ask(&format!("plug {device}")), "ok");
        assert_eq!(vm.ask("net eth0"), "mac=02:00:00:00:00:02 mtu=1400 queues=1");
        assert_eq!(vm.ask(&format!("up eth0 {GUEST}")), "ok");
        assert_eq!(vm.ask("tcp 80"), "ok");
        transfer(&connect(), 64, 64).unwrap();
        let counters = vm.control("metrics")["ok"]["nets"]["late"].clone();
        for name in ["rx_bytes", "tx_bytes"] {
            assert!(counters[name].as_u64().is_some_and(|bytes| bytes > 4 << 20), "{counters}");
        }
        let limit = json!({"op": "set_net_limit", "id": "late", "rx": {}});
        assert_eq!(vm.control_line(&limit.to_string())["ok"], json!({}));

        let other = File::from(tap_queue("tap1", false).unwrap());
        let answer = vm.control_with_file(&attach("later", "02:00:00:00:00:03"), &other);
        assert!(answer["error"].as_str().is_some_and(|text| text.contains("spare_nets")), "{answer}");
        reset(vm);
    });
}
