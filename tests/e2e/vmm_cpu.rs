//! `husk-vmm` by itself: the processor that a guest sees, and its clocks.

use std::{
    fs,
    thread::sleep,
    time::{Duration, Instant, SystemTime},
};

use husk_tests::vm::{self, Plan, Vm};
use serde_json::json;

fn end(mut vm: Vm) -> vm::Ended {
    vm.tell("reset");
    let (output, ended) = vm.finish();
    output.expect_code(0);
    ended
}

/// The kernel's warnings are on the console as well.
const TALKATIVE: &str = "panic=-1 earlyprintk=ttyS0,keep 8250.nr_uarts=0";

fn expect_no_warnings(ended: &vm::Ended) {
    let console = ended.console();
    assert!(console.contains("Linux version"), "the console is quiet: {console}");
    assert!(!console.contains("XSAVE consistency") && !console.contains("WARNING: CPU"), "{console}");
}

fn flags(vm: &mut Vm) -> Vec<String> {
    vm.ask("cpu flags").split(' ').map(str::to_owned).collect()
}

#[test]
fn the_hosts_cpu_has_no_virtualization_and_no_inconsistencies() {
    let mut vm = Plan::new().with("cmdline", TALKATIVE).boot();
    let flags = flags(&mut vm);
    let has = |name: &str| flags.iter().any(|flag| flag == name);
    assert!(has("hypervisor") && has("sse4_2"), "{flags:?}");
    for hidden in ["vmx", "svm", "monitor", "rtm", "sgx", "arch_perfmon", "perfctr_core", "ibs", "amx_tile"] {
        assert!(!has(hidden), "{hidden}");
    }
    let host = fs::read_to_string("/proc/cpuinfo").unwrap();
    let host_has = |name: &str| host.split_whitespace().any(|word| word == name);
    for kept in ["avx", "avx2", "aes", "xsave"] {
        assert_eq!(has(kept), host_has(kept), "{kept}");
    }
    expect_no_warnings(&end(vm));
}

#[test]
fn a_template_shows_its_own_cpu_or_names_what_the_host_lacks() {
    let host = fs::read_to_string("/proc/cpuinfo").unwrap();
    let host_has = |flag: &&str| host.split_whitespace().any(|word| word == *flag);
    const V3: [&str; 8] = ["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"];
    const V4: [&str; 5] = ["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"];
    for (template, there, gone) in [
        ("x86-64-v2", &[][..], [&V3[..], &V4[..], &["sha_ni", "adx"]].concat()),
        ("x86-64-v3", &V3[..], [&V4[..], &["sha_ni", "adx"]].concat()),
        ("x86-64-v4", &V4[..], vec!["sha_ni", "adx", "avx512_vnni"]),
    ] {
        let plan = Plan::new().with("cpu_template", template).with("cmdline", TALKATIVE);
        if !there.iter().all(host_has) {
            let dir = tempfile::tempdir().unwrap();
            let output = vm::run_config(&plan.config.to_string(), dir.path()).expect_code(1);
            let err = output.err();
            assert!(err.contains("the host lacks ") && err.contains(template), "{err}");
            continue;
        }
        let mut vm = plan.boot();
        assert_eq!(vm.ask("cpu model name"), format!("husk {template}"));
        let flags = flags(&mut vm);
        let has = |name: &&str| flags.iter().any(|flag| flag == name);
        assert!(there.iter().all(has) && has(&"ssse3") && has(&"popcnt"), "{template}: {flags:?}");
        assert!(!gone.iter().any(has), "{template}: {flags:?}");
        expect_no_warnings(&end(vm));
    }
}

/// The guest's clock less the host's, as (at least, at most) nanoseconds, for the wall clock and the monotonic one.
fn offsets(vm: &mut Vm, start: Instant) -> [(i128, i128); 2] {
    let host = || {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        [wall, start.elapsed()].map(|time| i128::try_from(time.as_nanos()).unwrap())
    };
    let before = host();
    let answer = vm.ask("clocks");
    let after = host();
    let mut parts = answer.split(' ').map(|part| part.split_once('=').unwrap().1.parse::<i128>().unwrap());
    [0, 1].map(|clock| {
        let guest = parts.next().unwrap();
        (guest - after[clock], guest - before[clock])
    })
}

#[test]
fn clocks_are_right_after_a_pause() {
    // Two clocks that run at almost the same speed.
    const DRIFT: i128 = 50_000_000;
    let start = Instant::now();
    let mut vm = Plan::new().with("vcpus", 2).boot();
    let before = offsets(&mut vm, start);
    assert_eq!(vm.control("pause")["ok"], json!({}));
    // How long the pause lasts is what this test is about.
    sleep(Duration::from_secs(2));
    assert_eq!(vm.control("resume")["ok"], json!({}));
    let after = offsets(&mut vm, start);
    for (name, before, after) in [("wall", before[0], after[0]), ("monotonic", before[1], after[1])] {
        let possible = before.0.max(after.0) <= before.1.min(after.1) + DRIFT;
        assert!(possible, "the {name} clock was ahead by {before:?} ns and is now by {after:?}");
    }
    assert_eq!(vm.ask("cpu processor"), "0");
    let console = end(vm).console();
    assert!(!console.contains("lockup") && !console.contains("stall"), "{console}");
}

#[test]
fn exits_and_processor_time_are_counted() {
    let mut vm = Plan::new().with("vcpus", 2).boot();
    vm.control("pause");
    vm.control("resume");
    vm.ask("info");
    let vcpus = vm.control("metrics")["ok"]["vcpus"].clone();
    let count = |vcpu: usize, name: &str| vcpus[vcpu][name].as_u64().unwrap();
    // The first vCPU finds the devices.
    assert!(count(0, "mmio_read_exits") > 0 && count(0, "mmio_write_exits") > 0, "{vcpus}");
    assert!((0..2).all(|vcpu| count(vcpu, "cpu_ns") > 0), "{vcpus}");
    let text = vm.control_line(r#"{"op":"metrics","format":"prometheus"}"#)["ok"].clone();
    assert!(text.as_str().unwrap().contains("husk_vmm_vcpu_cpu_ns{id=\"1\"} "), "{text}");
    end(vm);
}
