//! `kill -9` at each stage: nothing runs on, and the next run finds its way.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use husk_tests::{
    environment::{BUSYBOX, image, test_initramfs},
    fake_registry::{FakeRegistry, Fault},
    husk::Husk,
    install::Install,
    leftovers::{self, Process},
    oci::{Image, noise},
    process::Running,
    wait::{PATIENCE, wait_for, wait_until},
};
use nix::sys::signal::{Signal, kill};

/// Kills a client that has not come to starting its container.
fn kill_husk(husk: &Husk, running: Running) {
    running.signal(Signal::SIGKILL);
    running.finish().expect_code(137);
    wait_until("everything to end with husk", PATIENCE, || leftovers::processes(husk.root()).is_empty());
}

fn wait_for_vmm(husk: &Husk, running: &mut Running) -> Process {
    wait_for("the VMM", PATIENCE, || {
        assert!(!running.has_ended(), "husk ended by itself");
        leftovers::vmms(husk.root()).pop()
    })
}

/// Bytes of the half-made disk in this root that are really on the host's disk.
fn unpacked_bytes(root: &Path) -> Option<u64> {
    let entries = fs::read_dir(root.join("data/disks")).ok()?;
    let unfinished = entries.flatten().find(|entry| entry.path().extension().is_some_and(|e| e == "tmp"))?;
    Some(unfinished.metadata().ok()?.blocks() * 512)
}

#[test]
fn while_pulling_then_the_next_pull_goes_on_where_it_stopped() {
    const SENT: usize = 1 << 20;
    let husk = Husk::fresh();
    let registry = FakeRegistry::start();
    let (image, layer) = Image::of_prepared(BUSYBOX).file("noise", &noise(3 << 20));
    let (manifest, blobs) = image.finish();
    registry.add("noisy", &manifest, blobs);
    registry.set_fault(Some((&layer, Fault::StallAfter(SENT))));

    let running = husk.start(["run", "--rm", &registry.image("noisy"), "true"]);
    registry.wait_for_requests(&layer, 1);
    let partial = husk.data().join("images/ingest").join(layer.trim_start_matches("sha256:"));
    let so_far = || fs::metadata(&partial).map_or(0, |meta| meta.len());
    wait_until("the first megabyte", PATIENCE, || so_far() == SENT as u64);
    kill_husk(&husk, running);

    registry.set_fault(None);
    husk.run(["run", "--rm", &registry.image("noisy"), "wc", "-c", "/noise"]).expect_out("3145728 /noise\n");
    let ranges = registry.wait_for_requests(&layer, 2);
    assert_eq!(ranges, [None, Some(format!("bytes={SENT}-"))]);
    assert!(leftovers::partial_downloads(husk.root()).is_empty());
    husk.assert_nothing_left();
}

#[test]
fn while_unpacking_then_the_next_run_unpacks_anew() {
    let husk = Husk::fresh();
    let registry = FakeRegistry::start();
    let (image, _) = Image::of_prepared(BUSYBOX).file("noise", &noise(32 << 20));
    let (manifest, blobs) = image.finish();
    registry.add("noisy", &manifest, blobs);

    let mut running = husk.start(["run", "--rm", &registry.image("noisy"), "true"]);
    wait_until("the layers to reach the disk", PATIENCE, || {
        assert!(!running.has_ended(), "husk ended by itself");
        unpacked_bytes(husk.root()) > Some(8 << 20)
    });
    kill_husk(&husk, running);

    let script = "wc -c </noise; rm /noise; echo gone";
    husk.run(["run", "--rm", &registry.image("noisy"), "sh", "-c", script]).expect_out("33554432\ngone\n");
    husk.assert_nothing_left();
}

#[test]
fn of_the_supervisor_while_booting_then_the_next_run_cleans_up() {
    let mut husk = Husk::new();
    let usual = husk.binary().parent().unwrap().to_owned();
    // A guest that never answers stays in this stage.
    let install = Install::with_initramfs(&test_initramfs());
    husk.use_bin(install.bin());
    let mut running = husk.start_shell(&["--name", "one"], "true");
    wait_for_vmm(&husk, &mut running);
    husk.kill_supervisor();
    running.finish().expect_code(125);

    husk.use_bin(usual);
    husk.shell(&["--name", "one"], "echo next").expect_out("next\n");
    husk.assert_nothing_left();
}

#[test]
fn of_the_supervisor_while_running_then_the_next_run_cleans_up() {
    let husk = Husk::new();
    let mut running = husk.start_shell(&["--name", "one"], "echo ready; sleep 1000");
    running.wait_for_out("ready");
    husk.kill_supervisor();
    running.finish().expect_code(125);

    husk.shell(&["--name", "one"], "echo next").expect_out("next\n");
    husk.assert_nothing_left();
}

#[test]
fn of_the_vmm_while_booting_is_a_clear_error() {
    let mut husk = Husk::new();
    let install = Install::with_initramfs(&test_initramfs());
    husk.use_bin(install.bin());
    let mut running = husk.start_shell(&[], "true");
    let vmm = wait_for_vmm(&husk, &mut running);
    kill(vmm.pid, Signal::SIGKILL).unwrap();
    running.finish().expect_failure(125, &["ended before its agent answered", "killed"]);
    husk.assert_nothing_left();
}

#[test]
fn of_the_vmm_while_running_is_a_clear_error() {
    let husk = Husk::new();
    let mut running = husk.start_shell(&[], "echo ready >&2; sleep 1000");
    running.wait_for_err("ready");
    let vmm = wait_for_vmm(&husk, &mut running);
    kill(vmm.pid, Signal::SIGKILL).unwrap();
    running.finish().expect_failure(125, &["ended unexpectedly", "killed"]);
    husk.assert_nothing_left();
}

#[test]
fn while_loading_then_loading_again_works() {
    let husk = Husk::fresh();
    let archive = super::images::docker_archive(husk.root());
    let bytes = fs::read(archive).unwrap();
    let mut running = husk.start(["load"]);
    running.write(&bytes[..bytes.len() / 2]);
    wait_until("the archive's first half to be stored", PATIENCE, || {
        assert!(!running.has_ended(), "husk ended by itself");
        !leftovers::partial_downloads(husk.root()).is_empty()
    });
    kill_husk(&husk, running);

    husk.run_with_input(["load"], bytes).expect_code(0);
    assert!(leftovers::partial_downloads(husk.root()).is_empty());
    let images = husk.run(["images"]).expect_code(0).out();
    assert!(images.contains(super::images::LOADED), "{images}");
    assert!(!images.contains(&image(BUSYBOX)), "{images}");
}
