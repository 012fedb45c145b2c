//! Pulling, listing, removing and loading images.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use husk_tests::{
    environment::{self, BUSYBOX, TlsRegistry, image},
    fake_registry::{FakeRegistry, Fault},
    husk::Husk,
    leftovers,
    oci::{Image, noise},
    process::Running,
};
use serde_json::{Value, json};

/// The name of the image in the archives.
pub(crate) const LOADED: &str = "loaded-busybox:1.0";

/// Copies the busybox image from the registry to wherever skopeo can write.
fn skopeo_copy(to: &str) {
    let from = format!("docker://{}", image(BUSYBOX));
    let mut command = Command::new("skopeo");
    command.args(["copy", "--insecure-policy", "--src-tls-verify=false", &from, to]);
    Running::start(&mut command).finish().expect_code(0);
}

/// Writes the busybox image as `docker save` does.
pub(crate) fn docker_archive(dir: &Path) -> PathBuf {
    let path = dir.join("docker.tar");
    skopeo_copy(&format!("docker-archive:{}:{LOADED}", path.display()));
    path
}

fn list(husk: &Husk) -> Vec<Value> {
    serde_json::from_slice(&husk.run(["images", "--format", "json"]).expect_code(0).stdout).unwrap()
}

#[test]
fn an_image_is_pulled_listed_and_removed() {
    let husk = Husk::fresh();
    assert!(list(&husk).is_empty());
    let name = image(BUSYBOX);
    let short = name.strip_suffix(":latest").unwrap();
    let digest = husk.run(["pull", "--quiet", short]).expect_code(0).out();
    assert!(digest.starts_with("sha256:") && digest.trim_end().len() == 71, "{digest:?}");
    // Again, with nothing left to do.
    husk.run(["pull", "--quiet", &name]).expect_out(&digest);

    let images = list(&husk);
    let [entry] = images.as_slice() else { panic!("{images:?}") };
    assert_eq!(entry["reference"], name.as_str());
    assert_eq!(entry["digest"], digest.trim_end());
    assert_eq!(entry["unpacked"], false);
    assert!(entry["size_bytes"].as_u64().unwrap() > 100_000);
    let id = entry["id"].as_str().unwrap();
    let table = husk.run(["images"]).expect_code(0).out();
    assert!(table.starts_with("IMAGE ") && table.contains(&name) && table.contains(&id[..12]), "{table}");

    // By its digest, it is the same image.
    let by_digest = format!("{short}@{}", digest.trim_end());
    husk.run(["run", "--rm", "--pull", "never", &by_digest, "echo", "hello"]).expect_out("hello\n");
    assert_eq!(list(&husk)[0]["unpacked"], true);

    husk.run(["rmi", &id[..12]]).expect_code(0);
    assert!(list(&husk).is_empty());
    for dir in ["data/images/blobs/sha256", "data/images/ingest"] {
        assert_eq!(fs::read_dir(husk.root().join(dir)).unwrap().count(), 0, "{dir}");
    }
    let disks = fs::read_dir(husk.data().join("disks")).unwrap().flatten();
    let disks: Vec<_> =
        disks.map(|e| e.file_name().into_string().unwrap()).filter(|n| !n.starts_with("empty")).collect();
    assert!(disks.is_empty(), "{disks:?}");
    husk.run(["rmi", &name]).expect_failure(1, &["No such image", &name]);
    husk.assert_nothing_left();
}

#[test]
fn what_a_registry_does_not_have_is_a_clear_error() {
    let husk = Husk::fresh();
    for name in ["no-such-image", "busybox:no-such-tag"] {
        let name = format!("{}/{name}", environment::registry());
        husk.run(["run", "--rm", &name]).expect_failure(125, &[&name, "does not exist"]);
        husk.run(["pull", &name]).expect_failure(1, &[&name, "does not exist"]);
    }
    // Nobody listens on port 1.
    husk.run(["pull", "127.0.0.1:1/image"]).expect_failure(1, &["127.0.0.1:1", "onnection refused"]);
    husk.run(["pull", "bad//name"]).expect_failure(1, &["bad//name"]);
    assert!(list(&husk).is_empty());
    husk.assert_nothing_left();
}

/// A `config.json` with a password for the registry.
fn docker_config(dir: &Path, registry: &TlsRegistry, password: &str) {
    let auth = BASE64_STANDARD.encode(format!("{}:{password}", registry.user));
    fs::write(dir.join("config.json"), json!({"auths": {&registry.host: {"auth": auth}}}).to_string())
        .unwrap();
}

#[test]
fn a_registry_with_tls_wants_the_right_password() {
    let registry = environment::tls_registry();
    let name = format!("{}/{BUSYBOX}", registry.host);
    let config = tempfile::tempdir().unwrap();
    let husk = Husk::fresh().env("SSL_CERT_FILE", &registry.ca).env("DOCKER_CONFIG", config.path());

    husk.run(["pull", &name]).expect_failure(1, &["wants a login", "docker login"]);
    docker_config(config.path(), &registry, "wrong");
    husk.run(["run", "--rm", &name]).expect_failure(125, &["refused the password", &registry.user]);
    fs::write(config.path().join("config.json"), "no json").unwrap();
    husk.run(["pull", &name]).expect_failure(1, &["config.json", "not valid"]);
    docker_config(config.path(), &registry, &registry.password);
    husk.run(["pull", &name]).expect_code(0);
    assert_eq!(list(&husk).len(), 1);
    husk.assert_nothing_left();
}

#[test]
fn a_ca_of_ones_own_is_trusted_when_it_is_put_where_docker_wants_it() {
    let registry = environment::tls_registry();
    let config = tempfile::tempdir().unwrap();
    docker_config(config.path(), &registry, &registry.password);
    let name = format!("{}/{BUSYBOX}", registry.host);
    let husk = Husk::fresh().env("DOCKER_CONFIG", config.path()).env("IMAGE", &name).env("CA", &registry.ca);
    husk.run(["pull", &name]).expect_failure(1, &["no trusted TLS", "certs.d"]);

    // In a mount namespace of its own, since /etc is everybody's.
    let script = "mount -t tmpfs none /etc; dir=/etc/docker/certs.d/${IMAGE%%/*}; mkdir -p \"$dir\"; \
                  cp \"$CA\" \"$dir/ca.crt\"; exec \"$HUSK\" pull \"$IMAGE\"";
    Running::start(&mut husk.script(script)).finish().expect_code(0);
}

#[test]
fn a_pull_policy_says_when_the_registry_is_asked() {
    let husk = Husk::fresh();
    let registry = FakeRegistry::start();
    let name = registry.image("versioned");
    let publish = |version: &str| {
        let (manifest, blobs) = Image::of_prepared(BUSYBOX).file("version", version.as_bytes()).0.finish();
        registry.add("versioned", &manifest, blobs);
    };
    let run = |policy: &str| husk.run(["run", "--rm", "--pull", policy, &name, "cat", "/version"]);
    publish("1");
    run("never").expect_failure(125, &["--pull=never"]);
    run("missing").expect_out("1");
    publish("2");
    run("missing").expect_out("1");
    run("never").expect_out("1");
    run("always").expect_out("2");
    // The image that lost its name is still there.
    let unnamed = list(&husk).iter().filter(|entry| entry["reference"].is_null()).count();
    assert_eq!(unnamed, 1);
    husk.assert_nothing_left();
}

#[test]
fn a_broken_connection_is_continued() {
    let husk = Husk::fresh();
    let registry = FakeRegistry::start();
    let (image, layer) = Image::of_prepared(BUSYBOX).file("noise", &noise(3 << 20));
    let (manifest, blobs) = image.finish();
    registry.add("noisy", &manifest, blobs);
    registry.set_fault(Some((&layer, Fault::CloseAfter(2 << 20))));
    // 2 MiB, then the rest.
    husk.run(["pull", &registry.image("noisy")]).expect_code(0);
    let ranges = registry.wait_for_requests(&layer, 2);
    assert_eq!(ranges, [None, Some("bytes=2097152-".into())]);
    assert!(leftovers::partial_downloads(husk.root()).is_empty());
}

#[test]
fn a_registry_that_always_stops_halfway_is_given_up() {
    let husk = Husk::fresh();
    let registry = FakeRegistry::start();
    let (image, layer) = Image::of_prepared(BUSYBOX).file("noise", &noise(1 << 20));
    let (manifest, blobs) = image.finish();
    registry.add("noisy", &manifest, blobs);
    registry.set_fault(Some((&layer, Fault::CloseAfter(1000))));
    husk.run(["run", "--rm", &registry.image("noisy")]).expect_failure(125, &["cannot talk to 127.0.0.1"]);
    assert!(list(&husk).is_empty());
    husk.assert_nothing_left();
}

#[test]
fn a_layer_that_does_not_match_its_digest_is_refused() {
    let husk = Husk::fresh();
    let registry = FakeRegistry::start();
    let (image, layer) = Image::of_prepared(BUSYBOX).file("noise", &noise(1 << 20));
    let (manifest, blobs) = image.finish();
    registry.add("noisy", &manifest, blobs);
    registry.set_fault(Some((&layer, Fault::Flip(1000))));
    husk.run(["run", "--rm", &registry.image("noisy")])
        .expect_failure(125, &[&layer, "does not match its digest"]);
    assert!(list(&husk).is_empty());
    // What had arrived of the other layers by then stays, to be continued; nothing of the damaged one does.
    let damaged = layer.trim_start_matches("sha256:");
    assert!(leftovers::partial_downloads(husk.root()).iter().all(|path| !path.ends_with(damaged)));
    husk.assert_nothing_left();
}

#[test]
fn archives_and_layouts_are_loaded() {
    let husk = Husk::fresh();
    let docker = docker_archive(husk.root());
    husk.run(["load", "-i", docker.to_str().unwrap()]).expect_out(&format!("Loaded image: {LOADED}\n"));
    husk.run(["run", "--rm", "--pull", "never", LOADED, "echo", "from docker-archive"])
        .expect_out("from docker-archive\n");

    let oci = husk.root().join("oci.tar");
    skopeo_copy(&format!("oci-archive:{}:example.com/oci:tar", oci.display()));
    husk.run_with_input(["load"], fs::read(&oci).unwrap()).expect_out("Loaded image: example.com/oci:tar\n");

    let dir = husk.root().join("layout");
    skopeo_copy(&format!("oci:{}:example.com/oci:dir", dir.display()));
    husk.run(["load", "--input", dir.to_str().unwrap()]).expect_out("Loaded image: example.com/oci:dir\n");
    husk.run(["run", "--rm", "--pull", "never", "example.com/oci:dir", "echo", "from a layout"])
        .expect_out("from a layout\n");

    // The two layouts hold the same blobs, which are unpacked once; Docker's archive has its layers uncompressed.
    let disks = fs::read_dir(husk.data().join("disks")).unwrap().flatten();
    let unpacked = disks.filter(|entry| !entry.file_name().to_string_lossy().starts_with("empty")).count();
    assert_eq!(unpacked, 2);
    husk.assert_nothing_left();
}

#[test]
fn what_is_no_archive_is_not_loaded() {
    let husk = Husk::fresh();
    husk.run_with_input(["load"], noise(100_000)).expect_failure(1, &["not an image archive"]);
    husk.run_with_input(["load"], Vec::new()).expect_failure(1, &["not an image archive"]);
    husk.run(["load", "-i", "/no/such/archive"]).expect_failure(1, &["/no/such/archive"]);
    husk.run(["load", "-i", "/proc"]).expect_failure(1, &["/proc"]);
    let archive = fs::read(docker_archive(husk.root())).unwrap();
    husk.run_with_input(["load"], archive[..archive.len() / 2].to_vec())
        .expect_failure(1, &["standard input"]);
    assert!(list(&husk).is_empty());
    assert!(leftovers::partial_downloads(husk.root()).is_empty());
}

#[test]
fn two_runs_of_the_same_new_image_share_the_work() {
    let husk = Husk::fresh();
    let runs: Vec<_> = (0..2).map(|_| husk.start_shell(&[], "hostname")).collect();
    let names: Vec<_> = runs.into_iter().map(|run| run.finish().expect_code(0).out()).collect();
    assert_ne!(names[0], names[1]);
    husk.assert_nothing_left();
}
