//! `husk check`: what it finds, and what it says when something is missing.

use husk_tests::{
    environment,
    husk::{Husk, shell_args},
    install::Install,
    process::{Output, Running},
};
use serde_json::Value;

/// A `/dev` of its own that has only what the script adds.
const PRIVATE_DEV: &str =
    "mount -t tmpfs none /dev; mknod -m 666 /dev/null c 1 3; mknod -m 666 /dev/urandom c 1 9;";

fn in_private_dev(husk: &Husk, script: &str) -> Output {
    Running::start(&mut husk.script(&format!("{PRIVATE_DEV} {script}"))).finish()
}

fn item(report: &Value, name: &str) -> Value {
    let items = report["items"].as_array().unwrap();
    items.iter().find(|item| item["name"] == name).unwrap_or_else(|| panic!("no {name} in {report}")).clone()
}

#[test]
fn a_machine_that_can_run_husk_is_told_so() {
    let husk = Husk::fresh();
    let text = husk.run(["check"]).expect_code(0).out();
    assert!(text.contains("ok       KVM: ") && text.contains("This machine can run husk."), "{text}");
    let report = husk.run(["check", "--format", "json"]).expect_code(0);
    let report: Value = serde_json::from_slice(&report.stdout).unwrap();
    assert_eq!(report["usable"], true);
    for name in ["KVM", "guest kernel and initramfs", "mke2fs", "disk space", "cgroup v2"] {
        assert!(!item(&report, name)["found"].as_str().unwrap().is_empty());
    }
}

#[test]
fn without_kvm_check_and_run_say_so() {
    let husk = Husk::new();
    let output = in_private_dev(&husk, "exec \"$HUSK\" check").expect_code(1);
    let text = output.out();
    assert!(text.contains("MISSING  KVM: ") && text.contains("/dev/kvm") && text.contains("-> "), "{text}");
    let output = in_private_dev(&husk, "exec \"$HUSK\" check --format json").expect_code(1);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["usable"], false);
    assert_eq!(item(&report, "KVM")["ok"], false);
    assert!(item(&report, "KVM")["remedy"].is_string());

    let image = environment::image(environment::BUSYBOX);
    let output = in_private_dev(&husk, &format!("exec \"$HUSK\" run --network none {image} true"));
    output.expect_failure(125, &["/dev/kvm"]);
    husk.assert_nothing_left();
}

#[test]
fn without_permission_to_use_kvm_check_and_run_say_so() {
    let mut husk = Husk::fresh();
    let install = Install::new();
    husk.use_bin(install.bin());
    let as_nobody = |command: &str| {
        // Root's device, and a user who is not root, with a root directory of its own.
        let script = format!(
            "mknod -m 600 /dev/kvm c 10 232; chmod 755 \"$ROOT\"; mkdir -p \"$ROOT/own\"; chown 65534 \"$ROOT/own\"; \
             export HUSK_ROOT=\"$ROOT/own\" HOME=\"$ROOT/own\"; exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$HUSK\" {command}"
        );
        in_private_dev(&husk, &script)
    };
    let text = as_nobody("check").expect_code(1).out();
    assert!(text.contains("MISSING  KVM: ") && text.contains("ermission"), "{text}");
    let image = environment::image(environment::BUSYBOX);
    as_nobody(&format!("run --network none {image} true")).expect_failure(125, &["/dev/kvm", "ermission"]);
}

#[test]
fn a_missing_piece_is_named() {
    let mut husk = Husk::fresh();
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(husk.binary(), dir.path().join("husk")).unwrap();
    husk.use_bin(dir.path().into());
    let text = husk.run(["check"]).expect_code(1).out();
    assert!(text.contains("MISSING  guest kernel and initramfs: "), "{text}");
    assert!(text.contains("This machine can't run husk yet."), "{text}");
    husk.run(shell_args(&[], "true")).expect_failure(125, &["not found", "make build"]);
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let husk = Husk::fresh();
    let mut running = Running::start_unread(&mut husk.command(["check"]));
    drop(running.take_stdout());
    let output = running.finish();
    assert!(output.stderr.is_empty(), "{}", output.err());
}
