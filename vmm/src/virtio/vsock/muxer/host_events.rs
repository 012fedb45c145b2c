//! What host peers do: new ones, and events on their sockets.

use std::{io, os::fd::AsRawFd, os::unix::net::UnixStream};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::{
    super::{
        connection::Connection,
        header::Key,
        host::{Greeting, GreetingReader},
    },
    Entry, FIRST_HOST_PORT, MAX_CONNECTIONS, MAX_GREETING, Muxer, Stage,
};

/// Most host peers accepted at a time, so that other events get their turn.
const MAX_ACCEPTS: usize = 16;

impl Muxer {
    /// Accepts host peers that wait.
    ///
    /// # Errors
    /// When the listening socket is broken.
    pub(in super::super) fn accept(&mut self) -> io::Result<()> {
        for _ in 0..MAX_ACCEPTS {
            if !self.may_accept() {
                break;
            }
            match self.listener.accept() {
                Ok((stream, _)) => self.greet(stream)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => match error.raw_os_error() {
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS) => {
                        self.out_of_descriptors = true;
                    }
                    Some(libc::EINTR | libc::ECONNABORTED) => {}
                    _ => return Err(error),
                },
            }
        }
        Ok(())
    }

    fn may_accept(&self) -> bool {
        !self.out_of_descriptors && self.greeting < MAX_GREETING && self.entries.len() < MAX_CONNECTIONS
    }

    fn greet(&mut self, stream: UnixStream) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        let token = self.insert(Entry::new(stream, Stage::Greeting(GreetingReader::default())));
        // The line is most often there already.
        self.read_greeting(token);
        Ok(())
    }

    /// Acts upon an event on the socket of `token`. Events of sockets that are gone are ignored.
    pub(in super::super) fn host_event(&mut self, token: u64, events: EventSet) {
        let Some(entry) = self.entries.get_mut(&token) else { return };
        let hung_up = events.intersects(EventSet::HANG_UP | EventSet::ERROR);
        match &mut entry.stage {
            Stage::Greeting(_) => return self.read_greeting(token),
            Stage::Draining => {
                if !entry.flush() || entry.held.is_empty() {
                    self.remove(token);
                }
                return;
            }
            Stage::Linked(connection) if !connection.is_established() => {
                if hung_up {
                    self.reset(token);
                }
                return;
            }
            Stage::Linked(_) => {}
        }
        entry.hung_up |= hung_up;
        if !entry.held.is_empty() && (hung_up || events.contains(EventSet::OUT)) {
            entry.flush();
        }
        let readable = hung_up || events.contains(EventSet::IN);
        if let Some(connection) = entry.connection() {
            if !connection.is_open_to_guest() && hung_up {
                connection.host_receives_no_more();
            }
            let readable = readable && connection.is_open_to_guest();
            entry.readable |= readable;
        }
        self.settle(token);
    }

    fn read_greeting(&mut self, token: u64) {
        let Some(entry) = self.entries.get_mut(&token) else { return };
        let Stage::Greeting(reader) = &mut entry.stage else { return };
        match reader.read(&entry.stream) {
            Greeting::Incomplete => {}
            Greeting::Bad => {
                self.remove(token);
            }
            Greeting::Connect(guest_port) => {
                let key = self.free_key(guest_port);
                self.tokens.insert(key, token);
                if let Some(entry) = self.entries.get_mut(&token) {
                    entry.stage = Stage::Linked(Connection::from_host(self.guest_cid, key));
                }
                self.wake(token);
            }
        }
    }

    /// A name for a connection to `guest_port`. There are more ports than connections.
    fn free_key(&mut self, guest_port: u32) -> Key {
        loop {
            let key = Key { guest_port, host_port: self.next_port };
            self.next_port = FIRST_HOST_PORT | (self.next_port.wrapping_add(1) & (FIRST_HOST_PORT - 1));
            if !self.tokens.contains_key(&key) {
                return key;
            }
        }
    }

    /// Has `epoll` watch what can be acted upon, and nothing else. `listener_token` is the listener's.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(in super::super) fn watch(&mut self, epoll: &Epoll, listener_token: u64) -> io::Result<()> {
        while let Some(token) = self.touched.pop() {
            let Some(entry) = self.entries.get_mut(&token) else { continue };
            entry.touched = false;
            let wanted = entry.interest();
            if wanted != entry.watched {
                set_watch(epoll, entry.stream.as_raw_fd(), token, entry.watched, wanted)?;
                entry.watched = wanted;
            }
        }
        let accept = self.may_accept();
        if accept != self.listener_watched {
            let set = |on: bool| on.then_some(EventSet::IN);
            let (old, new) = (set(self.listener_watched), set(accept));
            set_watch(epoll, self.listener.as_raw_fd(), listener_token, old, new)?;
            self.listener_watched = accept;
        }
        Ok(())
    }
}

fn set_watch(
    epoll: &Epoll,
    fd: i32,
    token: u64,
    old: Option<EventSet>,
    new: Option<EventSet>,
) -> io::Result<()> {
    let operation = match (old, new) {
        (None, None) => return Ok(()),
        (None, Some(_)) => ControlOperation::Add,
        (Some(_), Some(_)) => ControlOperation::Modify,
        (Some(_), None) => ControlOperation::Delete,
    };
    epoll.ctl(operation, fd, EpollEvent::new(new.unwrap_or(EventSet::empty()), token))
}
