//! Networks and servers that fail.

use std::fs;
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use husk_image::{Error, Store};

use crate::fixture::{Puller, TestImage};
use crate::server::{Delivery, Reply, Server, is_for, registry_reply};

const SIZE: usize = 300_000;

#[tokio::test]
async fn a_broken_download_is_continued_where_it_broke() {
    let made = TestImage::new(&[SIZE, 100]);
    let (image, digest, failures) = (made.clone(), made.layer_digest(0), AtomicUsize::new(0));
    let server = Server::start(move |request| {
        let reply = registry_reply(&image, request);
        if is_for(request, &digest) && failures.fetch_add(1, Ordering::SeqCst) < 3 {
            return reply.delivery(Delivery::CutAfter(50_000));
        }
        reply
    });
    let puller = Puller::new();
    puller.check(&puller.pull(&format!("{}/x", server.host)).await.unwrap(), &made);
    let ranges: Vec<Option<String>> = server
        .requests(&made.layer_digest(0).to_string())
        .iter()
        .map(|r| r.header("range").map(str::to_owned))
        .collect();
    let expected = [None, Some("bytes=50000-"), Some("bytes=100000-"), Some("bytes=150000-")];
    assert_eq!(ranges, expected.map(|r| r.map(str::to_owned)));
}

#[tokio::test]
async fn a_server_that_ignores_ranges_sends_all_again() {
    let made = TestImage::new(&[SIZE]);
    let (image, digest, count) = (made.clone(), made.layer_digest(0), AtomicUsize::new(0));
    let server = Server::start(move |request| {
        let mut request = request.clone();
        request.headers.remove("range");
        let reply = registry_reply(&image, &request);
        if is_for(&request, &digest) && count.fetch_add(1, Ordering::SeqCst) == 0 {
            return reply.delivery(Delivery::CutAfter(70_000));
        }
        reply
    });
    let puller = Puller::new();
    puller.check(&puller.pull(&format!("{}/x", server.host)).await.unwrap(), &made);
}

#[tokio::test]
async fn a_server_that_continues_wrongly_is_started_over_with() {
    let made = TestImage::new(&[SIZE]);
    let digest = made.layer_digest(0);
    // The wrong place, no continuation at all, and a place that is right with bytes that are not.
    for wrong in [0, 1, 2] {
        let (image, digest, count) = (made.clone(), digest.clone(), AtomicUsize::new(0));
        let server = Server::start(move |request| {
            let mut reply = registry_reply(&image, request);
            if !is_for(request, &digest) {
                return reply;
            }
            match (count.fetch_add(1, Ordering::SeqCst), wrong) {
                (0, _) => reply.delivery(Delivery::CutAfter(70_000)),
                (1, 0) => {
                    let range =
                        format!("bytes 60000-{}/{}", image.layers[0].len() - 1, image.layers[0].len());
                    reply.headers.clear();
                    reply.header("Content-Range", range)
                }
                (1, 1) => Reply::new(416, b""),
                (1, _) => {
                    reply.body[0] ^= 1;
                    reply
                }
                _ => reply,
            }
        });
        let puller = Puller::new();
        puller.check(&puller.pull(&format!("{}/x", server.host)).await.unwrap(), &made);
        let last = server.requests(&made.layer_digest(0).to_string()).pop().unwrap();
        assert_eq!(last.header("range"), None, "case {wrong}");
    }
}

#[tokio::test]
async fn endless_breaks_end_and_the_next_pull_goes_on() {
    let made = TestImage::new(&[SIZE]);
    let (image, digest) = (made.clone(), made.layer_digest(0));
    let server = Server::start(move |request| {
        let reply = registry_reply(&image, request);
        if is_for(request, &digest) { reply.delivery(Delivery::CutAfter(1000)) } else { reply }
    });
    let puller = Puller::new();
    let error = puller.pull(&format!("{}/x", server.host)).await.unwrap_err();
    assert!(matches!(&error, Error::Network { host, .. } if *host == server.host), "{error}");
    let digest = made.layer_digest(0);
    assert_eq!(server.requests(&digest.to_string()).len(), 6);
    assert_eq!(puller.ingests(), [digest.hex()]);
    assert_eq!(puller.store.list().unwrap(), []);

    // Another process, another server.
    let image = made.clone();
    let good = Server::start(move |request| registry_reply(&image, request));
    puller.check(&puller.pull(&format!("{}/x", good.host)).await.unwrap(), &made);
    assert_eq!(good.requests(&digest.to_string())[0].header("range"), Some("bytes=6000-"));
}

#[tokio::test]
async fn what_an_earlier_process_left_is_not_trusted() {
    let made = TestImage::new(&[SIZE]);
    let image = made.clone();
    let server = Server::start(move |request| registry_reply(&image, request));
    let full = made.layers[0].len();
    for left in [vec![0; 1000], vec![0; full], vec![0; full + 1], made.layers[0].clone()] {
        let puller = Puller::new();
        fs::write(puller.store.root().join("ingest").join(made.layer_digest(0).hex()), &left).unwrap();
        puller.check(&puller.pull(&format!("{}/x", server.host)).await.unwrap(), &made);
    }
}

#[tokio::test]
async fn a_stalled_server_is_given_up() {
    let made = TestImage::new(&[SIZE]);
    for stalls_at in ["/manifests/", "/blobs/"] {
        let image = made.clone();
        let server = Server::start(move |request| {
            let reply = registry_reply(&image, request);
            if request.path.contains(stalls_at) { reply.delivery(Delivery::StallAfter(100)) } else { reply }
        });
        let mut puller = Puller::new();
        puller.options.stall_timeout = Duration::from_millis(200);
        let error = puller.pull(&format!("{}/x", server.host)).await.unwrap_err();
        assert!(matches!(&error, Error::Stalled { host, .. } if *host == server.host), "{error}");
    }
}

#[tokio::test]
async fn passing_trouble_is_waited_out() {
    let made = TestImage::new(&[SIZE]);
    let (image, count) = (made.clone(), AtomicUsize::new(0));
    let server = Server::start(move |request| {
        // Every second request fails, one way or the other.
        match count.fetch_add(1, Ordering::SeqCst) % 4 {
            1 => Reply::new(503, b""),
            3 => registry_reply(&image, request).delivery(Delivery::CutAfter(1)),
            _ => registry_reply(&image, request),
        }
    });
    let puller = Puller::new();
    puller.check(&puller.pull(&format!("{}/x", server.host)).await.unwrap(), &made);
}

#[tokio::test]
async fn statuses_have_clear_errors() {
    let made = TestImage::new(&[10]);
    for (status, expected) in [
        (404, "does not exist"),
        (403, "wants a login"),
        (429, "limits the number of pulls"),
        (418, "answered 418"),
        (500, "answered 500"),
    ] {
        let server = Server::start(move |_| Reply::new(status, b""));
        let error = Puller::new().pull(&format!("{}/x", server.host)).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    let (image, digest) = (made.clone(), made.layer_digest(0));
    let server = Server::start(move |request| match is_for(request, &digest) {
        true => Reply::new(404, b""),
        false => registry_reply(&image, request),
    });
    let error = Puller::new().pull(&format!("{}/x", server.host)).await.unwrap_err();
    assert!(matches!(error, Error::BlobMissing { .. }), "{error}");
}

#[tokio::test]
async fn hosts_that_cannot_be_reached_are_named() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = Puller::new().pull(&format!("127.0.0.1:{port}/x")).await.unwrap_err();
    assert!(matches!(&error, Error::Network { host, .. } if *host == format!("127.0.0.1:{port}")), "{error}");
    assert!(error.to_string().contains("Connection refused"), "{error}");
    let error = Puller::new().pull("no-such-host.invalid/x").await.unwrap_err();
    assert!(matches!(&error, Error::Network { host, .. } if host == "no-such-host.invalid"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_at_the_same_time_download_once() {
    let made = TestImage::new(&[SIZE, SIZE / 2, 10, 10]);
    let image = made.clone();
    let server = Server::start(move |request| registry_reply(&image, request));
    let puller = Puller::new();
    let name = format!("{}/x", server.host);
    let pulls = (0..4).map(|_| {
        // A handle of its own, as another process has.
        let (store, options) = (Store::open(puller.store.root()).unwrap(), puller.options.clone());
        let reference = name.parse().unwrap();
        tokio::spawn(async move { husk_image::pull(&store, &reference, &options, &|_| {}).await })
    });
    for pull in pulls.collect::<Vec<_>>() {
        puller.check_content(&pull.await.unwrap().unwrap(), &made);
    }
    for number in 0..3 {
        assert_eq!(server.requests(&made.layer_digest(number).to_string()).len(), 1);
    }
    assert_eq!(puller.ingests(), [""; 0]);
}

#[tokio::test]
async fn a_damaged_store_is_repaired_by_pulling_again() {
    let made = TestImage::new(&[SIZE]);
    let image = made.clone();
    let server = Server::start(move |request| registry_reply(&image, request));
    let puller = Puller::new();
    let name = format!("{}/x", server.host);
    let pulled = puller.pull(&name).await.unwrap();
    fs::write(&pulled.layers[0].path, "short").unwrap();
    assert!(matches!(puller.store.find(&name), Err(Error::Damaged { .. })));
    puller.check(&puller.pull(&name).await.unwrap(), &made);
}
