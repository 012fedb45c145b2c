//! husk's guest agent: PID 1 of a microVM. It dials the host, serves the API of `husk-protocol` on that connection, and
//! ends the machine when the connection ends.

// See `main`.
#![cfg_attr(not(test), no_main)]

mod clock;
mod connection;
mod container;
mod events;
mod failure;
mod forward;
mod init;
mod inotify;
mod kmsg;
mod network;
mod paths;
mod plug;
mod reaper;
mod resolver;
mod sandbox;
mod service;
mod shared;
mod shutdown;
mod stdio;
mod timeline;
mod unpack;
mod unpacking;

#[cfg(test)]
mod tests;

use std::{convert::Infallible, sync::Arc};

use futures_util::{StreamExt, stream};
use husk_protocol::{agent_ttrpc::create_agent, port};
use tokio_vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockAddr, VsockListener, VsockStream};
use ttrpc::r#async::{Server, transport::Listener};

use crate::{
    connection::Watched,
    container::Means,
    forward::Listen,
    reaper::Reaper,
    service::Service,
    stdio::{Dial, Dialling, Stream},
};

/// The agent can't do its work.
#[derive(Debug, thiserror::Error)]
enum AgentError {
    #[error(transparent)]
    Init(#[from] init::InitError),
    #[error("cannot start the event loop: {0}")]
    Runtime(#[source] std::io::Error),
    #[error("cannot watch for children: {0}")]
    Reaper(#[source] std::io::Error),
    #[error("cannot dial the host on vsock port {port}: {source}", port = port::AGENT)]
    Dial { source: std::io::Error },
    #[error("cannot listen on vsock port {port}: {source}", port = port::AGENT)]
    Listen { source: std::io::Error },
    #[error("cannot serve: {0}")]
    Serve(#[source] ttrpc::Error),
}

/// The C entry point: Rust's own start-up aborts when descriptors 0 to 2 are closed and there is no /dev/null, which is
/// how a kernel without a console starts its init.
#[cfg_attr(not(test), unsafe(no_mangle))]
extern "C" fn main(_: libc::c_int, _: *const *const libc::c_char) -> libc::c_int {
    if let Some(args) = container::init::args() {
        return container::init::run(&args);
    }
    timeline::INIT.record();
    let pid = std::process::id();
    if pid != 1 {
        eprintln!("husk-agent is the init process of husk's guests and can't be run by hand");
        return 2;
    }
    std::panic::set_hook(Box::new(move |info| {
        // A helper process just ends: PID 1 notices.
        if std::process::id() == pid {
            kmsg::fatal(&info.to_string());
        }
    }));
    let Err(error) = run();
    kmsg::fatal(&error.to_string())
}

fn run() -> Result<Infallible, AgentError> {
    init::set_up()?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AgentError::Runtime)?;
    runtime.block_on(async {
        let further = listen().map_err(|source| AgentError::Listen { source })?;
        serve(Arc::new(dial), further, forward::listen).await
    })?;
    shutdown::power_off()
}

/// Serves until the host's connection ends; `further` are connections that come and go, and `forward` is called when the
/// sandbox is set up.
async fn serve(
    dial: Dial,
    further: impl stream::Stream<Item = Connection> + Send + 'static,
    forward: Listen,
) -> Result<(), AgentError> {
    let reaper = Reaper::start().map_err(AgentError::Reaper)?;
    let means = Means { reaper, dial: Arc::clone(&dial), forward, token: Arc::default() };
    let service = Service::new(means).map_err(AgentError::Runtime)?;
    let stream = dial(port::AGENT).await.map_err(|source| AgentError::Dial { source })?;
    let (stream, mut ended) = Watched::new(stream);
    let first: Connection = Ok(Box::new(stream));
    let connections = stream::once(async { first }).chain(further);
    let mut server = Server::new()
        .add_listener(Listener::new(connections))
        .register_service(create_agent(Arc::new(service)));
    server.start().await.map_err(AgentError::Serve)?;
    timeline::READY.record();
    // An error means that the stream was dropped, and so has ended, too.
    let _ = ended.wait_for(|ended| *ended).await;
    Ok(())
}

/// A connection to serve on.
type Connection = std::io::Result<Box<dyn Stream>>;

/// Connections of the host to this guest's port.
fn listen() -> std::io::Result<impl stream::Stream<Item = Connection>> {
    let listener = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, port::AGENT))?;
    Ok(stream::unfold(listener, |listener| async {
        loop {
            match listener.accept().await {
                Ok((stream, from)) if from.cid() == VMADDR_CID_HOST => {
                    return Some((Ok(Box::new(stream) as Box<dyn Stream>), listener));
                }
                // Nobody in the guest has any business here; a connection that is gone already is no loss.
                Ok(_) | Err(_) => {}
            }
        }
    }))
}

/// Connects to a vsock port of the host.
fn dial(port: u32) -> Dialling {
    Box::pin(async move {
        let stream = VsockStream::connect(VsockAddr::new(VMADDR_CID_HOST, port)).await?;
        Ok(Box::new(stream) as Box<dyn Stream>)
    })
}
