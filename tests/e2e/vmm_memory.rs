//! `husk-vmm` by itself: the guest's memory, and how it comes back to the host.

use std::fs;

use husk_tests::{
    vm::{self, Plan, Vm},
    wait::{PATIENCE, wait_until},
};
use serde_json::json;

const MIB: u64 = 1 << 20;

/// Memory that a process holds now, in bytes.
fn resident(vm: &Vm) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", vm.process().pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

fn end(mut vm: Vm) {
    vm.tell("reset");
    vm.finish().0.expect_code(0);
}

fn set_target(vm: &Vm, mib: u64) -> serde_json::Value {
    vm.control_line(&json!({"op": "set_balloon", "target_mib": mib}).to_string())
}

#[test]
fn a_balloon_takes_memory_and_gives_it_back() {
    let balloon = json!({"free_page_reporting": false});
    let mut vm = Plan::new().with("balloon", balloon).boot();
    assert_eq!(vm.ask("fill 64"), "ok");
    let filled = resident(&vm);
    assert!(filled > 64 * MIB, "{filled}");
    assert_eq!(set_target(&vm, 48)["ok"], json!({}));
    wait_until("the balloon to grow", PATIENCE, || vm.control("balloon")["ok"]["actual_mib"] == 48);
    let counters = vm.control("metrics")["ok"]["balloon"].clone();
    assert!(counters["inflated_pages"].as_u64().unwrap() >= 48 << 8, "{counters}");
    assert_eq!((&counters["ignored_pages"], &counters["failures"]), (&json!(0), &json!(0)));
    let inflated = resident(&vm);
    assert!(inflated + 32 * MIB < filled, "{inflated} of {filled}");
    assert_eq!(set_target(&vm, 0)["ok"], json!({}));
    wait_until("the balloon to shrink", PATIENCE, || vm.control("balloon")["ok"]["actual_mib"] == 0);
    assert_eq!(vm.ask("fill 64"), "ok");
    // A guest of 128 MiB keeps 64.
    assert!(set_target(&vm, 65)["error"].as_str().unwrap().contains("must leave 64 MiB of 128"));
    end(vm);
}

#[test]
fn a_guest_tells_of_its_memory() {
    let vm = Plan::new().with("balloon", json!({})).boot();
    let stats = || vm.control("balloon")["ok"]["stats"].clone();
    wait_until("statistics", PATIENCE, || stats()["total_bytes"].is_u64());
    let first = stats();
    assert!((64 * MIB..128 * MIB).contains(&first["total_bytes"].as_u64().unwrap()), "{first}");
    let faults = first["minor_faults"].as_u64().unwrap();
    let mut vm = vm;
    assert_eq!(vm.ask("fill 16"), "ok");
    wait_until("new statistics", PATIENCE, || {
        vm.control("balloon")["ok"]["stats"]["minor_faults"].as_u64().unwrap() > faults
    });
    end(vm);
}

#[test]
fn free_memory_comes_back_by_itself() {
    let mut vm = Plan::new().with("balloon", json!({})).boot();
    assert_eq!(vm.ask("fill 64"), "ok");
    let reported = || vm.control("metrics")["ok"]["balloon"]["reported_bytes"].as_u64().unwrap();
    wait_until("the guest to report free memory", PATIENCE, || reported() > 48 * MIB);
    wait_until("the host to have it", PATIENCE, || resident(&vm) < 80 * MIB);
    assert_eq!(vm.ask("fill 64"), "ok");
    end(vm);
}

#[test]
fn without_a_balloon_there_is_none_to_ask() {
    let vm = Plan::new().boot();
    for answer in [vm.control("balloon"), set_target(&vm, 1)] {
        assert!(answer["error"].as_str().unwrap().contains("no balloon"), "{answer}");
    }
    end(vm);
}

#[test]
fn shared_and_prefaulted_memory_serve_as_well() {
    let memory = json!({"shared": true});
    let balloon = json!({"target_mib": 32});
    let vm = Plan::new().with("memory", memory).with("balloon", balloon).boot();
    wait_until("the balloon to grow", PATIENCE, || vm.control("balloon")["ok"]["actual_mib"] == 32);
    assert_eq!(vm.control("metrics")["ok"]["balloon"]["failures"], 0);
    end(vm);
    for shared in [false, true] {
        let memory = json!({"shared": shared, "prefault": true});
        let vm = Plan::new().with("memory", memory).boot();
        assert!(resident(&vm) > 128 * MIB, "{}", resident(&vm));
        end(vm);
    }
}

#[test]
fn huge_pages_are_reserved_or_the_guest_does_not_start() {
    let pool = fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    let free: u64 = pool.unwrap_or_default().trim().parse().unwrap_or(0);
    let plan = Plan::new().with("memory", json!({"backing": "hugetlb_2m"}));
    if free >= 64 {
        let mut vm = plan.boot();
        assert_eq!(vm.ask("fill 64"), "ok");
        end(vm);
    } else {
        println!("only {free} free huge pages: the guest must be refused");
        let dir = tempfile::tempdir().unwrap();
        let output = vm::run_config(&plan.config.to_string(), dir.path()).expect_code(1);
        let err = output.err();
        assert!(err.contains("64 free huge pages of 2 MiB") && err.contains("nr_hugepages"), "{err}");
    }
}
