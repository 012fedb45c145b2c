//! Connects the host to TCP ports of the guest's loopback address (husk-protocol, `port::FORWARD`): for whatever dials a
//! pod's own localhost.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use husk_protocol::port;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, copy_bidirectional_with_sizes},
    net::TcpStream,
    sync::Semaphore,
    time::sleep,
};
use tokio_vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockAddr, VsockListener};

/// Connections at a time. Further ones are closed at once.
const MAX_CONNECTIONS: usize = 512;
/// For each direction of a connection.
const BUFFER: usize = 32 * 1024;
/// After a failed accept: it may be for want of memory, and then would fail again at once.
const PAUSE: Duration = Duration::from_millis(100);

/// [`listen`], or what stands in for it.
pub(crate) type Listen = fn() -> io::Result<()>;

/// Starts to listen. Must be called in a Tokio runtime.
pub(crate) fn listen() -> io::Result<()> {
    let listener = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, port::FORWARD))?;
    tokio::spawn(async move {
        let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            match listener.accept().await {
                Ok((stream, peer)) if peer.cid() == VMADDR_CID_HOST => {
                    if let Ok(permit) = Arc::clone(&free).try_acquire_owned() {
                        tokio::spawn(async move {
                            // Whoever dialled sees its connection end; there is nobody else to tell.
                            let _ = forward(stream).await;
                            drop(permit);
                        });
                    }
                }
                Ok(_) => {}
                Err(_) => sleep(PAUSE).await,
            }
        }
    });
    Ok(())
}

/// Serves one connection: reads the port, connects to it, and copies both ways. An end of file in one direction leaves
/// the other one open.
pub(crate) async fn forward(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let port = stream.read_u16().await?;
    let mut target = match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
        Ok(target) => target,
        Err(_) => TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await?,
    };
    // Small messages go on as they come.
    target.set_nodelay(true)?;
    copy_bidirectional_with_sizes(&mut stream, &mut target, BUFFER, BUFFER).await?;
    Ok(())
}
