//! Disks of `husk-vmm` by itself: what they can do, and how they come and go while the guest runs.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::{FileExt, MetadataExt},
};

use husk_tests::{
    oci::noise,
    vm::{Plan, Vm},
    wait::{PATIENCE, wait_until},
};
use serde_json::{Value, json};

/// Waits until the guest has noticed a change, and expects this of the disk then.
fn expect_disk(vm: &mut Vm, id: &str, expected: &str) {
    wait_until("the guest to notice a disk", PATIENCE, || vm.ask(&format!("disk {id}")) == expected);
}

/// The device of a disk that was attached to `slot`.
fn attached_to(answer: &Value, slot: &str) -> String {
    assert_eq!(answer["ok"]["slot"], slot, "{answer}");
    answer["ok"]["device"].as_str().unwrap().to_owned()
}

/// Tells the guest of a slot.
fn plug(vm: &mut Vm, device: &str) {
    assert_eq!(vm.ask(&format!("plug {device}")), "ok");
}

fn end(mut vm: Vm) {
    vm.tell("reset");
    vm.finish().0.expect_code(0);
}

#[test]
fn disks_are_attached_to_and_detached_from_a_running_vm() {
    let mut vm = Plan::new().with("spare_disks", 2).disk("base", &noise(4096), true).boot();
    let path = vm.path("data");
    let mut content = noise(1 << 20);
    content[..5].copy_from_slice(b"first");
    fs::write(&path, &content).unwrap();
    let attach = |id: &str, read_only: bool| {
        json!({"op": "attach_disk", "id": id, "path": path, "read_only": read_only}).to_string()
    };
    let device = attached_to(&vm.control_line(&attach("data", false)), "spare0");
    plug(&mut vm, &device);
    expect_disk(&mut vm, "data", "bytes=1048576 ro=0");
    assert_eq!(vm.ask("read data 0 5"), "first");
    assert_eq!(vm.ask("write data 1000 written by a guest"), "ok");
    assert_eq!(&fs::read(&path).unwrap()[1000..1018], b"written by a guest");

    let detach = json!({"op": "detach_disk", "id": "data"}).to_string();
    assert_eq!(vm.control_line(&detach)["ok"], json!({}));
    let held = |vm: &Vm| {
        let open = fs::read_dir(format!("/proc/{}/fd", vm.process().pid())).unwrap();
        open.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target == path))
    };
    assert!(!held(&vm), "a detached disk is still open");
    expect_disk(&mut vm, "spare0", "bytes=0 ro=0");
    assert!(vm.ask("read spare0 0 5").starts_with("error: "));
    assert!(vm.ask("disk data").starts_with("error: "));

    // The same slot again, with another disk that only its device knows to be read-only.
    attached_to(&vm.control_line(&attach("again", true)), "spare0");
    assert!(held(&vm));
    expect_disk(&mut vm, "again", "bytes=1048576 ro=0");
    assert_eq!(vm.ask("read again 1000 18"), "written by a guest");
    let before = fs::read(&path).unwrap();
    assert!(vm.ask("write again 0 x").starts_with("error: "));
    assert!(fs::read(&path).unwrap() == before);

    for (line, part) in [
        (attach("again", true), "already"),
        (attach("base", true), "already"),
        (detach, "no disk data"),
        (json!({"op": "detach_disk", "id": "base"}).to_string(), "configuration"),
        (json!({"op": "attach_disk", "id": "x", "read_only": true}).to_string(), "neither"),
        (
            json!({"op": "attach_disk", "id": "x", "path": "/no/such", "read_only": true}).to_string(),
            "/no/such",
        ),
    ] {
        let answer = vm.control_line(&line);
        assert!(answer["error"].as_str().is_some_and(|text| text.contains(part)), "{line}: {answer}");
    }
    end(vm);
}

#[test]
fn a_disk_can_be_attached_by_an_open_descriptor() {
    let mut vm = Plan::new().with("spare_disks", 1).boot();
    let path = vm.path("data");
    fs::write(&path, noise(8192)).unwrap();
    let line = json!({"op": "attach_disk", "id": "data", "read_only": false});
    let answer = vm.control_with_file(&line, &File::open(&path).unwrap());
    assert!(answer["error"].as_str().is_some_and(|text| text.contains("writing")), "{answer}");
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    // The file's name does not matter.
    fs::remove_file(&path).unwrap();
    let device = attached_to(&vm.control_with_file(&line, &file), "spare0");
    plug(&mut vm, &device);
    expect_disk(&mut vm, "data", "bytes=8192 ro=0");
    assert_eq!(vm.ask("write data 4000 by descriptor"), "ok");
    let mut text = [0; 13];
    file.read_exact_at(&mut text, 4000).unwrap();
    assert_eq!(&text, b"by descriptor");
    end(vm);
}

#[test]
fn discards_and_zeros_reach_the_file() {
    let mut vm = Plan::new().disk("data", &[7; 1 << 20], false).boot();
    let path = vm.path("data");
    let blocks = || fs::metadata(&path).unwrap().blocks();
    let before = blocks();
    assert_eq!(vm.ask("zero data 4096 8192"), "ok");
    let content = fs::read(&path).unwrap();
    assert!(content[4096..12288].iter().all(|byte| *byte == 0));
    assert!(content[..4096].iter().chain(&content[12288..]).all(|byte| *byte == 7));
    assert_eq!(vm.ask("discard data 524288 524288"), "ok");
    assert!(blocks() < before, "nothing was given back");
    assert_eq!(fs::metadata(&path).unwrap().len(), 1 << 20);
    let counters = vm.control("metrics")["ok"]["disks"]["data"].clone();
    assert_eq!(counters["discarded_bytes"], 524_288, "{counters}");
    assert!(vm.ask("zero data 1048576 4096").starts_with("error: "));
    end(vm);
}

#[test]
fn a_disk_may_have_several_queues_and_a_limit_that_changes() {
    let mut plan = Plan::new().with("vcpus", 2).disk("data", &noise(1 << 20), false);
    plan.config["disks"][0]["queues"] = 2.into();
    plan.config["disks"][0]["limit"] = json!({"ops": {"size": 1000, "refill_ms": 1}});
    let mut vm = plan.boot();
    assert_eq!(vm.ask("queues data"), "2");
    assert_eq!(vm.ask("write data 5000 through a queue"), "ok");
    assert_eq!(vm.ask("read data 5000 15"), "through a queue");
    // One operation at once, and the next ones after longer than any test takes.
    let limit =
        |limit: serde_json::Value| json!({"op": "set_disk_limit", "id": "data", "limit": limit}).to_string();
    let answer = vm.control_line(&limit(json!({"ops": {"size": 1, "refill_ms": 1_000_000_000}})));
    assert_eq!(answer["ok"], json!({}));
    vm.tell("write data 6000 late");
    let throttled = |vm: &Vm| vm.control("metrics")["ok"]["disks"]["data"]["throttled"].as_u64().unwrap();
    wait_until("a request to be held up", PATIENCE, || throttled(&vm) > 0);
    assert!(!vm.has_answer());
    assert_eq!(vm.control_line(&limit(json!({})))["ok"], json!({}));
    assert_eq!(vm.answer(), "ok");
    end(vm);
}
