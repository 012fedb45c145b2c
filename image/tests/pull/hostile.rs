//! Registries that lie.

use husk_image::{BlobState, Digest, Error};
use serde_json::json;

use crate::fixture::{OCI_INDEX, Puller, TestImage, descriptor};
use crate::server::{Delivery, Reply, Server, is_for, registry_reply};

/// Pulls from a server that changes what a good registry would answer about the first layer.
async fn with_layer_reply(change: impl Fn(Reply) -> Reply + Send + Sync + 'static) -> (Puller, Error) {
    let made = TestImage::new(&[100_000]);
    let digest = made.layer_digest(0);
    let server = Server::start(move |request| {
        let reply = registry_reply(&made, request);
        if is_for(request, &digest) { change(reply) } else { reply }
    });
    let puller = Puller::new();
    let error = puller.pull(&format!("{}/x", server.host)).await.unwrap_err();
    (puller, error)
}

#[tokio::test]
async fn wrong_bytes_are_found_and_thrown_away() {
    let (puller, error) = with_layer_reply(|mut reply| {
        reply.body[5000] ^= 1;
        reply
    })
    .await;
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
    assert_eq!(puller.ingests(), [""; 0]);
    assert_eq!(puller.store.list().unwrap(), []);
}

#[tokio::test]
async fn more_bytes_than_announced_are_cut() {
    for delivery in [Delivery::Whole, Delivery::Chunked, Delivery::Endless] {
        let (puller, error) = with_layer_reply(move |mut reply| {
            reply.body.extend(vec![0; 1000]);
            reply.delivery(delivery)
        })
        .await;
        assert!(matches!(error, Error::SizeMismatch { .. }), "{error}");
        assert_eq!(puller.ingests(), [""; 0]);
    }
}

#[tokio::test]
async fn fewer_bytes_than_announced_are_noticed() {
    let (_, error) = with_layer_reply(|mut reply| {
        reply.body.truncate(1000);
        reply
    })
    .await;
    assert!(matches!(error, Error::SizeMismatch { .. }), "{error}");
    // Without a length it looks like a broken connection; the server then has no more to send, ever.
    let (_, error) = with_layer_reply(|mut reply| {
        if reply.status == 206 {
            return Reply::new(416, b"");
        }
        reply.body.truncate(1000);
        reply.delivery(Delivery::Chunked)
    })
    .await;
    assert!(matches!(error, Error::Network { .. }), "{error}");
}

/// Pulls a manifest that should be refused; no blob may be asked for.
async fn refused(manifest: Vec<u8>, delivery: Delivery) -> Error {
    let server = Server::start(move |request| match request.path.as_str() {
        "/v2/" => Reply::new(200, b""),
        _ => Reply::new(200, &manifest).delivery(delivery),
    });
    let puller = Puller::new();
    let error = puller.pull(&format!("{}/x", server.host)).await.unwrap_err();
    assert_eq!(server.requests("/blobs/").len(), 0);
    assert_eq!(puller.ingests(), [""; 0]);
    error
}

#[tokio::test]
async fn absurd_manifests_are_refused_before_any_download() {
    for (manifest, delivery) in [
        (vec![b' '; (4 << 20) + 1], Delivery::Whole),
        (vec![b' '; (4 << 20) + 1], Delivery::Chunked),
        (vec![b' '; 1 << 16], Delivery::Endless),
    ] {
        assert!(matches!(refused(manifest, delivery).await, Error::TooLarge { limit: 4_194_304, .. }));
    }
    for (size, expected) in [
        (json!(-5), "has the size -5"),
        (json!(1_u64 << 41), "is too large"),
        (json!(u64::MAX), "is too large"),
    ] {
        let mut made = TestImage::new(&[10]);
        made.change_manifest(|manifest| manifest["layers"][0]["size"] = size);
        let error = refused(made.manifest, Delivery::Whole).await;
        assert!(error.to_string().contains(expected), "{error}");
    }
    let mut made = TestImage::new(&[10]);
    made.change_manifest(|m| m["layers"] = json!(vec![m["layers"][0].clone(); 1000]));
    assert!(matches!(refused(made.manifest, Delivery::Whole).await, Error::TooLarge { actual: 1000, .. }));
    let schema1 = json!({"schemaVersion": 1, "fsLayers": []}).to_string().into_bytes();
    assert!(refused(schema1, Delivery::Whole).await.to_string().contains("schema version 1"));
    assert!(matches!(refused(b"<html>".to_vec(), Delivery::Whole).await, Error::Invalid { .. }));
    let deep = "[".repeat(1 << 20).into_bytes();
    assert!(matches!(refused(deep, Delivery::Whole).await, Error::Invalid { .. }));
}

#[tokio::test]
async fn manifests_are_verified() {
    let made = TestImage::new(&[10]);
    let other = TestImage::new(&[20]);
    // Asked for by digest, another one comes.
    let manifest = other.manifest.clone();
    let server = Server::start(move |_| Reply::new(200, &manifest));
    let name = format!("{}/x@{}", server.host, Digest::of(&made.manifest));
    let error = Puller::new().pull(&name).await.unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
    // The announced digest is another.
    let (manifest, announced) = (other.manifest.clone(), Digest::of(&made.manifest).to_string());
    let server =
        Server::start(move |_| Reply::new(200, &manifest).header("Docker-Content-Digest", announced.clone()));
    let error = Puller::new().pull(&format!("{}/x", server.host)).await.unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
}

#[tokio::test]
async fn indexes_that_lie_or_never_end_are_refused() {
    let made = TestImage::new(&[10]);
    // The wrong size of a manifest.
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &made.manifest);
    entry["size"] = json!(made.manifest.len() + 1);
    let index = json!({"schemaVersion": 2, "manifests": [entry]}).to_string().into_bytes();
    let server = Server::start(move |request| {
        let manifest = if request.path.contains("sha256:") { &made.manifest } else { &index };
        Reply::new(200, manifest)
    });
    let error = Puller::new().pull(&format!("{}/x", server.host)).await.unwrap_err();
    assert!(matches!(error, Error::SizeMismatch { .. }), "{error}");
    // Index upon index.
    let mut indexes = vec![b"{}".to_vec()];
    for _ in 0..10 {
        let entry = descriptor(OCI_INDEX, indexes.last().unwrap());
        indexes.push(json!({"schemaVersion": 2, "manifests": [entry]}).to_string().into_bytes());
    }
    let server = Server::start(move |request| {
        let found = indexes.iter().find(|index| request.path.ends_with(&Digest::of(index).to_string()));
        Reply::new(200, found.unwrap_or(&indexes[10]))
    });
    let error = Puller::new().pull(&format!("{}/x", server.host)).await.unwrap_err();
    assert!(error.to_string().contains("without end"), "{error}");
}

#[tokio::test]
async fn a_configuration_that_does_not_fit_is_refused() {
    let mut made = TestImage::new(&[10, 20]);
    made.change_manifest(|manifest| {
        manifest["layers"].as_array_mut().unwrap().pop();
    });
    let server = Server::start(move |request| registry_reply(&made, request));
    let error = Puller::new().pull(&format!("{}/x", server.host)).await.unwrap_err();
    assert!(error.to_string().contains("2 diff ids for 1 layers"), "{error}");
}

#[tokio::test]
async fn a_repeated_layer_is_downloaded_once() {
    let mut made = TestImage::new(&[1000]);
    let mut config: serde_json::Value = serde_json::from_slice(&made.config).unwrap();
    config["rootfs"]["diff_ids"] = json!(vec![config["rootfs"]["diff_ids"][0].clone(); 3]);
    made.config = config.to_string().into_bytes();
    let config = descriptor("application/vnd.oci.image.config.v1+json", &made.config);
    made.change_manifest(|m| {
        m["layers"] = json!(vec![m["layers"][0].clone(); 3]);
        m["config"] = config;
    });
    made.layers = vec![made.layers[0].clone(); 3];
    let image = made.clone();
    let server = Server::start(move |request| registry_reply(&image, request));
    let puller = Puller::new();
    puller.check(&puller.pull(&format!("{}/x", server.host)).await.unwrap(), &made);
    assert_eq!(server.requests(&made.layer_digest(0).to_string()).len(), 1);
    assert_eq!(puller.states(&made.layer_digest(0)).last(), Some(&BlobState::Done));
}
