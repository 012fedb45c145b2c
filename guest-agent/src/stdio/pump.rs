//! The tasks that copy between a process's descriptors and streams to the host.
//!
//! Each direction has one buffer and one copy in flight: whoever is slower holds up the other, and order is kept.

use std::{io, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
};

use super::{Stream, pipe::NonBlocking};
use crate::timeline;

/// The size of a pipe's buffer.
const BUFFER: usize = 64 * 1024;

/// An output being copied.
#[derive(Debug)]
pub(super) struct Output(watch::Receiver<bool>);

impl Output {
    /// Returns when everything that was written before the process ended is in the stream, or can no longer get there.
    pub(super) async fn drained(&mut self) {
        // An error means that the copying has ended, which is as good.
        let _ = self.0.wait_for(|drained| *drained).await;
    }
}

/// Copies what a process writes to `stream`, until end of file, and then half-closes the stream. When the stream breaks,
/// the descriptor is closed, so that the process sees a broken pipe.
pub(super) fn copy_out(
    source: Arc<NonBlocking>,
    mut stream: Box<dyn Stream>,
    mut exited: watch::Receiver<bool>,
) -> Output {
    let (drained, output) = watch::channel(false);
    tokio::spawn(async move {
        let mut buffer = vec![0; BUFFER];
        if copy_until_end(&source, &mut stream, &mut exited, &drained, &mut buffer).await.is_ok() {
            drop(source);
            let _ = stream.shutdown().await;
        }
        drained.send_replace(true);
    });
    Output(output)
}

async fn copy_until_end(
    source: &NonBlocking,
    stream: &mut Box<dyn Stream>,
    exited: &mut watch::Receiver<bool>,
    drained: &watch::Sender<bool>,
    buffer: &mut [u8],
) -> io::Result<()> {
    let mut watching_exit = true;
    loop {
        let ended = async { exited.wait_for(|exited| *exited).await.map(drop) };
        let read = tokio::select! {
            result = source.read(buffer) => Some(end_of_tty(result)?),
            _ = ended, if watching_exit => None,
        };
        match read {
            Some(0) => return Ok(()),
            Some(count) => {
                timeline::FIRST_OUTPUT.record();
                stream.write_all(&buffer[..count]).await?;
            }
            None => {
                // The process wrote nothing after this: what is in the pipe now is the last of it.
                watching_exit = false;
                if copy_what_is_there(source, stream, buffer).await? {
                    return Ok(());
                }
                drained.send_replace(true);
            }
        }
    }
}

/// Copies until there is nothing to read. True: end of file.
async fn copy_what_is_there(
    source: &NonBlocking,
    stream: &mut Box<dyn Stream>,
    buffer: &mut [u8],
) -> io::Result<bool> {
    loop {
        match end_of_tty(source.try_read(buffer)) {
            Ok(0) => return Ok(true),
            Ok(count) => {
                timeline::FIRST_OUTPUT.record();
                stream.write_all(&buffer[..count]).await?;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

/// A terminal's master fails with EIO once nobody has the terminal open any more.
fn end_of_tty(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(0),
        result => result,
    }
}

/// Copies what the host sends to a process, until either side closes or the process ends. The process sees end of file
/// when `sink` is dropped.
pub(super) async fn copy_in(
    mut stream: Box<dyn Stream>,
    sink: Arc<NonBlocking>,
    mut exited: watch::Receiver<bool>,
) {
    let copy = async {
        let mut buffer = vec![0; BUFFER];
        loop {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(count) => {
                    if sink.write_all(&buffer[..count]).await.is_err() {
                        return;
                    }
                }
            }
        }
    };
    tokio::select! {
        () = copy => {}
        () = sink.closed() => {}
        _ = exited.wait_for(|exited| *exited) => {}
    }
}
