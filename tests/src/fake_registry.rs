//! A registry on loopback that misbehaves on request.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex},
    thread,
};

use serde_json::Value;

use crate::{oci::digest, wait::PATIENCE};

/// What the registry does to the bytes of one blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Sends so many bytes, then closes the connection.
    CloseAfter(usize),
    /// Sends so many bytes, then nothing more for as long as the fault stands.
    StallAfter(usize),
    /// Changes the byte at this place.
    Flip(usize),
}

#[derive(Debug, Default)]
struct State {
    /// By path below `/v2/`: content type and bytes.
    documents: HashMap<String, (String, Vec<u8>)>,
    fault: Option<(String, Fault)>,
    /// Path and `Range` header of each request.
    requests: Vec<(String, Option<String>)>,
}

/// A registry on loopback. Its thread ends with the test's process.
#[derive(Debug)]
pub struct FakeRegistry {
    host: String,
    state: Arc<(Mutex<State>, Condvar)>,
}

impl FakeRegistry {
    /// Starts an empty one.
    ///
    /// # Panics
    /// When there is no port for it.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let state = Arc::new((Mutex::new(State::default()), Condvar::new()));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                thread::spawn(move || serve(connection, &state));
            }
        });
        Self { host, state }
    }

    /// The name of an image in it.
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}:latest", self.host)
    }

    /// Adds a manifest or index under a name, and blobs.
    ///
    /// # Panics
    /// When a thread of the registry has panicked.
    pub fn add(&self, name: &str, manifest: &Value, blobs: Vec<(String, Vec<u8>)>) {
        let media_type = manifest["mediaType"].as_str().unwrap_or_default().to_owned();
        let bytes = manifest.to_string().into_bytes();
        let documents = &mut self.state.0.lock().unwrap().documents;
        for tag in ["latest", &digest(&bytes)] {
            documents.insert(format!("{name}/manifests/{tag}"), (media_type.clone(), bytes.clone()));
        }
        for (digest, blob) in blobs {
            documents.insert(format!("{name}/blobs/{digest}"), ("application/octet-stream".into(), blob));
        }
    }

    /// Sets what goes wrong with the blob of this digest; `None`: nothing any more.
    ///
    /// # Panics
    /// When a thread of the registry has panicked.
    pub fn set_fault(&self, fault: Option<(&str, Fault)>) {
        self.state.0.lock().unwrap().fault = fault.map(|(digest, fault)| (digest.to_owned(), fault));
        self.state.1.notify_all();
    }

    /// Waits until so many requests for the blob of this digest have come; returns their `Range` headers.
    ///
    /// # Panics
    /// When they don't come.
    pub fn wait_for_requests(&self, digest: &str, count: usize) -> Vec<Option<String>> {
        let (state, changed) = &*self.state;
        let matching = |state: &State| -> Vec<_> {
            let of_blob = state.requests.iter().filter(|(path, _)| path.ends_with(digest));
            of_blob.map(|(_, range)| range.clone()).collect()
        };
        let too_few = |state: &mut State| matching(state).len() < count;
        let (guard, result) = changed.wait_timeout_while(state.lock().unwrap(), PATIENCE, too_few).unwrap();
        assert!(!result.timed_out(), "{count} requests for {digest} have not come");
        matching(&guard)
    }
}

/// Answers the requests of one connection.
fn serve(connection: TcpStream, state: &(Mutex<State>, Condvar)) {
    let Ok(reader) = connection.try_clone() else { return };
    let mut lines = BufReader::new(reader).lines();
    let mut connection = connection;
    while let Some(Ok(request)) = lines.next() {
        let mut range = None;
        for header in lines.by_ref().map_while(Result::ok).take_while(|line| !line.is_empty()) {
            if let Some((name, value)) = header.split_once(':')
                && name.eq_ignore_ascii_case("range")
            {
                range = Some(value.trim().to_owned());
            }
        }
        let mut words = request.split(' ');
        let head_only = words.next() == Some("HEAD");
        let path = words.next().unwrap_or_default().trim_start_matches("/v2/").to_owned();
        // An error means that the client has left.
        if answer(&mut connection, state, &path, range, head_only).is_err() {
            break;
        }
    }
    let _ = connection.shutdown(Shutdown::Both);
}

fn answer(
    connection: &mut TcpStream,
    state: &(Mutex<State>, Condvar),
    path: &str,
    range: Option<String>,
    head_only: bool,
) -> std::io::Result<()> {
    let (document, fault) = {
        let mut state = state.0.lock().unwrap();
        state.requests.push((path.to_owned(), range.clone()));
        let fault = state.fault.clone().filter(|(digest, _)| path.ends_with(digest)).map(|(_, fault)| fault);
        (state.documents.get(path).cloned(), fault)
    };
    state.1.notify_all();
    let Some((media_type, mut bytes)) = document else {
        // The root of the API answers that this is a registry.
        let status = if path.is_empty() { "200 OK" } else { "404 Not Found" };
        return write!(connection, "HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\n{{}}");
    };
    let first =
        range.as_deref().and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let total = bytes.len();
    if let Some(Fault::Flip(at)) = fault {
        bytes[at] ^= 1;
    }
    let body = &bytes[first.unwrap_or(0)..];
    match first {
        Some(first) => write!(
            connection,
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {first}-{}/{total}\r\n",
            total - 1
        )?,
        None => write!(connection, "HTTP/1.1 200 OK\r\n")?,
    }
    write!(connection, "Content-Type: {media_type}\r\nContent-Length: {}\r\n\r\n", body.len())?;
    match fault {
        _ if head_only => Ok(()),
        Some(Fault::CloseAfter(count)) => {
            connection.write_all(&body[..count.min(body.len())])?;
            Err(std::io::ErrorKind::ConnectionAborted.into())
        }
        Some(stall @ Fault::StallAfter(count)) => {
            connection.write_all(&body[..count.min(body.len())])?;
            let stands = |state: &mut State| state.fault.as_ref().is_some_and(|(_, fault)| *fault == stall);
            drop(state.1.wait_while(state.0.lock().unwrap(), stands));
            Err(std::io::ErrorKind::ConnectionAborted.into())
        }
        _ => connection.write_all(body),
    }
}
