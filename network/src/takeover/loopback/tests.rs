use std::{
    io::{Read, Write},
    net::{TcpListener as StdListener, TcpStream as StdStream},
};

use tokio::io::AsyncWriteExt;

use super::*;
use crate::{
    netns,
    testing::{Sandboxed, block_on, ip},
};

/// Dials inside a namespace, without holding up the runtime.
async fn dial(netns: &Arc<Netns>, address: &'static str) -> io::Result<String> {
    let netns = Arc::clone(netns);
    let dialled = tokio::task::spawn_blocking(move || {
        netns.run(|| {
            let mut text = String::new();
            StdStream::connect(address)?.read_to_string(&mut text)?;
            Ok(text)
        })
    });
    dialled.await.unwrap().unwrap()
}

#[test]
fn every_port_of_the_loopback_is_handed_on_and_nothing_else() {
    let Some(_own) = Sandboxed::enter() else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pod");
    let netns = Arc::new(netns::create(&path).unwrap());
    netns.run(|| ip("addr add 10.3.3.3/32 dev lo")).unwrap();
    let other = netns.run(|| StdListener::bind("10.3.3.3:5000").unwrap()).unwrap();
    std::thread::spawn(move || {
        for stream in other.incoming() {
            stream.unwrap().write_all(b"other").unwrap();
        }
    });

    block_on(async {
        let refused = dial(&netns, "127.0.0.1:80").await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);

        let loopback = Loopback::open(&netns).unwrap();
        let serving = tokio::spawn(loopback.serve(|port, mut stream| async move {
            stream.write_all(format!("port {port}").as_bytes()).await.unwrap();
        }));
        for (address, expected) in [
            ("127.0.0.1:80", "port 80"),
            ("127.0.0.1:1", "port 1"),
            ("127.5.6.7:8080", "port 8080"),
            ("[::1]:65535", "port 65535"),
            ("10.3.3.3:5000", "other"),
        ] {
            assert_eq!(dial(&netns, address).await.unwrap(), expected, "{address}");
        }
        // Only inside that namespace.
        assert_eq!(StdStream::connect("127.0.0.1:80").unwrap_err().kind(), io::ErrorKind::ConnectionRefused);

        serving.abort();
        assert!(serving.await.unwrap_err().is_cancelled());
        let refused = dial(&netns, "127.0.0.1:80").await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "nothing is left");
    });
    netns::remove(&path).unwrap();
}

#[test]
fn without_ipv6_there_is_still_ipv4() {
    let Some(_own) = Sandboxed::enter() else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pod");
    let netns = Arc::new(netns::create(&path).unwrap());
    netns.run(|| std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap()).unwrap();
    block_on(async {
        let loopback = Loopback::open(&netns).unwrap();
        assert!(loopback.v6.is_none());
        let _serving = tokio::spawn(loopback.serve(|port, mut stream| async move {
            stream.write_all(&port.to_be_bytes()).await.unwrap();
        }));
        assert_eq!(dial(&netns, "127.0.0.1:16705").await.unwrap(), "AA");
    });
    netns::remove(&path).unwrap();
}
