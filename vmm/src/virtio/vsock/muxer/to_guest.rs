//! Packets for the guest: one for each buffer that it gives.

use std::io;

use super::{
    super::{
        chain::Buffers,
        header::{HEADER_LEN, Header},
    },
    Muxer, Stage,
};

/// What an entry put into a buffer of the guest.
enum Produced {
    /// It had nothing after all.
    Nothing,
    /// A packet.
    Packet(Header),
    /// Its connection failed.
    Failed,
}

impl Muxer {
    /// Whether there may be something for the guest.
    pub(in super::super) fn has_output(&self) -> bool {
        !self.farewells.is_empty() || !self.run.is_empty()
    }

    /// Puts one packet into a buffer of the guest and returns its length, which is 0 if the buffer is too small for a
    /// packet with data. `None` if there was nothing to put after all.
    pub(in super::super) fn fill(&mut self, mut buffer: Buffers<'_>) -> Option<usize> {
        let Some(head) = buffer.split_to(HEADER_LEN).filter(|_| buffer.len() > 0) else { return Some(0) };
        let header = self.next_packet(&buffer)?;
        head.copy_from(&header.to_bytes());
        Some(HEADER_LEN + header.len as usize)
    }

    /// The next packet's header; its payload is in `payload` already.
    fn next_packet(&mut self, payload: &Buffers<'_>) -> Option<Header> {
        loop {
            // What ended goes first: its ports may be in use again already.
            if let Some(farewell) = self.farewells.pop_front() {
                return Some(farewell);
            }
            let token = self.run.pop_front()?;
            if let Some(entry) = self.entries.get_mut(&token) {
                entry.queued = false;
            }
            match self.produce(token, payload) {
                Produced::Nothing => self.settle(token),
                Produced::Packet(header) => {
                    self.settle(token);
                    return Some(header);
                }
                // Leaves a farewell.
                Produced::Failed => self.reset(token),
            }
        }
    }

    fn produce(&mut self, token: u64, payload: &Buffers<'_>) -> Produced {
        let Some(entry) = self.entries.get_mut(&token) else { return Produced::Nothing };
        let Stage::Linked(connection) = &mut entry.stage else { return Produced::Nothing };
        if let Some(header) = connection.next_control() {
            return Produced::Packet(header);
        }
        let room = payload.len().min(connection.credit() as usize);
        if !entry.readable || room == 0 {
            return Produced::Nothing;
        }
        match payload.receive(&entry.stream, room) {
            Ok(0) => {
                entry.readable = false;
                connection.host_sends_no_more();
                if entry.hung_up {
                    connection.host_receives_no_more();
                }
                if connection.is_finished() {
                    return Produced::Nothing;
                }
                connection.next_control().map_or(Produced::Nothing, Produced::Packet)
            }
            Ok(count) => {
                // Less than there was room for: the socket is empty for now.
                entry.readable = count == room;
                u32::try_from(count)
                    .map_or(Produced::Failed, |len| Produced::Packet(connection.data_packet(len)))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                entry.readable = false;
                Produced::Nothing
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Produced::Nothing,
            Err(_) => Produced::Failed,
        }
    }
}
