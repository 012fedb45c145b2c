//! Downloading blobs into the store, with resumption.

use std::io;
use std::thread;

use bytes::Bytes;
use futures_util::future::join;
use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Response, StatusCode};
use tokio::sync::{mpsc, oneshot};

use super::client::{Client, is_transient};
use crate::manifest::Descriptor;
use crate::store::Ingest;
use crate::{BlobState, Digest, Error, Result, Store};

/// Failed attempts in a row that end a download. One that brought something to speak of starts a new row.
const MAX_FAILURES: u32 = 6;
/// What a wait for nothing counts as: it was long already.
const STALL_WEIGHT: u32 = 3;
const TO_SPEAK_OF: u64 = 1 << 20;
/// Chunks between the network and the disk.
const QUEUE: usize = 32;

/// Progress of one blob: bytes here, and state.
type Report<'a> = dyn Fn(u64, BlobState) + Sync + 'a;

/// Gets a blob into the store, unless it is there. The caller has it under lease.
pub(super) async fn download(
    client: &Client,
    store: &Store,
    blob: &Descriptor,
    report: &Report<'_>,
) -> Result<()> {
    let Some(mut ingest) = open(store, blob).await? else {
        report(blob.size, BlobState::Exists);
        return Ok(());
    };
    let mut failures = 0;
    loop {
        while ingest.written() < blob.size {
            let before = ingest.written();
            report(before, BlobState::Downloading);
            let result;
            (ingest, result) = attempt(client, store, blob, ingest, report).await?;
            let Err(error) = result else { break };
            if ingest.written() >= before + TO_SPEAK_OF {
                failures = 0;
            }
            failures += if matches!(error, Error::Stalled { .. }) { STALL_WEIGHT } else { 1 };
            if !is_transient(&error) || failures >= MAX_FAILURES {
                return Err(error);
            }
            tracing::debug!(%error, digest = %blob.digest, written = ingest.written(), "trying again");
            ingest.mark_resumed();
            tokio::time::sleep(client.retry_delay * 2_u32.saturating_pow(failures - 1)).await;
        }
        report(blob.size, BlobState::Verifying);
        let resumed = ingest.resumed();
        let result;
        (ingest, result) = detached(store, move || {
            let result = ingest.commit();
            (ingest, result)
        })
        .await?;
        match result {
            Ok(()) => {
                report(blob.size, BlobState::Done);
                return Ok(());
            }
            // The fault may be in what an earlier attempt left: once more, from nothing.
            Err(Error::DigestMismatch { .. }) if resumed => {}
            Err(error) => return Err(error),
        }
    }
}

/// Puts bytes that are here already into the store.
pub(super) fn keep_bytes(store: &Store, digest: &Digest, bytes: &[u8]) -> Result<()> {
    if let Some(mut ingest) = Ingest::open(store, digest, bytes.len() as u64)? {
        ingest.restart()?;
        ingest.write(bytes)?;
        ingest.commit()?;
    }
    Ok(())
}

/// Takes the blob's lock, which may mean to wait for another process, and takes in what is there.
async fn open(store: &Store, blob: &Descriptor) -> Result<Option<Ingest>> {
    let (owned, digest, size) = (store.clone(), blob.digest.clone(), blob.size);
    detached(store, move || Ingest::open(&owned, &digest, size)).await?
}

/// One request, from where the partial file ends. The outer error is one of this machine, the inner one is the
/// attempt's.
async fn attempt(
    client: &Client,
    store: &Store,
    blob: &Descriptor,
    mut ingest: Ingest,
    report: &Report<'_>,
) -> Result<(Ingest, Result<()>)> {
    let start = ingest.written();
    let range: &[_] = if start > 0 { &[(RANGE, format!("bytes={start}-"))] } else { &[] };
    let path = format!("blobs/{}", blob.digest);
    let response = match client.get(&path, range, &[StatusCode::RANGE_NOT_SATISFIABLE]).await {
        Ok(response) => response,
        Err(error) => return Ok((ingest, Err(error))),
    };
    match check_response(client, blob, &response, start) {
        Ok(true) => {}
        Ok(false) => ingest.restart()?,
        Err(error) => {
            if is_transient(&error) {
                ingest.restart()?;
            }
            return Ok((ingest, Err(error)));
        }
    }
    receive(client, store, blob, response, ingest, report).await
}

/// Whether the response continues at `start` (otherwise it begins from nothing).
fn check_response(client: &Client, blob: &Descriptor, response: &Response, start: u64) -> Result<bool> {
    let broken = |cause: &str| Error::Network { host: client.host.clone(), cause: cause.to_owned() };
    let (continues, expected) = match response.status() {
        StatusCode::NOT_FOUND => {
            return Err(Error::BlobMissing { host: client.host.clone(), digest: blob.digest.clone() });
        }
        StatusCode::RANGE_NOT_SATISFIABLE => return Err(broken("it cannot continue a broken download")),
        StatusCode::PARTIAL_CONTENT => {
            let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
            let first = range.and_then(|r| r.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok());
            if first != Some(start) {
                return Err(broken("it continues a broken download at the wrong place"));
            }
            (true, blob.size - start)
        }
        _ => (false, blob.size),
    };
    match response.content_length() {
        Some(length) if length != expected => Err(Error::SizeMismatch {
            what: format!("blob {}", blob.digest),
            expected: blob.size,
            actual: blob.size - expected + length,
        }),
        _ => Ok(continues),
    }
}

/// Writes a body to the store as it comes: hashing and writing have a thread of their own.
async fn receive(
    client: &Client,
    store: &Store,
    blob: &Descriptor,
    mut response: Response,
    mut ingest: Ingest,
    report: &Report<'_>,
) -> Result<(Ingest, Result<()>)> {
    let mut received = ingest.written();
    let (sender, mut chunks) = mpsc::channel::<Bytes>(QUEUE);
    let writer = detached(store, move || {
        let mut result = Ok(());
        while result.is_ok() {
            let Some(chunk) = chunks.blocking_recv() else { break };
            result = ingest.write(&chunk);
        }
        (ingest, result)
    });
    let reader = async {
        let result = loop {
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    received += chunk.len() as u64;
                    // Closed by the writer when it fails; its error is the one that counts.
                    if sender.send(chunk).await.is_err() {
                        break Ok(());
                    }
                    report(received, BlobState::Downloading);
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(client.trouble(&error)),
            }
        };
        drop(sender);
        result
    };
    let (read, written) = join(reader, writer).await;
    let (ingest, written) = written?;
    let result = match written.and(read) {
        Ok(()) if ingest.written() < blob.size => {
            let cause = "the connection ended early".to_owned();
            Err(Error::Network { host: client.host.clone(), cause })
        }
        result => result,
    };
    Ok((ingest, result))
}

/// Runs blocking work on a thread of its own. Unlike the runtime's blocking threads, it is waited for by nobody when
/// the pull is dropped.
async fn detached<T: Send + 'static>(store: &Store, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let failed = Error::io("start a thread for", store.root());
    let (sender, receiver) = oneshot::channel();
    let started = thread::Builder::new().name("husk-blob".to_owned()).spawn(move || {
        // Nobody may be waiting any more.
        let _ = sender.send(work());
    });
    match started {
        Ok(_) => receiver.await.map_err(|e| failed(io::Error::other(e))),
        Err(error) => Err(failed(error)),
    }
}
