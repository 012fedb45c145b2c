//! A guest that attacks the VMM from inside of a real VM: `tests/hostile-guest`, in place of a kernel. The VMM is jailed, and
//! ends as if the guest had been a good one; nothing of the host changes, and nothing is left.

use std::{
    fs::{self, Permissions},
    net::Ipv4Addr,
    os::unix::{
        fs::{PermissionsExt, chown},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use husk_tests::{
    environment,
    net::{bring_up, in_namespace, make_persistent, tap_queue},
    process::Output,
    vm::{Ended, Plan, Vm},
    wait::{PATIENCE, wait_until},
};
use serde_json::json;

/// Memory of a guest that needs no more.
const SMALL_MIB: u32 = 128;
/// With memory on both sides of the gap below 4 GiB.
const LARGE_MIB: u32 = 3200;
/// What a VMM and its kernel's work for it may take beside the guest's memory.
const OVERHEAD_MIB: u64 = 32;
/// Most bytes of the console's file.
const CONSOLE_LIMIT: usize = 256 << 10;
/// Most lines that a guest may cause on the VMM's standard error: a burst of 64, ten a minute after that, and word of each gap.
const ERROR_LINES: usize = 64 + 2 * 10 * 4;
/// The attack connects to this port of the host, where somebody listens and never accepts.
const DEAF_PORT: u32 = 1;
/// First of the user ids that these tests give away.
const FIRST_UID: u32 = 1_900_000_000;
/// The host's side of the guest's interface.
const TAP: &str = "tap0";
const TAP_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const DISK_LEN: usize = 1 << 20;

/// A cgroup that kills what takes more memory than agreed. It is removed when this is dropped, and must be empty then.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(name: &str, memory_mib: u64) -> Self {
        let all = Path::new("/sys/fs/cgroup");
        fs::write(all.join("cgroup.subtree_control"), "+memory").unwrap();
        let path = all.join(name);
        fs::create_dir(&path).unwrap();
        fs::write(path.join("memory.max"), (memory_mib << 20).to_string()).unwrap();
        Self(path)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let removed = fs::remove_dir(&self.0);
        assert!(std::thread::panicking() || removed.is_ok(), "{} is left: {removed:?}", self.0.display());
    }
}

/// A jailed VM with the hostile guest in it.
struct Hostile {
    vm: Vm,
    cgroup: Cgroup,
    _deaf: UnixListener,
}

impl Hostile {
    fn start(attacks: &str, mem_size_mib: u32) -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        // Each test is a process of its own, and starts fewer than this.
        let number = std::process::id() * 16 + STARTED.fetch_add(1, Ordering::Relaxed);
        let uid = FIRST_UID + number;
        let cgroup = Cgroup::new(&format!("husk-hostile-{number}"), u64::from(mem_size_mib) + OVERHEAD_MIB);
        let content: Vec<u8> = b"husk".iter().copied().cycle().take(DISK_LEN).collect();
        let plan = Plan::new()
            .disk("writable", &content, false)
            .disk("fixed", &content, true)
            .with("kernel", environment::hostile_guest().to_str())
            .with("initramfs", json!(null))
            .with("cmdline", format!("attack={attacks}"))
            .with("mem_size_mib", mem_size_mib)
            .with("balloon", json!({}))
            .with("spare_disks", 1)
            .with(
                "nets",
                json!([{"id": "eth0", "tap": {"name": TAP}, "mac": "02:00:00:00:00:02", "queue_pairs": 2}]),
            )
            .with("jail", json!({"uid": uid, "cgroup": cgroup.0, "seccomp": "kill"}));
        let sockets = plan.path("sockets");
        fs::create_dir(&sockets).unwrap();
        fs::set_permissions(&sockets, Permissions::from_mode(0o700)).unwrap();
        let deaf = sockets.join(format!("guest_{DEAF_PORT}"));
        let listener = UnixListener::bind(&deaf).unwrap();
        for path in [&sockets, &deaf] {
            chown(path, Some(uid), Some(uid)).unwrap();
        }
        let vsock = json!({"guest_cid": 3, "socket": sockets.join("guest")});
        Self { vm: plan.with("vsock", vsock).start(), cgroup, _deaf: listener }
    }

    /// Waits for the VM's end, and looks at all that it leaves.
    fn finish(self) -> (Output, Ended) {
        let Self { vm, cgroup, .. } = self;
        let (output, ended) = vm.finish();
        let err = output.err();
        assert!(err.lines().count() <= ERROR_LINES, "{err}");
        assert!(!err.contains("panicked") && !err.contains("forbidden"), "{err}");
        let console = fs::read(ended.path("console.log")).unwrap();
        assert!(console.len() <= CONSOLE_LIMIT, "{} bytes on the console", console.len());
        let fixed = fs::read(ended.path("fixed")).unwrap();
        assert!(fixed.iter().eq(b"husk".iter().cycle().take(DISK_LEN)), "a read-only disk has changed");
        assert_eq!(fs::metadata(ended.path("writable")).unwrap().len(), DISK_LEN as u64);
        assert!(!ended.path("control").exists() && !ended.path("sockets/guest").exists(), "sockets are left");
        let events = fs::read_to_string(cgroup.0.join("memory.events")).unwrap();
        assert!(events.lines().any(|line| line == "oom_kill 0"), "too much memory: {events}");
        // Fails when a process is left in it.
        drop(cgroup);
        (output, ended)
    }
}

/// Runs a test in a network namespace with a tap for one hostile VM.
fn with_tap(test: impl FnOnce() + Send) {
    in_namespace(|| {
        make_persistent(&tap_queue(TAP, true).unwrap()).unwrap();
        bring_up(TAP, TAP_ADDRESS, 24).unwrap();
        test();
    });
}

/// Runs attacks, after each of which all devices must work again.
fn attack(attacks: &str, mem_size_mib: u32) {
    with_tap(|| attack_here(attacks, mem_size_mib));
}

fn attack_here(attacks: &str, mem_size_mib: u32) {
    let (output, ended) = Hostile::start(attacks, mem_size_mib).finish();
    let console = ended.console();
    let said = || format!("{}\n{console}", output.err());
    assert!(console.contains("\ndone") && !console.contains("FAILED"), "{}", said());
    for name in attacks.split(',') {
        assert!(console.contains(&format!("end {name}: ok")), "{name}: {}", said());
    }
    output.expect_code(0);
}

#[test]
fn registers_in_every_order_size_and_state() {
    attack("registers,status,features,config", SMALL_MIB);
}

#[test]
fn queues_and_chains_that_point_everywhere() {
    attack("queues,chains,random-rings", SMALL_MIB);
}

#[test]
fn queues_and_chains_around_the_gap_in_memory() {
    attack("queues,chains,random-rings", LARGE_MIB);
}

#[test]
fn requests_and_packets_that_make_no_sense() {
    attack("block,vsock,net,balloon", SMALL_MIB);
}

#[test]
fn ports_processor_registers_and_holes_in_memory() {
    attack("ports,cpuid,msrs,space", SMALL_MIB);
}

#[test]
fn more_console_output_than_anybody_wants() {
    attack("console", SMALL_MIB);
}

#[test]
fn resets_and_notifications_in_floods_do_not_disturb_the_neighbours() {
    with_tap(storm_beside_neighbours);
}

fn storm_beside_neighbours() {
    let mut neighbour = Plan::new().boot();
    let hostile = Hostile::start("resets,notify,notify-forever", SMALL_MIB);
    wait_until("the guest to be at its worst", PATIENCE, || {
        assert!(!hostile.vm.console().contains("FAILED"), "{}", hostile.vm.console());
        hostile.vm.console().contains("begin notify-forever")
    });
    assert_eq!(neighbour.info("cpus"), 1);
    let random = neighbour.ask("random");
    assert_eq!(random.len(), 32, "{random}");
    let mut next = Plan::new().boot();
    assert_eq!(next.info("cpus"), 1);
    end_by_owner(hostile, |hostile| hostile.vm.drop_lifeline());
    assert_eq!(neighbour.info("cpus"), 1);
    for mut vm in [neighbour, next] {
        vm.tell("reset");
        vm.finish().0.expect_code(0);
    }
}

/// A VM that does not end by itself is ended soon.
fn end_by_owner(mut hostile: Hostile, end: impl Fn(&mut Hostile)) {
    let start = Instant::now();
    end(&mut hostile);
    let (output, ended) = hostile.finish();
    assert!(start.elapsed() < Duration::from_secs(20), "it took {} s", start.elapsed().as_secs());
    assert!(!ended.console().contains("done"));
    output.expect_code(0);
}

#[test]
fn a_guest_that_never_ends_is_ended_by_its_owner() {
    let ends: [&(dyn Fn(&mut Hostile) + Sync); 3] = [
        &|hostile| hostile.vm.drop_lifeline(),
        &|hostile| hostile.vm.process().signal(nix::sys::signal::Signal::SIGTERM),
        &|hostile| assert_eq!(hostile.vm.control("shutdown")["ok"], json!({})),
    ];
    with_tap(|| {
        for end in ends {
            let hostile = Hostile::start("notify-forever", SMALL_MIB);
            wait_until("the attack to begin", PATIENCE, || {
                hostile.vm.console().contains("begin notify-forever")
            });
            end_by_owner(hostile, end);
        }
    });
}

#[test]
fn a_cpu_that_can_not_go_on_ends_the_vm_and_nothing_else() {
    with_tap(|| {
        for (attack, code) in [("triple-fault", 10), ("execute-device", 1), ("init-self", 1)] {
            let (output, ended) = Hostile::start(attack, SMALL_MIB).finish();
            assert!(ended.console().contains(&format!("begin {attack}")), "{}", ended.console());
            let err = output.expect_code(code).err();
            assert!(err.starts_with("husk-vmm: ") && err.lines().count() == 1, "{err}");
        }
    });
}
