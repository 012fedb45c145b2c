//! A guest within reach: its agent's API, and where it dials the streams of its processes to.

use std::{path::Path, time::Duration};

use husk_protocol::{agent_ttrpc::AgentClient, port};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
};
use ttrpc::asynchronous::{Client, transport::Socket};

use crate::{Error, Result};

/// A guest whose agent answers.
pub struct Guest {
    agent: AgentClient,
    stdio: UnixListener,
    stdio_port: u32,
    timeout: Duration,
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The generated client has no `Debug` of its own.
        f.debug_struct("Guest").field("stdio_port", &self.stdio_port).finish_non_exhaustive()
    }
}

impl Guest {
    /// The guest whose agent serves on `connection`; `stdio` is where it reaches the host's port `stdio_port`.
    pub fn new(connection: UnixStream, stdio: UnixListener, stdio_port: u32, timeout: Duration) -> Self {
        let agent = AgentClient::new(Client::new(Socket::new(connection)));
        Self { agent, stdio, stdio_port, timeout }
    }

    /// The agent's API.
    pub fn agent(&self) -> &AgentClient {
        &self.agent
    }

    /// The context of a request that is answered soon or not at all.
    pub fn soon(&self) -> ttrpc::context::Context {
        ttrpc::context::with_duration(self.timeout)
    }

    /// How long the agent may take to answer.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Where the agent dials stdio streams to.
    pub fn stdio(&self) -> &UnixListener {
        &self.stdio
    }

    /// The vsock port that leads there.
    pub fn stdio_port(&self) -> u32 {
        self.stdio_port
    }
}

/// Dials the agent's API of a guest that somebody else has started, by its vsock's socket.
///
/// # Errors
/// When nobody answers there.
pub async fn dial_agent(socket: &Path) -> Result<UnixStream> {
    dial(socket, port::AGENT).await.map_err(Error::io("dial the agent on", socket))
}

/// Dials a vsock port of the guest.
pub(crate) async fn dial(socket: &Path, port: u32) -> std::io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(format!("CONNECT {port}\n").as_bytes()).await?;
    // The guest says nothing before it is asked, so nothing but the answer can be in the buffer.
    let mut reader = BufReader::with_capacity(1, stream);
    let mut answer = String::new();
    reader.read_line(&mut answer).await?;
    if answer.starts_with("OK ") {
        Ok(reader.into_inner())
    } else {
        Err(std::io::ErrorKind::ConnectionRefused.into())
    }
}
