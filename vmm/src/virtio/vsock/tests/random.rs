//! Random doings of a guest and of host processes. The driver checks that the credit is kept and that the engine comes to
//! rest; here, that streams arrive unchanged for as long as both sides keep to the protocol.

use std::{io::Write, net::Shutdown, os::unix::net::UnixStream};

use proptest::prelude::*;

use super::{super::packet::Op, driver::*};

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
        8 => (1usize..70_000).prop_map(Doing::GuestSends),
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
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn streams_arrive_unchanged(doings in prop::collection::vec(doing(), 1..120)) {
        let mut guest = bare_guest();
        guest.give_buffers(10);
        let keys = [key(1, 10), key(2, 11), key(3, 12)];
        let mut streams = keys.map(|key| {
            let host = Some(guest.connected(key, 50_000));
            Stream { host, to_guest: vec![], to_host: vec![], seen: vec![] }
        });
        for (n, doing) in doings {
            let (key, stream) = (keys[n], &mut streams[n]);
            match doing {
                Doing::GuestSends(len) => {
                    let data = pattern(len.min(guest.peers[&key].credit()), stream.to_host.len() as u32);
                    guest.send_data(key, &data);
                    stream.to_host.extend(data);
                }
                Doing::GuestReads => guest.read_all(key),
                Doing::GuestShutsDown(flags) => guest.shut_down(key, flags),
                Doing::GuestResets => guest.send(key, Op::Reset),
                Doing::GuestOp(op) => {
                    let header = guest.header(key, Op::Data);
                    guest.send_header(super::super::packet::Header { op, ..header });
                }
                Doing::GuestGivesBuffers(count) => {
                    guest.give_buffers_up_to(count);
                }
                Doing::HostSends(len) => {
                    let data = pattern(len, stream.to_guest.len() as u32);
                    if let Some(Ok(count)) = stream.host.as_ref().map(|mut host| host.write(&data)) {
                        stream.to_guest.extend(&data[..count]);
                    }
                }
                Doing::HostReads => {
                    if let Some(host) = &stream.host {
                        stream.seen.extend(read_some(host).0);
                    }
                }
                Doing::HostShutsDown => {
                    if let Some(host) = &stream.host {
                        let _ = host.shutdown(Shutdown::Write);
                    }
                }
                Doing::HostCloses => stream.host = None,
                Doing::Settle => guest.settle(),
            }
        }
        guest.refill = true;
        guest.give_buffers_up_to(32);
        guest.settle();
        for (key, stream) in keys.iter().zip(&mut streams) {
            if let Some(host) = &stream.host {
                loop {
                    let (data, ended) = read_some(host);
                    stream.seen.extend(&data);
                    guest.settle();
                    if data.is_empty() || !matches!(ended, Ok(false)) {
                        break;
                    }
                }
            }
            while guest.peers[key].read < guest.peers[key].data.len() {
                guest.read_all(*key);
            }
            prop_assert!(stream.to_guest.starts_with(&guest.peers[key].data));
            prop_assert!(stream.to_host.starts_with(&stream.seen));
            let undisturbed = stream.host.is_some() && guest.peers[key].ops.iter().all(|&op| {
                matches!(op, Op::Response | Op::CreditRequest)
            });
            if undisturbed && stream.to_host.len() == stream.seen.len() {
                // Nothing of the above closed or broke it, so nothing is missing either.
                prop_assert!(guest.peers[key].data.len() <= stream.to_guest.len());
            }
        }
    }
}
