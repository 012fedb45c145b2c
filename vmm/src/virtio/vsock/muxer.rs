//! Many connections over one pair of queues: the table of connections, and what the guest's packets do to it.

use std::{
    collections::{HashMap, VecDeque},
    io::Write,
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
};

use vmm_sys_util::epoll::EventSet;

use super::{
    chain::Buffers,
    connection::{Action, Connection},
    header::{Header, Key, Op},
    host::{self, GreetingReader, Held},
    packet::{Parsed, parse},
};

mod host_events;
mod to_guest;

/// Most connections at a time, those not yet established included.
pub(super) const MAX_CONNECTIONS: usize = 1023;
/// Most connections from the host at a time that the guest has not accepted. Further ones wait in the listening socket.
pub(super) const MAX_GREETING: usize = 128;
/// While this many last packets wait for buffers of the guest, no packets of the guest are looked at.
const MAX_FAREWELLS: usize = 256;
/// Ports of the host for connections from the host: from here to the double.
const FIRST_HOST_PORT: u32 = 1 << 30;

/// What an entry of the table is.
#[derive(Debug)]
enum Stage {
    /// A host peer that has not yet said where it wants to go.
    Greeting(GreetingReader),
    /// A connection that the guest knows of, or is about to.
    Linked(Connection),
    /// No connection any more, but the host's peer has yet to read the rest.
    Draining,
}

/// A unix socket and what it is for.
#[derive(Debug)]
struct Entry {
    stream: UnixStream,
    stage: Stage,
    held: Held,
    /// The socket may have data or an end of stream for the guest.
    readable: bool,
    /// The host's peer is gone altogether.
    hung_up: bool,
    /// What epoll watches for now; `None` if it does not know the socket.
    watched: Option<EventSet>,
    /// It is in [`Muxer::touched`].
    touched: bool,
    /// It is in [`Muxer::run`].
    queued: bool,
}

impl Entry {
    fn new(stream: UnixStream, stage: Stage) -> Self {
        Self {
            stream,
            stage,
            held: Held::default(),
            readable: false,
            hung_up: false,
            watched: None,
            touched: false,
            queued: false,
        }
    }

    fn connection(&mut self) -> Option<&mut Connection> {
        if let Stage::Linked(connection) = &mut self.stage { Some(connection) } else { None }
    }

    /// Whether the guest has not accepted it yet, though the host wants it.
    fn is_greeting(&self) -> bool {
        match &self.stage {
            Stage::Greeting(_) => true,
            Stage::Linked(connection) => !connection.is_established(),
            Stage::Draining => false,
        }
    }

    /// What to watch the socket for: only what can be acted upon. epoll always reports a peer that hung up, so a socket
    /// for which even that must wait is not watched at all.
    fn interest(&self) -> Option<EventSet> {
        match &self.stage {
            Stage::Greeting(_) => Some(EventSet::IN),
            Stage::Draining => Some(EventSet::OUT),
            Stage::Linked(connection) if !connection.is_established() => Some(EventSet::empty()),
            Stage::Linked(connection) => {
                let mut set = EventSet::empty();
                set.set(EventSet::IN, !self.readable && connection.credit() > 0);
                set.set(EventSet::OUT, !self.held.is_empty());
                (!set.is_empty() || !connection.is_open_to_guest()).then_some(set)
            }
        }
    }

    /// Sends held bytes on, and the end of the stream once the guest has sent all. False when the host's peer takes no
    /// more; what was held is gone then.
    fn flush(&mut self) -> bool {
        let sent = self.held.send(&self.stream);
        if sent.is_err() {
            self.held = Held::default();
        }
        if let Stage::Linked(connection) = &mut self.stage {
            match sent {
                Ok(count) => connection.forwarded(count.try_into().unwrap_or(u32::MAX)),
                Err(_) => connection.host_receives_no_more(),
            }
            if self.held.is_empty() && !connection.guest_sends() {
                // Fails only when the peer is gone, which epoll reports.
                let _ = self.stream.shutdown(Shutdown::Write);
            }
        }
        sent.is_ok()
    }
}

/// All connections of a device.
#[derive(Debug)]
pub(super) struct Muxer {
    guest_cid: u64,
    /// Path of the listening socket.
    socket: PathBuf,
    listener: UnixListener,
    listener_watched: bool,
    /// No descriptors were left when a host peer was to be accepted; cleared when there may be some again.
    out_of_descriptors: bool,
    entries: HashMap<u64, Entry>,
    /// The tokens of linked entries.
    tokens: HashMap<Key, u64>,
    /// How many entries are greeting.
    greeting: usize,
    next_token: u64,
    next_port: u32,
    /// Last packets of connections that are gone.
    farewells: VecDeque<Header>,
    /// Entries that have something for the guest; each is in it once.
    run: VecDeque<u64>,
    /// Entries whose interest may have changed.
    touched: Vec<u64>,
}

impl Muxer {
    /// No connections yet. Tokens of sockets begin at `first_token`; that below is the listener's.
    pub(super) fn new(guest_cid: u32, socket: PathBuf, listener: UnixListener, first_token: u64) -> Self {
        Self {
            guest_cid: guest_cid.into(),
            socket,
            listener,
            listener_watched: false,
            out_of_descriptors: false,
            entries: HashMap::new(),
            tokens: HashMap::new(),
            greeting: 0,
            next_token: first_token,
            next_port: FIRST_HOST_PORT,
            farewells: VecDeque::new(),
            run: VecDeque::new(),
            touched: Vec::new(),
        }
    }

    /// Whether the guest must take packets before more of its own are looked at.
    pub(super) fn is_stalled(&self) -> bool {
        self.farewells.len() >= MAX_FAREWELLS
    }

    /// Acts upon a packet of the guest.
    pub(super) fn guest_packet(&mut self, bytes: Buffers<'_>) {
        // Others may have freed one, which nobody tells.
        self.out_of_descriptors = false;
        let (header, op, payload) = match parse(bytes, self.guest_cid) {
            Parsed::Drop => return,
            Parsed::Malformed(header) => {
                let token = self.tokens.get(&header.guest_key()).copied();
                return self.reject(token, &header);
            }
            Parsed::Packet(header, op, payload) => (header, op, payload),
        };
        let Some(&token) = self.tokens.get(&header.guest_key()) else {
            return match op {
                Op::Request => self.open_to_host(&header),
                // Resets are never answered, so that there is an end.
                Op::Reset => {}
                _ => self.reject(None, &header),
            };
        };
        let Some(entry) = self.entries.get_mut(&token) else { return };
        let Some(connection) = entry.connection() else { return };
        match connection.on_packet(&header, op) {
            Action::Nothing => self.wake(token),
            Action::Accepted => self.accepted(token, &header),
            Action::Data => self.forward(token, payload),
            Action::Shutdown => self.guest_shut_down(token),
            Action::Closed => self.retire(token),
            Action::Violation => self.reject(Some(token), &header),
        }
    }

    /// Answers a packet of the guest by a reset, and ends the connection it belongs to.
    fn reject(&mut self, token: Option<u64>, header: &Header) {
        if let Some(token) = token {
            self.remove(token);
        }
        if header.op != Op::Reset.to_raw() {
            let reset = Header::to_guest(self.guest_cid, header.guest_key(), Op::Reset);
            self.farewells.push_back(Header { kind: header.kind, ..reset });
        }
    }

    /// Ends a connection by a reset of our own.
    fn reset(&mut self, token: u64) {
        if let Some(mut entry) = self.remove(token)
            && let Some(connection) = entry.connection()
            && !connection.is_unknown_to_guest()
        {
            let key = connection.key();
            self.farewells.push_back(Header::to_guest(self.guest_cid, key, Op::Reset));
        }
    }

    /// The guest wants a port of the host.
    fn open_to_host(&mut self, request: &Header) {
        if self.entries.len() >= MAX_CONNECTIONS {
            return self.reject(None, request);
        }
        match host::connect(&host::port_path(&self.socket, request.dst_port)) {
            Ok(stream) => {
                let connection = Connection::from_guest(self.guest_cid, request);
                let token = self.insert(Entry::new(stream, Stage::Linked(connection)));
                self.tokens.insert(request.guest_key(), token);
                self.wake(token);
            }
            Err(_) => self.reject(None, request),
        }
    }

    /// The guest accepted what a host peer asked for.
    fn accepted(&mut self, token: u64, header: &Header) {
        let Some(entry) = self.entries.get_mut(&token) else { return };
        self.greeting -= 1;
        let line = format!("OK {}\n", header.dst_port);
        // Nothing was sent on this socket yet: it takes the line whole, or its peer is gone.
        match (&entry.stream).write(line.as_bytes()) {
            Ok(count) if count == line.len() => self.wake(token),
            _ => self.reset(token),
        }
    }

    /// Passes data of the guest on, and holds what the host's peer doesn't take at once.
    fn forward(&mut self, token: u64, mut data: Buffers<'_>) {
        let Some(entry) = self.entries.get_mut(&token) else { return };
        let Stage::Linked(connection) = &mut entry.stage else { return };
        let total = data.len();
        let mut done = total;
        if connection.host_receives() {
            let sent = if entry.held.is_empty() { data.send(&entry.stream) } else { Ok(0) };
            match sent {
                Ok(count) => {
                    done = count;
                    if count < total {
                        entry.held.push(&data);
                    }
                }
                Err(_) => connection.host_receives_no_more(),
            }
        }
        connection.forwarded(done.try_into().unwrap_or(u32::MAX));
        self.settle(token);
    }

    /// The guest closed one direction or both.
    fn guest_shut_down(&mut self, token: u64) {
        let Some(entry) = self.entries.get_mut(&token) else { return };
        let Some(connection) = entry.connection() else { return };
        let (sends, receives) = (connection.guest_sends(), connection.guest_receives());
        if !sends && !receives {
            // The guest waits for this before it forgets the connection (virtio 1.2, section 5.10.6.5).
            let reset = Header::to_guest(self.guest_cid, connection.key(), Op::Reset);
            self.farewells.push_back(reset);
            return self.retire(token);
        }
        if !receives {
            host::refuse_input(&entry.stream);
            entry.readable = false;
        }
        if !sends {
            entry.flush();
        }
        self.settle(token);
    }

    /// The guest has forgotten a connection: the host's peer gets what is held, then the end.
    fn retire(&mut self, token: u64) {
        let Some(mut entry) = self.remove(token) else { return };
        host::refuse_input(&entry.stream);
        if !entry.held.is_empty() {
            entry.stage = Stage::Draining;
            entry.queued = false;
            entry.touched = true;
            self.touched.push(token);
            self.entries.insert(token, entry);
        }
    }

    /// After an event: ends the connection if both directions are closed, else sees to what it wants next.
    fn settle(&mut self, token: u64) {
        let Some(entry) = self.entries.get_mut(&token) else { return };
        let Some(connection) = entry.connection() else { return };
        if connection.is_finished() {
            let farewell = connection.farewell();
            self.farewells.push_back(farewell);
            self.remove(token);
        } else {
            self.wake(token);
        }
    }

    /// Has the entry's interest looked at, and queues it if it has something for the guest.
    fn wake(&mut self, token: u64) {
        let Some(entry) = self.entries.get_mut(&token) else { return };
        if !std::mem::replace(&mut entry.touched, true) {
            self.touched.push(token);
        }
        let readable = entry.readable;
        let Some(connection) = entry.connection() else { return };
        let runnable = connection.has_control() || (readable && connection.credit() > 0);
        if runnable && !std::mem::replace(&mut entry.queued, true) {
            self.run.push_back(token);
        }
    }

    fn insert(&mut self, mut entry: Entry) -> u64 {
        let token = self.next_token;
        self.next_token += 1;
        self.greeting += usize::from(entry.is_greeting());
        entry.touched = true;
        self.touched.push(token);
        self.entries.insert(token, entry);
        token
    }

    /// Forgets an entry; its socket closes when it is dropped.
    fn remove(&mut self, token: u64) -> Option<Entry> {
        let mut entry = self.entries.remove(&token)?;
        self.greeting -= usize::from(entry.is_greeting());
        self.out_of_descriptors = false;
        if let Some(connection) = entry.connection() {
            self.tokens.remove(&connection.key());
        }
        if entry.queued {
            // Else a guest that takes no packets could make the queue grow for ever.
            self.run.retain(|&queued| queued != token);
        }
        Some(entry)
    }
}

#[cfg(test)]
impl Muxer {
    /// How much waits for buffers of the guest.
    pub(super) fn waiting(&self) -> usize {
        self.farewells.len() + self.run.len()
    }
}
