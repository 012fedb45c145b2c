//! Random doings of a guest and of host processes. The driver checks that the credit is kept and that the engine comes to
//! rest; here, that streams arrive whole and unchanged for as long as both sides keep to the protocol.

use std::{io::Write, net::Shutdown, os::unix::net::UnixStream};

use proptest::prelude::*;

use super::{
    super::header::{Header, Key, Op, SHUTDOWN_RECEIVE, SHUTDOWN_SEND},
    driver::*,
};

#[derive(Debug, Clone)]
enum Doing {
    GuestSends(usize),
    GuestReads,
    GuestShutsDown(u32),
    GuestResets,
    GuestOp(u16),
    GuestGivesBuffers(usize),
    HostSends(usize),
    HostReads,
    HostShutsDown,
    HostCloses,
    Settle,
}

fn doing() -> impl Strategy<Value = (usize, Doing)> {
    let doing = prop_oneof![
        8 => (1usize..65_537).prop_map(Doing::GuestSends),
        4 => Just(Doing::GuestReads),
        1 => (0u32..4).prop_map(Doing::GuestShutsDown),
        1 => Just(Doing::GuestResets),
        1 => (0u16..10).prop_map(Doing::GuestOp),
        4 => (1usize..5).prop_map(Doing::GuestGivesBuffers),
        8 => (1usize..70_000).prop_map(Doing::HostSends),
        8 => Just(Doing::HostReads),
        1 => Just(Doing::HostShutsDown),
        1 => Just(Doing::HostCloses),
        8 => Just(Doing::Settle),
    ];
    (0usize..3, doing)
}

#[derive(Debug)]
struct Stream {
    host: Option<UnixStream>,
    to_guest: Vec<u8>,
    to_host: Vec<u8>,
    seen: Vec<u8>,
    guest_sends: bool,
    /// Everything that the host's peer sends must arrive, for nobody has given a reason why it should not.
    whole_to_guest: bool,
    /// As above, for the guest.
    whole_to_host: bool,
}

impl Stream {
    fn new(host: UnixStream) -> Self {
        Self {
            host: Some(host),
            to_guest: vec![],
            to_host: vec![],
            seen: vec![],
            guest_sends: true,
            whole_to_guest: true,
            whole_to_host: true,
        }
    }

    fn disturb(&mut self) {
        self.whole_to_guest = false;
        self.whole_to_host = false;
    }

    /// Reads what there is; whether there was any.
    fn read(&mut self) -> bool {
        let Some(host) = &self.host else { return false };
        let data = read_some(host).0;
        self.seen.extend(&data);
        !data.is_empty()
    }

    fn act(&mut self, guest: &mut Guest, key: Key, doing: &Doing) {
        match *doing {
            Doing::GuestSends(len) if self.guest_sends => {
                let data = pattern(len.min(guest.peers[&key].credit()), seed(&self.to_host));
                guest.send_data(key, &data);
                self.to_host.extend(data);
            }
            Doing::GuestSends(_) => {}
            Doing::GuestReads => guest.read_all(key),
            Doing::GuestShutsDown(flags) => {
                guest.shut_down(key, flags);
                self.guest_sends &= flags & SHUTDOWN_SEND == 0;
                self.whole_to_guest &= flags & SHUTDOWN_RECEIVE == 0;
            }
            Doing::GuestResets => {
                guest.send(key, Op::Reset);
                self.guest_sends = false;
                self.whole_to_guest = false;
            }
            Doing::GuestOp(op) => {
                let header = guest.header(key, Op::Data);
                guest.send_header(Header { op, ..header });
                match Op::from_raw(op) {
                    Some(Op::CreditUpdate | Op::CreditRequest) => {}
                    Some(Op::Data) if self.guest_sends => {}
                    _ => self.disturb(),
                }
            }
            Doing::GuestGivesBuffers(count) => guest.give_buffers_up_to(count),
            Doing::HostSends(len) => {
                let data = pattern(len, seed(&self.to_guest));
                if let Some(Ok(count)) = self.host.as_ref().map(|mut host| host.write(&data)) {
                    self.to_guest.extend(&data[..count]);
                }
            }
            Doing::HostReads => {
                self.read();
            }
            Doing::HostShutsDown => {
                if let Some(host) = &self.host {
                    // Fails when the device has closed its end.
                    let _ = host.shutdown(Shutdown::Write);
                }
            }
            Doing::HostCloses => {
                self.host = None;
                self.disturb();
            }
            Doing::Settle => guest.settle(),
        }
    }
}

fn seed(data: &[u8]) -> u32 {
    u32::try_from(data.len()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn streams_arrive_whole_and_unchanged(
        event_idx: bool,
        doings in prop::collection::vec(doing(), 1..120),
    ) {
        let mut guest = guest_with(event_idx);
        guest.give_buffers(10);
        let keys = [key(1, 10), key(2, 11), key(3, 12)];
        let mut streams = keys.map(|key| Stream::new(guest.connected(key, 50_000)));
        for (n, doing) in &doings {
            streams[*n].act(&mut guest, keys[*n], doing);
        }
        // Now everybody takes all there is.
        guest.refill = true;
        guest.give_buffers_up_to(32);
        guest.settle();
        while (0..3).any(|n| {
            let read = streams[n].read();
            let peer = &guest.peers[&keys[n]];
            let unread = peer.read < peer.data.len();
            guest.read_all(keys[n]);
            read || unread
        }) {}
        for (key, stream) in keys.iter().zip(&streams) {
            let data = &guest.peers[key].data;
            prop_assert!(stream.to_guest.starts_with(data));
            prop_assert!(stream.to_host.starts_with(&stream.seen));
            prop_assert!(!stream.whole_to_guest || stream.to_guest.len() == data.len());
            prop_assert!(!stream.whole_to_host || stream.to_host.len() == stream.seen.len());
        }
    }
}
