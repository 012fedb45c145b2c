//! The TCP half of the relay.

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    io::copy_bidirectional_with_sizes,
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};

/// How long a connection waits for the container's address to answer.
const CONNECT_TIME: Duration = Duration::from_secs(15);
/// Pause before an address that nobody has yet is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Pause after the system refused to accept, most likely for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Bytes in flight per connection and direction, apart from the sockets' own buffers.
const BUFFER: usize = 32 * 1024;

/// Relays all connections to `listener`. Never returns; dropped, it closes them all.
pub(super) async fn serve(listener: TcpListener, target: SocketAddr, permits: Arc<Semaphore>) {
    let mut connections = FuturesUnordered::new();
    // Lives on when a connection ends meanwhile: it may hold a client that waits for a permit.
    let mut next = pin!(accept(&listener, &permits));
    loop {
        tokio::select! {
            (client, permit) = &mut next => {
                connections.push(relay(client, target, permit));
                next.set(accept(&listener, &permits));
            }
            Some(()) = connections.next() => {}
        }
    }
}

/// The next client, once it may be served. Those behind it wait in the listener's queue.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> (TcpStream, Option<OwnedSemaphorePermit>) {
    let client = loop {
        match listener.accept().await {
            Ok((client, _)) => break client,
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    };
    // The semaphore is never closed.
    (client, permits.clone().acquire_owned().await.ok())
}

/// Copies both ways until both ends have said all. A failure at one end is a reset at the other, so that nobody takes
/// half an answer for a whole one.
async fn relay(mut client: TcpStream, target: SocketAddr, _permit: Option<OwnedSemaphorePermit>) {
    let Ok(mut server) = connect(target).await else {
        let _ = client.set_zero_linger();
        return;
    };
    // Without these, small messages would wait for one another twice.
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    if copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER).await.is_err() {
        let _ = client.set_zero_linger();
        let _ = server.set_zero_linger();
    }
}

async fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let answered = async {
        loop {
            match TcpStream::connect(target).await {
                // The guest does not answer ARP yet.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable
                    ) =>
                {
                    sleep(RETRY_PAUSE).await;
                }
                answer => return answer,
            }
        }
    };
    timeout(CONNECT_TIME, answered).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
