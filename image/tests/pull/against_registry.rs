//! Against Debian's docker-registry.

use std::fs;

use husk_image::{BlobState, Digest, Error, Platform};

use crate::fixture::{OCI_INDEX, OCI_MANIFEST, Puller, TestImage, index, write_layout};
use crate::registry::{PASSWORD, Registry, USER};

#[tokio::test]
async fn images_in_both_formats_come_over_http() {
    let registry = Registry::open();
    let made = TestImage::new(&[100_000, 3_000_000, 10]);
    let layout = registry.dir.path().join("layout");
    write_layout(&layout, OCI_MANIFEST, &made.manifest, &[&made]);
    registry.push(&layout, "test/oci:1", &[]);
    registry.push(&layout, "test/docker:1", &["--format=v2s2"]);

    let puller = Puller::new();
    let name = format!("{}/test/oci:1", registry.host);
    let image = puller.pull(&name).await.unwrap();
    puller.check(&image, &made);
    let digest = made.layer_digest(1);
    let expected = [BlobState::Waiting, BlobState::Downloading, BlobState::Verifying, BlobState::Done];
    assert_eq!(puller.states(&digest), expected);

    // Again, and by digest: nothing is downloaded.
    assert_eq!(puller.pull(&name).await.unwrap(), image);
    assert_eq!(puller.states(&digest), [BlobState::Exists]);
    let by_digest = format!("{}/test/oci@{}", registry.host, image.manifest_digest);
    assert_eq!(puller.pull(&by_digest).await.unwrap().config_digest, image.config_digest);

    // Docker's format has other manifests for the same layers.
    let docker = puller.pull(&format!("{}/test/docker:1", registry.host)).await.unwrap();
    assert_ne!(docker.manifest_digest, image.manifest_digest);
    assert_eq!(docker.disk_key(), image.disk_key());
    assert_eq!(puller.states(&digest), [BlobState::Exists]);
}

#[tokio::test]
async fn the_build_for_the_platform_is_chosen() {
    let registry = Registry::open();
    let amd64 = TestImage::new(&[1000]);
    let arm64 = TestImage::for_architecture("arm64", &[2000]);
    let layout = registry.dir.path().join("layout");
    let builds = index(&[("arm64", &arm64), ("amd64", &amd64)]);
    write_layout(&layout, OCI_INDEX, &builds, &[&arm64, &amd64]);
    registry.push(&layout, "multi:1", &["--all"]);
    registry.push(&layout, "multi:arm", &["--override-arch=arm64"]);

    let mut puller = Puller::new();
    let name = format!("{}/multi:1", registry.host);
    puller.check(&puller.pull(&name).await.unwrap(), &amd64);
    // By the digest of the index, the image is found without asking the registry.
    let by_index = format!("{}/multi@{}", registry.host, Digest::of(&builds));
    assert!(puller.store.get(&by_index.parse().unwrap()).unwrap().is_some());

    puller.options.platform = "linux/arm64/v8".parse().unwrap();
    puller.check(&puller.pull(&name).await.unwrap(), &arm64);
    puller.options.platform = "linux/s390x".parse().unwrap();
    let error = puller.pull(&name).await.unwrap_err();
    assert!(
        error.to_string().contains("no build for linux/s390x: it offers linux/amd64, linux/arm64"),
        "{error}"
    );

    // A single manifest for something else is noticed by its configuration.
    puller.options.platform = Platform::default();
    let error = puller.pull(&format!("{}/multi:arm", registry.host)).await.unwrap_err();
    assert!(matches!(error, Error::NoSuchPlatform { .. }), "{error}");
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let registry = Registry::open();
    let made = TestImage::new(&[10]);
    let layout = registry.dir.path().join("layout");
    write_layout(&layout, OCI_MANIFEST, &made.manifest, &[&made]);
    registry.push(&layout, "some:1", &[]);
    let puller = Puller::new();
    for name in ["some:2", "other:1", &format!("some@{}", Digest::of(b"x"))] {
        let error = puller.pull(&format!("{}/{name}", registry.host)).await.unwrap_err();
        assert!(matches!(error, Error::NotFound(_)), "{error}");
    }
    assert_eq!(puller.store.list().unwrap(), []);
}

#[tokio::test]
async fn tls_and_password_are_demanded_and_used() {
    let registry = Registry::secure();
    let made = TestImage::new(&[200_000, 100]);
    let layout = registry.dir.path().join("layout");
    write_layout(&layout, OCI_MANIFEST, &made.manifest, &[&made]);
    registry.push(&layout, "private/x:1", &[]);
    let host = &registry.host;
    let name = format!("{host}/private/x:1");
    let puller = Puller::new();

    let error = puller.pull(&name).await.unwrap_err();
    assert!(matches!(&error, Error::Tls { .. }), "{error}");
    assert!(error.to_string().contains(&format!("/etc/docker/certs.d/{host}/ca.crt")), "{error}");

    let ca = puller.certs_dir(host).join("ca.crt");
    fs::write(&ca, "no certificate").unwrap();
    assert!(matches!(puller.pull(&name).await, Err(Error::Certificate { .. })));
    fs::copy(registry.dir.path().join("ca.crt"), &ca).unwrap();

    let error = puller.pull(&name).await.unwrap_err();
    assert!(matches!(&error, Error::LoginNeeded { .. }), "{error}");
    puller.log_in(host, USER, "wrong");
    let error = puller.pull(&name).await.unwrap_err();
    assert!(matches!(&error, Error::BadCredentials { user, .. } if user == USER), "{error}");
    assert!(!error.to_string().contains("wrong"), "the password is not shown: {error}");
    puller.log_in(host, USER, PASSWORD);
    puller.check(&puller.pull(&name).await.unwrap(), &made);
    let error = puller.pull(&format!("{host}/private/x:2")).await.unwrap_err();
    assert!(matches!(error, Error::NotFound(_)), "{error}");
}

#[tokio::test]
async fn a_self_signed_certificate_is_trusted_when_put_down() {
    let registry = Registry::self_signed();
    let made = TestImage::new(&[1000]);
    let layout = registry.dir.path().join("layout");
    write_layout(&layout, OCI_MANIFEST, &made.manifest, &[&made]);
    registry.push(&layout, "x:1", &[]);
    let puller = Puller::new();
    puller.log_in(&registry.host, USER, PASSWORD);
    let name = format!("{}/x:1", registry.host);
    assert!(matches!(puller.pull(&name).await, Err(Error::Tls { .. })));
    // Another one, by the same name, is not enough.
    let other = Registry::self_signed();
    let trusted = puller.certs_dir(&registry.host).join("ca.crt");
    fs::copy(other.dir.path().join("server.crt"), &trusted).unwrap();
    assert!(matches!(puller.pull(&name).await, Err(Error::Tls { .. })));
    fs::copy(registry.dir.path().join("server.crt"), &trusted).unwrap();
    puller.check(&puller.pull(&name).await.unwrap(), &made);
    // It does not hold for a name that is not in it.
    let port = registry.host.rsplit(':').next().unwrap();
    let alias = format!("localhost:{port}");
    puller.log_in(&alias, USER, PASSWORD);
    fs::copy(&trusted, puller.certs_dir(&alias).join("ca.crt")).unwrap();
    let error = puller.pull(&format!("{alias}/x:1")).await.unwrap_err();
    assert!(matches!(&error, Error::Tls { .. }), "{error}");
}
