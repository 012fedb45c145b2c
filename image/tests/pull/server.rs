//! A small HTTP server that does what a test tells it, however wrong. One request per connection.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use husk_image::Digest;

use crate::fixture::{OCI_MANIFEST, TestImage};

/// A request as it came; header names in lower case.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// First byte asked for.
    fn range_start(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// How a body is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// As it should be.
    Whole,
    /// The connection is closed after so many bytes.
    CutAfter(usize),
    /// Nothing more comes after so many bytes, until the server is dropped.
    StallAfter(usize),
    /// In chunks, without a length.
    Chunked,
    /// In chunks, over and over, until the client has enough.
    Endless,
}

/// What to answer.
#[derive(Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) delivery: Delivery,
}

impl Reply {
    pub(crate) fn new(status: u16, body: &[u8]) -> Self {
        Self { status, headers: Vec::new(), body: body.to_vec(), delivery: Delivery::Whole }
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn delivery(mut self, delivery: Delivery) -> Self {
        self.delivery = delivery;
        self
    }
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

/// A running server, stopped when dropped.
pub(crate) struct Server {
    /// `127.0.0.1:PORT`
    pub(crate) host: String,
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    handler: Box<Handler>,
    log: Mutex<Vec<Request>>,
    stop: AtomicBool,
    /// Connections that stall, to be closed at the end.
    stalled: Mutex<Vec<TcpStream>>,
}

impl Server {
    pub(crate) fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            log: Mutex::default(),
            stop: AtomicBool::new(false),
            stalled: Mutex::default(),
        });
        let acceptor = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                for stream in listener.incoming() {
                    if shared.stop.load(Ordering::SeqCst) {
                        break;
                    }
                    let shared = Arc::clone(&shared);
                    // A client that goes away is part of the game.
                    thread::spawn(move || serve(&shared, stream.unwrap()).unwrap_or(()));
                }
            })
        };
        Self { host: address.to_string(), address, shared, acceptor: Some(acceptor) }
    }

    /// All requests so far whose path contains `part`.
    pub(crate) fn requests(&self, part: &str) -> Vec<Request> {
        self.shared.log.lock().unwrap().iter().filter(|r| r.path.contains(part)).cloned().collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Wakes the acceptor.
        let _ = TcpStream::connect(self.address);
        for stream in self.shared.stalled.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        let _ = self.acceptor.take().unwrap().join();
    }
}

fn serve(shared: &Shared, mut stream: TcpStream) -> std::io::Result<()> {
    let mut first = [0];
    if stream.peek(&mut first)? == 0 || first[0] == 0x16 {
        // A TLS handshake: this server does not speak TLS.
        return Ok(());
    }
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let request = Request { method, path, headers, body: String::from_utf8_lossy(&body).into_owned() };
    let reply = (shared.handler)(&request);
    shared.log.lock().unwrap().push(request);

    let mut head = format!("HTTP/1.1 {} x\r\nConnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let chunked = matches!(reply.delivery, Delivery::Chunked | Delivery::Endless);
    if chunked {
        head.push_str("Transfer-Encoding: chunked\r\n\r\n");
    } else {
        head.push_str(&format!("Content-Length: {}\r\n\r\n", reply.body.len()));
    }
    stream.write_all(head.as_bytes())?;
    let chunk = |stream: &mut TcpStream| {
        write!(stream, "{:x}\r\n", reply.body.len())?;
        stream.write_all(&reply.body)?;
        stream.write_all(b"\r\n")
    };
    match reply.delivery {
        Delivery::Whole => stream.write_all(&reply.body)?,
        Delivery::CutAfter(count) => stream.write_all(&reply.body[..count.min(reply.body.len())])?,
        Delivery::StallAfter(count) => {
            stream.write_all(&reply.body[..count.min(reply.body.len())])?;
            shared.stalled.lock().unwrap().push(stream.try_clone()?);
            // Returns when the client gives up or the server is dropped.
            stream.read_exact(&mut [0])?;
        }
        Delivery::Chunked => {
            chunk(&mut stream)?;
            stream.write_all(b"0\r\n\r\n")?;
        }
        Delivery::Endless => loop {
            chunk(&mut stream)?;
        },
    }
    Ok(())
}

/// Answers as a good registry does for one image, under any repository and tag.
pub(crate) fn registry_reply(image: &TestImage, request: &Request) -> Reply {
    let last = request.path.rsplit('/').next().unwrap_or_default();
    if request.path == "/v2/" {
        return Reply::new(200, b"{}");
    }
    if request.path.contains("/manifests/") {
        let digest = Digest::of(&image.manifest).to_string();
        if last.contains(':') && last != digest {
            return Reply::new(404, b"");
        }
        return Reply::new(200, &image.manifest)
            .header("Content-Type", OCI_MANIFEST)
            .header("Docker-Content-Digest", digest);
    }
    let Some(blob) = image.blobs().into_iter().find(|blob| Digest::of(blob).to_string() == last) else {
        return Reply::new(404, b"");
    };
    match request.range_start() {
        Some(start) if start < blob.len() => Reply::new(206, &blob[start..])
            .header("Content-Range", format!("bytes {start}-{}/{}", blob.len() - 1, blob.len())),
        Some(_) => Reply::new(416, b""),
        None => Reply::new(200, blob),
    }
}

/// Whether the request is for this blob.
pub(crate) fn is_for(request: &Request, digest: &Digest) -> bool {
    request.path.ends_with(&digest.to_string())
}
