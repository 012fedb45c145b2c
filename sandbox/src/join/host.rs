//! The side of the husk whose VM is joined.

use std::{io, path::PathBuf, sync::Arc};

use husk_protocol::agent::ContainerRef;
use husk_vmm::client::Client;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    task::{AbortHandle, spawn_blocking},
};

use super::{Hello, MAX_LINE, SOCKET, Welcome, disk_ids};
use crate::{Error, Result, guest::Guest, rundir::RunDir, vm};

/// Lets others join, until it is dropped.
#[derive(Debug)]
pub(crate) struct Host {
    task: AbortHandle,
}

impl Host {
    /// Begins to listen.
    pub(crate) fn start(dir: &RunDir, guest: Arc<Guest>, hostname: String) -> Result<Self> {
        let path = dir.join(SOCKET);
        let listener = UnixListener::bind(&path).map_err(Error::io("listen on", path))?;
        let machine = Arc::new(Machine { guest, hostname, control: vm::control_path(&dir.join("")) });
        let accept = async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(attend(Arc::clone(&machine), stream));
            }
        };
        Ok(Self { task: tokio::spawn(accept).abort_handle() })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Machine {
    guest: Arc<Guest>,
    hostname: String,
    control: PathBuf,
}

/// Welcomes one that joins, waits until it leaves, and cleans up after it. One that says nothing sensible is not let in.
async fn attend(machine: Arc<Machine>, stream: UnixStream) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader.take(MAX_LINE));
    let mut line = String::new();
    reader.read_line(&mut line).await?;
    let Hello { id } = serde_json::from_str(&line)?;
    let mut answer = serde_json::to_vec(&Welcome {
        hostname: machine.hostname.clone(),
        stream_token: machine.guest.token().to_string(),
    })?;
    answer.push(b'\n');
    writer.write_all(&answer).await?;
    // Nothing more is expected but the end.
    let _ = reader.read_line(&mut line).await;

    // It may never have made a container.
    let container = ContainerRef { container_id: id.clone(), ..Default::default() };
    let _ = machine.guest.agent().delete_container(machine.guest.soon(), &container).await;
    let control = machine.control.clone();
    let _ = spawn_blocking(move || detach(&control, &id)).await;
    // The end of the connection says that all is gone.
    Ok(())
}

fn detach(control: &std::path::Path, id: &str) {
    let Ok(mut client) = Client::connect(control) else { return };
    for disk in disk_ids(id) {
        // One that was never attached is none.
        let _ = client.detach_disk(&disk);
    }
}
