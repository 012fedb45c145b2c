//! A guest within reach: its agent's API, and where it dials the streams of its processes to.

use std::{path::Path, time::Duration};

use husk_protocol::{
    StreamToken,
    agent::{PlugInRequest, SetupSandboxRequest},
    agent_ttrpc::AgentClient,
};
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
};
use ttrpc::asynchronous::{Client, transport::Socket};

use crate::{Error, Result};

/// What ttrpc's client says when a request's time is over.
const CLIENT_TIMEOUT: &str = "Request deadline elapsed";

/// A guest whose agent answers.
pub struct Guest {
    agent: AgentClient,
    stdio: UnixListener,
    stdio_port: u32,
    token: StreamToken,
    timeout: Duration,
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The generated client has no `Debug` of its own.
        f.debug_struct("Guest").field("stdio_port", &self.stdio_port).finish_non_exhaustive()
    }
}

impl Guest {
    /// The guest whose agent serves on `connection`; `stdio` is where it reaches the host's port `stdio_port`, with streams
    /// that begin with `token`.
    pub fn new(
        connection: UnixStream,
        stdio: UnixListener,
        stdio_port: u32,
        token: StreamToken,
        timeout: Duration,
    ) -> Self {
        let agent = AgentClient::new(Client::new(Socket::new(connection)));
        Self { agent, stdio, stdio_port, token, timeout }
    }

    /// Sets the sandbox up, and gives the agent the token of its streams.
    ///
    /// # Errors
    /// When the agent refuses, fails, or does not answer in time.
    pub async fn set_up(&self, request: SetupSandboxRequest) -> ttrpc::Result<()> {
        let request = SetupSandboxRequest { stream_token: self.token.to_string(), ..request };
        self.agent.setup_sandbox(self.soon(), &request).await.map(drop)
    }

    /// Makes devices known to the guest's kernel, by the places that the VMM gave them when they were attached.
    ///
    /// # Errors
    /// When the guest's kernel refuses one, or the agent does not answer in time.
    pub async fn plug_in(&self, devices: Vec<String>) -> ttrpc::Result<()> {
        let request = PlugInRequest { devices, ..Default::default() };
        self.agent.plug_in(self.soon(), &request).await.map(drop)
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

    /// The secret that its streams begin with.
    pub fn token(&self) -> &StreamToken {
        &self.token
    }

    /// The vsock port that leads there.
    pub fn stdio_port(&self) -> u32 {
        self.stdio_port
    }
}

/// A new secret for a guest's streams.
///
/// # Errors
/// When the kernel gives no random numbers.
pub(crate) fn random_token() -> Result<StreamToken> {
    let mut bytes = [0; StreamToken::LEN];
    let failed = |error: std::io::Error| Error::io("read", "the system's random numbers")(error);
    let count = getrandom(&mut bytes, GetRandomFlags::empty()).map_err(|errno| failed(errno.into()))?;
    if count != bytes.len() {
        return Err(failed(std::io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(StreamToken::new(bytes))
}

/// Whether a request failed because its time was over: the agent may have said so, or the client, which has no code for it.
pub(crate) fn timed_out(error: &ttrpc::Error) -> bool {
    match error {
        ttrpc::Error::RpcStatus(status) => status.code() == ttrpc::Code::DEADLINE_EXCEEDED,
        ttrpc::Error::Others(text) => text == CLIENT_TIMEOUT,
        _ => false,
    }
}

/// Dials a vsock port of the guest.
pub(crate) async fn dial(socket: &Path, port: u32) -> std::io::Result<UnixStream> {
    let stream = husk_base::socket::connect(socket).map_err(std::io::Error::other)?;
    stream.set_nonblocking(true)?;
    let mut stream = UnixStream::from_std(stream)?;
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

#[cfg(test)]
mod tests {
    use husk_protocol::agent::ContainerRef;

    use super::*;

    #[tokio::test]
    async fn an_agent_that_says_nothing_is_told_from_one_that_fails() {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("stdio")).unwrap();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let guest = Guest::new(ours, listener, 1, random_token().unwrap(), Duration::from_millis(1));
        let silent = guest.agent().delete_container(guest.soon(), &ContainerRef::default()).await;
        assert!(timed_out(&silent.unwrap_err()));
        let status = |code| ttrpc::Error::RpcStatus(ttrpc::get_status(code, "x"));
        assert!(timed_out(&status(ttrpc::Code::DEADLINE_EXCEEDED)));
        assert!(!timed_out(&status(ttrpc::Code::NOT_FOUND)));
        assert!(!timed_out(&ttrpc::Error::LocalClosed));
    }
}
