//! What no honest guest would send.

use proptest::prelude::*;

use super::{
    super::header::{HEADER_LEN, Header, MAX_PAYLOAD_LEN, Op},
    driver::*,
};

fn max_len() -> u32 {
    u32::try_from(MAX_PAYLOAD_LEN).unwrap()
}

#[test]
fn packets_for_others_are_dropped() {
    let mut guest = guest();
    let header = guest.header(key(1, 2), Op::Request);
    guest.send_header(Header { src_cid: 4, ..header });
    guest.send_header(Header { src_cid: 3 | 1 << 32, ..header });
    guest.send_header(Header { dst_cid: 3, ..header });
    guest.send_raw(header.to_bytes()[..HEADER_LEN - 1].to_vec());
    guest.send_raw(vec![1]);
    guest.settle();
    assert!(guest.peers.is_empty());
}

#[test]
fn malformed_packets_are_reset() {
    let mut guest = guest();
    let header = guest.header(key(1, 2), Op::Data);
    for bad in [
        Header { op: 0, ..header },
        Header { op: 8, ..header },
        Header { kind: 2, ..header },
        Header { len: 1, ..header },
        Header { len: max_len() + 1, ..header },
        Header { len: u32::MAX, ..header },
        header,
    ] {
        guest.peers.clear();
        guest.send_header(bad);
        guest.settle();
        assert_eq!(guest.peers[&key(1, 2)].ops, [Op::Reset], "{bad:?}");
    }
}

#[test]
fn malformed_packets_end_the_connection_they_name() {
    for (op, len, flags) in [(5, 9, 0), (5, max_len() + 1, 0), (99, 0, 0), (1, 0, 0), (2, 0, 0)] {
        let mut guest = guest();
        let key = key(1, 2);
        let host = guest.connected(key, 1 << 16);
        let header = guest.header(key, Op::Data);
        guest.send_header(Header { op, len, flags, ..header });
        guest.settle();
        assert_eq!(guest.peers[&key].ops, [Op::Response, Op::Reset]);
        assert_eq!(read_now(&host), (vec![], true));
    }
}

#[test]
fn data_after_the_end_is_reset() {
    let mut guest = guest();
    let key = key(1, 2);
    let host = guest.connected(key, 1 << 16);
    guest.shut_down(key, 2);
    guest.send_data(key, b"too late");
    guest.settle();
    assert_eq!(guest.peers[&key].ops, [Op::Response, Op::Reset]);
    assert_eq!(read_now(&host), (vec![], true));
}

#[test]
fn resets_are_never_answered() {
    let mut guest = guest();
    let reset = guest.header(key(1, 2), Op::Reset);
    guest.send_header(reset);
    guest.send_header(Header { kind: 7, ..reset });
    guest.send_header(Header { len: u32::MAX, ..reset });
    guest.settle();
    assert!(guest.peers.is_empty());
}

#[test]
fn longest_packet_is_taken_and_what_follows_it_ignored() {
    let mut guest = guest();
    let key = key(1, 2);
    let host = guest.connected(key, 1 << 16);
    let data = pattern(MAX_PAYLOAD_LEN, 1);
    let header = Header { len: max_len(), ..guest.header(key, Op::Data) };
    guest.send_raw([header.to_bytes().as_slice(), &data, b"more"].concat());
    guest.settle();
    assert!(read_now(&host).0 == data);
}

#[test]
fn buffers_too_small_for_data_are_given_back() {
    let mut guest = bare_guest();
    guest.rx_len = HEADER_LEN;
    guest.give_buffers(3);
    guest.send(key(1, 2), Op::Request);
    guest.settle();
    assert!(guest.peers.is_empty());
    guest.rx_len = HEADER_LEN + 1;
    guest.give_buffers(1);
    guest.settle();
    assert_eq!(guest.peers[&key(1, 2)].ops, [Op::Reset]);
}

#[test]
fn a_broken_ring_stops_the_device() {
    let mut guest = guest();
    guest.break_tx();
    assert!(guest.engine.turn(0).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn headers_survive_both_ways(bytes in prop::array::uniform32(any::<u8>()), tail in prop::array::uniform12(any::<u8>())) {
        let mut raw = [0; HEADER_LEN];
        raw[..32].copy_from_slice(&bytes);
        raw[32..].copy_from_slice(&tail);
        prop_assert_eq!(Header::from_bytes(&raw).to_bytes(), raw);
    }

    #[test]
    fn any_bytes_leave_the_device_working(packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..40)) {
        let mut guest = guest();
        let key = key(1, 2);
        let host = guest.connected(key, 1 << 16);
        for packet in packets {
            guest.send_raw(packet);
        }
        guest.send_data(key, b"fine");
        guest.settle();
        prop_assert_eq!(read_now(&host), (b"fine".to_vec(), false));
    }

    #[test]
    fn any_fields_leave_the_device_working(
        fields in prop::collection::vec((0u16..9, 0u32..200_000, any::<u32>(), any::<u32>(), any::<u32>(), 0u16..3), 1..40)
    ) {
        let mut guest = guest();
        let (victim, other) = (key(1, 2), key(3, 4));
        let _victim = guest.connected(victim, 1 << 16);
        let host = guest.connected(other, 1 << 16);
        for (op, len, flags, buf_alloc, fwd_cnt, kind) in fields {
            let header = guest.header(victim, Op::Data);
            let header = Header { op, len, flags, buf_alloc, fwd_cnt, kind, ..header };
            guest.send_raw([header.to_bytes().as_slice(), &[7; 1000]].concat());
        }
        guest.send_data(other, b"fine");
        guest.settle();
        prop_assert_eq!(read_now(&host), (b"fine".to_vec(), false));
    }
}
