//! The way from the host to the guest's loopback address.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UnixStream},
};

use super::{
    containers::guest_tests,
    guest::{Guest, in_guest},
    network::ip,
};
use crate::forward::forward;

/// A connection to be forwarded, with the port said already.
async fn dial(port: u16) -> UnixStream {
    let (mut host, guest) = UnixStream::pair().unwrap();
    tokio::spawn(forward(guest));
    host.write_all(&port.to_be_bytes()).await.unwrap();
    host
}

async fn rest(stream: &mut (impl AsyncReadExt + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    bytes
}

guest_tests! {
    async fn copies_both_ways_and_half_closes(_guest: Guest) {
        ip("link set lo up");
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).await.unwrap();
            let mut host = dial(listener.local_addr().unwrap().port()).await;
            let (mut service, _) = listener.accept().await.unwrap();
            // More than any buffer between the two takes.
            let sent: Vec<u8> = (0..8_u32 << 20).map(|n| n.to_le_bytes()[1]).collect();
            let send = async {
                host.write_all(&sent).await.unwrap();
                host.shutdown().await.unwrap();
            };
            let ((), received) = tokio::join!(send, rest(&mut service));
            assert!(received == sent, "{address}");
            // The other direction is still open.
            service.write_all(b"answer").await.unwrap();
            drop(service);
            assert_eq!(rest(&mut host).await, b"answer");
        }
    }

    async fn a_refused_connection_is_closed(_guest: Guest) {
        ip("link set lo up");
        assert_eq!(rest(&mut dial(7).await).await, b"");
    }
}
