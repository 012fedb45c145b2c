//! `husk-vmm` by itself: machines, their ends, and the control socket.

use husk_tests::{
    environment,
    oci::noise,
    vm::{self, Plan, Vm},
    wait::{PATIENCE, wait_until},
};

/// Asks the guest to end, and expects the VMM to end as that asks for.
fn end_by(mut vm: Vm, command: &str, code: i32) -> vm::Ended {
    vm.tell(command);
    let (output, ended) = vm.finish();
    output.expect_code(code);
    assert!(!ended.path("control").exists() && !ended.path("vsock").exists(), "sockets are left");
    ended
}

#[test]
fn a_reset_is_a_clean_end_and_a_panic_is_not() {
    let ended = end_by(Plan::new().boot(), "reset", 0);
    assert!(!ended.console().contains("panic"), "{}", ended.console());
    let mut vm = Plan::new().boot();
    vm.tell("panic");
    let (output, ended) = vm.finish();
    assert!(output.expect_code(10).err().contains("panicked"));
    assert!(
        ended.console().contains("Kernel panic - not syncing: Attempted to kill init!"),
        "{}",
        ended.console()
    );
}

#[test]
fn one_to_thirty_two_cpus() {
    for vcpus in [1, 2, 5, 32] {
        let mut vm = Plan::new().with("vcpus", vcpus).with("mem_size_mib", 256).boot();
        assert_eq!(vm.info("cpus"), vcpus);
        end_by(vm, "reset", 0);
    }
}

#[test]
fn memory_from_64_mib_to_beyond_the_gap_below_4_gib() {
    for (mib, usable_mib) in [(64, 20), (3072, 2900), (3073, 2900), (5000, 4800)] {
        let mut vm = Plan::new().with("mem_size_mib", mib).boot();
        let found = vm.info("memory_kib") >> 10;
        assert!((usable_mib..mib).contains(&found), "{found} MiB of {mib}");
        end_by(vm, "reset", 0);
    }
}

#[test]
fn without_a_console_there_is_no_serial_port_and_no_file() {
    let mut plan = Plan::new();
    plan.config.as_object_mut().unwrap().remove("console");
    let mut vm = plan.boot();
    vm.ask("log into the void");
    let ended = end_by(vm, "reset", 0);
    assert!(!ended.path("console.log").exists());

    let mut vm = Plan::new().boot();
    vm.ask("log hello console");
    let ended = end_by(vm, "reset", 0);
    assert!(ended.console().contains("guest-init: hello console"), "{}", ended.console());
}

#[test]
fn random_numbers_come_from_the_device() {
    let mut vm = Plan::new().boot();
    let (one, two) = (vm.ask("random"), vm.ask("random"));
    assert!(one.len() == 32 && two.len() == 32 && one != two, "{one:?} {two:?}");
    end_by(vm, "reset", 0);
    let mut vm = Plan::new().with("rng", false).boot();
    let answer = vm.ask("random");
    assert!(answer.starts_with("error: "), "{answer}");
    end_by(vm, "reset", 0);
}

#[test]
fn disks_are_found_by_name_and_keep_what_is_flushed() {
    let mut content = noise(1 << 20);
    content[..5].copy_from_slice(b"first");
    // Not a whole number of sectors: the rest reads as zeros.
    let odd = b"odd length".to_vec();
    let plan =
        Plan::new().disk("data", &content, false).disk("odd", &odd, true).disk("base-disk", &content, true);
    let mut vm = plan.boot();
    assert_eq!(vm.ask("disk data"), "bytes=1048576 ro=0");
    assert_eq!(vm.ask("disk odd"), "bytes=512 ro=1");
    assert_eq!(vm.ask("read odd 0 12"), "odd length\\u{0}\\u{0}");
    assert_eq!(vm.ask("read base-disk 0 5"), "first");
    assert_eq!(vm.ask("write data 700000 written by a guest"), "ok");
    assert_eq!(vm.ask("read data 700000 18"), "written by a guest");
    assert!(vm.ask("write base-disk 0 x").starts_with("error: "));
    let data = std::fs::read(vm.path("data")).unwrap();
    assert_eq!(&data[700_000..700_018], b"written by a guest");
    assert!(
        data[..700_000] == content[..700_000] && data[700_018..] == content[700_018..],
        "other bytes have changed"
    );
    let ended = end_by(vm, "reset", 0);
    assert!(std::fs::read(ended.path("base-disk")).unwrap() == content, "a read-only disk has changed");
}

#[test]
fn the_control_socket_tells_the_state_and_the_counters() {
    let mut vm = Plan::new().with("vcpus", 2).boot();
    let state = vm.control("state")["ok"].clone();
    assert_eq!(
        (&state["status"], &state["vcpus"], &state["mem_size_mib"]),
        (&"running".into(), &2.into(), &128.into())
    );
    let stamps =
        ["started_ns", "configured_ns", "first_instruction_ns"].map(|name| state[name].as_u64().unwrap());
    assert!(stamps[0] > 0 && stamps.is_sorted(), "{state}");
    let before = vm.control("metrics")["ok"].clone();
    vm.ask("info");
    let after = vm.control("metrics")["ok"].clone();
    assert!(before.is_object() && before != after, "{before}");
    for line in ["", "junk", "{\"op\":\"explode\"}", "{\"op\":\"state\",\"more\":1}"] {
        let answer = vm.control_line(line);
        assert!(answer["error"].is_string(), "{line:?}: {answer}");
    }
    end_by(vm, "reset", 0);
}

#[test]
fn a_paused_guest_does_nothing_until_it_is_resumed() {
    let mut vm = Plan::new().with("vcpus", 2).boot();
    assert_eq!(vm.control("pause")["ok"], serde_json::json!({}));
    assert_eq!(vm.control("state")["ok"]["status"], "paused");
    // Twice is as good as once.
    assert_eq!(vm.control("pause")["ok"], serde_json::json!({}));
    vm.tell("info");
    for _ in 0..20 {
        vm.control("state");
        assert!(!vm.has_answer(), "a paused guest has answered");
    }
    assert_eq!(vm.control("resume")["ok"], serde_json::json!({}));
    assert!(vm.answer().starts_with("cpus=2 "));
    assert_eq!(vm.control("state")["ok"]["status"], "running");
    end_by(vm, "reset", 0);
}

#[test]
fn shutdown_lifeline_and_sigterm_end_a_vm_at_once() {
    let vm = Plan::new().boot();
    assert_eq!(vm.control("shutdown")["ok"], serde_json::json!({}));
    vm.finish().0.expect_code(0);
    let mut vm = Plan::new().boot();
    vm.drop_lifeline();
    vm.finish().0.expect_code(0);
    let vm = Plan::new().boot();
    vm.control("pause");
    vm.process().signal(nix::sys::signal::Signal::SIGTERM);
    vm.finish().0.expect_code(0);
}

#[test]
fn an_owner_that_is_gone_from_the_start_ends_the_vm() {
    let mut vm = Plan::new().start();
    vm.drop_lifeline();
    vm.finish().0.expect_code(0);
}

#[test]
fn bad_usage_and_bad_configurations_are_told_from_failures() {
    let dir = tempfile::tempdir().unwrap();
    let good =
        serde_json::json!({"kernel": environment::guest().join("vmlinux"), "vcpus": 1, "mem_size_mib": 128});
    let with = |field: &str, value: serde_json::Value| {
        let mut config = good.clone();
        config[field] = value;
        config.to_string()
    };
    for (config, part) in [
        (String::new(), "not valid"),
        ("{".into(), "not valid"),
        (with("nets", 1.into()), "not valid"),
        (with("bogus", 1.into()), "bogus"),
        (with("vcpus", 0.into()), "1 to 32"),
        (with("vcpus", 33.into()), "1 to 32"),
        (with("mem_size_mib", 63.into()), "mem_size_mib is 63, must be 64 to"),
        (with("cmdline", "a\nb".into()), "cmdline"),
        (with("vsock", serde_json::json!({"guest_cid": 1, "socket": "/x"})), "guest_cid"),
    ] {
        expect_error(vm::run_config(&config, dir.path()), 2, part);
    }
    let junk = dir.path().join("junk");
    std::fs::write(&junk, noise(10_000)).unwrap();
    for (config, part) in [
        (with("kernel", junk.to_str().into()), "junk"),
        (with("kernel", "/no/such/kernel".into()), "/no/such/kernel"),
        (with("kernel", "/bin/true".into()), "/bin/true"),
        (with("initramfs", "/no/such/initramfs".into()), "/no/such/initramfs"),
        (
            with("disks", serde_json::json!([{"id": "d", "path": "/no/such/disk", "read_only": true}])),
            "/no/such/disk",
        ),
        (with("disks", serde_json::json!([{"id": "d", "path": "/tmp", "read_only": true}])), "/tmp"),
        (with("console", "/no/such/dir/console".into()), "/no/such/dir/console"),
    ] {
        expect_error(vm::run_config(&config, dir.path()), 1, part);
    }
    for args in [
        &[][..],
        &["fly"],
        &["run"],
        &["run", "--config"],
        &["run", "--config", "/no/such/file"],
        &["run", "--x"],
    ] {
        expect_error(vm::run(args), 2, "");
    }
}

/// One line on standard error, and this exit code.
fn expect_error(output: husk_tests::process::Output, code: i32, part: &str) {
    let output = output.expect_code(code);
    let err = output.err();
    assert!(
        err.starts_with("husk-vmm: ") && err.lines().count() == 1 && err.contains(part),
        "{part:?}: {err}"
    );
    assert!(output.stdout.is_empty());
}

#[test]
fn a_corrupt_initramfs_is_a_panic_of_the_guest() {
    let plan = Plan::new();
    let junk = plan.path("junk");
    std::fs::write(&junk, noise(1 << 20)).unwrap();
    let (output, ended) = plan.with("initramfs", junk.to_str()).start().finish();
    output.expect_code(10);
    assert!(ended.console().contains("Kernel panic"), "{}", ended.console());
}

#[test]
fn an_initramfs_larger_than_memory_is_refused() {
    let plan = Plan::new();
    let large = plan.path("large");
    std::fs::File::create(&large).unwrap().set_len(200 << 20).unwrap();
    let (output, _ended) = plan.with("initramfs", large.to_str()).start().finish();
    expect_error(output, 1, "200 MiB");
}

#[test]
fn the_guest_can_reach_the_host_and_the_host_the_guest() {
    let mut vm = Plan::new().boot();
    assert!(vm.ask("dial 9 1 1").starts_with("error: "), "nobody listens on the host's port 9");
    assert!(vm.connect(9).is_none(), "nobody listens on the guest's port 9");
    wait_until("the guest to go on", PATIENCE, || vm.info("cpus") == 1);
    end_by(vm, "reset", 0);
}
