//! A full disk: a small tmpfs in a mount namespace of its own.

use std::env;
use std::path::Path;
use std::process::Command;

use husk_image::{Error, LoadOptions, Source, Store, load};

use crate::fixture::{OCI_MANIFEST, Puller, TestImage, write_layout};
use crate::server::{Server, registry_reply};

const MOUNT_POINT: &str = "HUSK_TEST_SMALL_DISK";

/// Runs the test below where it may mount something.
#[test]
fn a_full_disk_is_said_to_be_full() {
    let dir = tempfile::tempdir().unwrap();
    let status = Command::new("unshare")
        .args(["--map-root-user", "--mount"])
        .arg(env::current_exe().unwrap())
        .args(["--exact", "no_space::inside", "--ignored", "--nocapture"])
        .env(MOUNT_POINT, dir.path())
        .status()
        .expect("unshare, of util-linux");
    assert!(status.success());
}

#[tokio::test]
#[ignore = "started by the test above, in a mount namespace"]
async fn inside() {
    let disk = env::var(MOUNT_POINT).expect("started by the test above");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "none", &disk]).status();
    assert!(mounted.unwrap().success());
    let root = Path::new(&disk).join("store");
    let mut puller = Puller::new();
    puller.store = Store::open(&root).unwrap();
    let made = TestImage::new(&[3 << 20]);
    let image = made.clone();
    let server = Server::start(move |request| registry_reply(&image, request));

    let name = format!("{}/x", server.host);
    let error = puller.pull(&name).await.unwrap_err();
    assert!(matches!(&error, Error::NoSpace { store } if *store == root), "{error}");
    assert_eq!(puller.ingests(), [""; 0]);

    let layout = tempfile::tempdir().unwrap();
    write_layout(layout.path(), OCI_MANIFEST, &made.manifest, &[&made]);
    let error =
        load(&puller.store, Source::Path(layout.path()), &LoadOptions::default(), &|_| {}).unwrap_err();
    assert!(matches!(&error, Error::NoSpace { store } if *store == root), "{error}");
    assert_eq!(puller.ingests(), [""; 0]);

    // What fits still works.
    let small = TestImage::new(&[1000]);
    let image = small.clone();
    let server = Server::start(move |request| registry_reply(&image, request));
    puller.check(&puller.pull(&format!("{}/x", server.host)).await.unwrap(), &small);
}
