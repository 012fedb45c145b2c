//! Connections that are a process's streams. Each begins with a line that says whose and which; the answer is a line, too.

use std::{sync::Arc, time::Duration};

use husk_protocol::attach::{self, Attach};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    time::{sleep, timeout},
};

use crate::supervisor::Supervisor;

/// How long a client may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections at a time that have not said it yet.
const MAX_NAMELESS: usize = 64;
/// After a failed accept: it may lack descriptors, and then would fail again at once.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts them until it is dropped.
pub(crate) async fn accept(listener: UnixListener, supervisor: Arc<Supervisor>) {
    let nameless = Arc::new(Semaphore::new(MAX_NAMELESS));
    loop {
        // It is never closed.
        let Ok(permit) = nameless.clone().acquire_owned().await else { return };
        let Ok((client, _)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        let supervisor = supervisor.clone();
        tokio::spawn(async move {
            let _permit = permit;
            // A client that says nothing, or leaves, is not attached.
            let _ = timeout(PATIENCE, serve(client, &supervisor)).await;
        });
    }
}

async fn serve(mut client: UnixStream, supervisor: &Supervisor) -> std::io::Result<()> {
    let mut line = Vec::with_capacity(attach::MAX_LEN);
    // One byte at a time: what follows is the process's.
    while line.last() != Some(&b'\n') {
        if line.len() >= attach::MAX_LEN {
            return Ok(());
        }
        line.push(client.read_u8().await?);
    }
    let wanted: Option<Attach> = std::str::from_utf8(&line).ok().and_then(|line| line.parse().ok());
    let Some(Attach { container_id, exec_id, kind }) = wanted else {
        return client.write_all(attach::refusal("this is not a stream's first line").as_bytes()).await;
    };
    let hub = match supervisor.hub(&container_id, &exec_id) {
        Ok(hub) => hub,
        Err(error) => return client.write_all(attach::refusal(&error.to_string()).as_bytes()).await,
    };
    client.write_all(attach::ACCEPTED.as_bytes()).await?;
    // The end of the connection says that the process has ended.
    hub.attach(kind, client);
    Ok(())
}
