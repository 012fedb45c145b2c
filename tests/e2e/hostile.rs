//! Images that are broken or mean harm, pulled from a real registry: one clear error each, and nothing left.

use std::fs;

use husk_tests::{
    environment::{BUSYBOX, image},
    fake_registry::FakeRegistry,
    husk::Husk,
    leftovers,
    oci::Image,
};

/// Tries to run an image whose layers are bad.
fn expect_bad_layers(husk: &Husk, name: &str, options: &[&str], parts: &[&str]) {
    let image = image(name);
    let args = [&["run", "--rm"], options, &[image.as_str()]].concat();
    husk.run(args).expect_failure(125, &[&["cannot unpack image", &image], parts].concat());
    husk.assert_nothing_left();
    let disks = fs::read_dir(husk.data().join("disks")).unwrap().flatten();
    let disks: Vec<_> = disks.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    assert!(disks.iter().all(|name| name.starts_with("empty")), "{name} left {disks:?}");
}

#[test]
fn layers_that_climb_out_of_the_root_are_refused() {
    let husk = Husk::fresh();
    for name in ["climb-dotdot", "climb-inside", "climb-whiteout"] {
        expect_bad_layers(&husk, name, &[], &["climbs out of the root"]);
    }
    expect_bad_layers(&husk, "climb-hardlink", &[], &["hard link's target is not in the root"]);
}

#[test]
fn names_and_links_that_lead_outside_stay_inside() {
    let husk = Husk::fresh();
    // The image's root is what its links see as /.
    let script = "cat /absolute /via-symlink; ls /out/absolute";
    husk.run(["run", "--rm", &image("stays-inside"), "sh", "-c", script])
        .expect_out("insideinside/out/absolute\n");
    assert!(!fs::exists("/absolute").unwrap() && !fs::exists("/via-symlink").unwrap());
    husk.assert_nothing_left();
}

#[test]
fn a_bomb_fills_no_more_than_its_limit() {
    expect_bad_layers(
        &Husk::fresh(),
        "bomb",
        &["--storage-size", "64m"],
        &["does not fit into 64 MiB", "--storage-size"],
    );
}

#[test]
fn damaged_layers_are_refused() {
    let husk = Husk::fresh();
    for name in ["truncated", "flipped", "not-a-tar", "wrong-diff-id"] {
        expect_bad_layers(&husk, name, &[], &[]);
    }
}

#[test]
fn absurd_manifests_are_refused_before_anything_is_downloaded() {
    let husk = Husk::fresh();
    for (name, part) in [("absurd-size", "too large"), ("wrong-size", "size"), ("arm-only", "linux/arm64")] {
        let image = image(name);
        husk.run(["run", "--rm", &image]).expect_failure(125, &[part]);
        assert_eq!(husk.run(["images", "--format", "json"]).expect_code(0).out().trim(), "[]", "{name}");
        assert!(leftovers::partial_downloads(husk.root()).is_empty(), "{name}");
    }
    husk.assert_nothing_left();
}

#[test]
fn a_manifest_whose_parts_the_registry_lacks_is_refused() {
    let husk = Husk::fresh();
    let registry = FakeRegistry::start();
    let (manifest, blobs) = Image::of_prepared(BUSYBOX).finish();
    for (name, missing) in [("no-config", &manifest["config"]), ("no-layer", &manifest["layers"][0])] {
        let digest = missing["digest"].as_str().unwrap();
        let others = blobs.iter().filter(|(name, _)| name != digest).cloned().collect();
        registry.add(name, &manifest, others);
        husk.run(["run", "--rm", &registry.image(name)]).expect_failure(125, &["has lost", digest]);
    }
    assert_eq!(husk.run(["images", "--format", "json"]).expect_code(0).out().trim(), "[]");
    husk.assert_nothing_left();
}
