use proptest::prelude::*;

use super::*;

/// A query with the flag "recursion desired".
fn query(name: &str, kind: u16) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    bytes.extend(encode(name).unwrap());
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&[0, 1]);
    bytes
}

#[test]
fn reads_a_question() {
    let bytes = query("Web-1.Example", TYPE_AAAA);
    let query = Query::parse(&bytes).unwrap();
    assert_eq!(query.name.as_deref(), Some("web-1.example"));
    assert_eq!((query.kind, query.internet, query.end), (TYPE_AAAA, true, bytes.len()));
}

#[test]
fn answers_byte_for_byte() {
    let mut bytes = query("a", TYPE_A);
    // What follows the question, here the beginning of an OPT record, is not repeated.
    bytes[11] = 1;
    bytes.extend_from_slice(&[0, 0, 41]);
    let answer = Query::parse(&bytes)
        .unwrap()
        .addresses(&["10.0.0.7".parse().unwrap(), "::1".parse().unwrap()], MAX_UDP);
    let expected = [
        &[0x12, 0x34, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0][..],
        &[1, b'a', 0, 0, 1, 0, 1],
        &[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 0, 0, 7],
    ];
    assert_eq!(answer, expected.concat());
}

#[test]
fn says_what_is_wrong_or_nothing() {
    let good = query("a", TYPE_A);
    assert_eq!(Query::parse(&good[..11]), Err(Malformed::Ignore));
    let with = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        match Query::parse(&bytes) {
            Err(Malformed::Reply(reply)) => {
                assert_eq!((reply.len(), &reply[..2], reply[2] & 0x80), (12, &good[..2], 0x80));
                assert_eq!(reply[4..], [0; 8]);
                Some(reply[3] & 0xf)
            }
            Err(Malformed::Ignore) => None,
            Ok(query) => panic!("{query:?}"),
        }
    };
    assert_eq!(with(2, 0x81), None, "an answer");
    assert_eq!(with(2, 0x28), Some(4), "an update");
    assert_eq!(with(5, 0), Some(1), "no question");
    assert_eq!(with(5, 2), Some(1), "two questions");
    assert_eq!(with(12, 0xc0), Some(1), "a pointer");
    assert_eq!(with(12, 64), Some(1), "a long label");
    assert_eq!(with(12, 60), Some(1), "a label beyond the end");
    let mut long = query("a", TYPE_A);
    long.truncate(12);
    (0..5).for_each(|_| long.extend([&[63][..], &[b'x'; 63]].concat()));
    long.extend([0, 0, 1, 0, 1]);
    assert!(matches!(Query::parse(&long), Err(Malformed::Reply(_))), "a long name");
}

#[test]
fn a_label_with_a_dot_is_no_name_of_ours() {
    let mut bytes = query("axb", TYPE_A);
    bytes[14] = b'.';
    assert_eq!(Query::parse(&bytes).unwrap().name, None);
}

#[test]
fn many_addresses_are_cut_off_over_udp() {
    let bytes = query("many", TYPE_A);
    let query = Query::parse(&bytes).unwrap();
    let addresses: Vec<IpAddr> = (0..100).map(|n| IpAddr::from([10, 0, 0, n])).collect();
    let answer = query.addresses(&addresses, MAX_UDP);
    let count = usize::from(answer[7]);
    assert_eq!((answer[2] & TRUNCATED, answer.len()), (TRUNCATED, bytes.len() + 16 * count));
    assert!(answer.len() <= MAX_UDP && answer.len() + 16 > MAX_UDP);
    let answer = query.addresses(&addresses, usize::from(u16::MAX));
    assert_eq!((answer[2] & TRUNCATED, answer[7]), (0, 100));
}

#[test]
fn takes_the_answer_to_its_own_question_alone() {
    let bytes = query("a.b", TYPE_A);
    let query = Query::parse(&bytes).unwrap();
    let id = [9, 9];
    let sent = query.renumbered(id);
    let mut answer = Query::parse(&sent).unwrap().plain(Code::NoError);
    answer[13] = b'A';
    let accepted = query.accept(id, answer.clone()).unwrap();
    assert_eq!((&accepted.bytes[..2], accepted.truncated, accepted.definite), (&bytes[..2], false, true));
    let refused = |at: usize, value: u8| {
        let mut answer = answer.clone();
        answer[at] = value;
        query.accept(id, answer).is_none()
    };
    assert!(refused(0, 8) && refused(2, 1) && refused(5, 0) && refused(13, b'c') && refused(18, 28));
    assert!(query.accept(id, answer[..answer.len() - 1].to_vec()).is_none());
    for (code, definite) in [(0, true), (2, false), (3, true), (5, false)] {
        answer[3] = 0x80 | code;
        assert_eq!(query.accept(id, answer.clone()).unwrap().definite, definite, "{code}");
    }
}

#[test]
fn names_are_encoded_or_refused() {
    assert_eq!(encode("a.bc").unwrap(), [1, b'a', 2, b'b', b'c', 0]);
    let long = ["x".repeat(63).as_str(); 4].join(".");
    for bad in ["", ".", "a.", ".a", "a..b", "a b", "\u{fc}", &"x".repeat(64), &long] {
        assert_eq!(encode(bad), None, "{bad}");
    }
}

#[test]
fn reverse_names_are_addresses() {
    let v6 = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa";
    assert_eq!(reversed(v6), Some("fd00::1".parse().unwrap()));
    assert_eq!(reversed("7.0.0.10.in-addr.arpa"), Some("10.0.0.7".parse().unwrap()));
    let bad = [
        "in-addr.arpa",
        "0.0.10.in-addr.arpa",
        "1.7.0.0.10.in-addr.arpa",
        "256.0.0.10.in-addr.arpa",
        "+7.0.0.10.in-addr.arpa",
        ".in-addr.arpa",
        "ip6.arpa",
        &v6[2..],
        &format!("0.{v6}"),
        "x",
        "",
    ];
    for name in bad {
        assert_eq!(reversed(name), None, "{name}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_harm(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
        answer in proptest::collection::vec(any::<u8>(), 0..100),
        plausible in any::<bool>(),
    ) {
        let mut bytes = bytes;
        if plausible && bytes.len() > 12 {
            bytes[2..6].copy_from_slice(&[1, 0, 0, 1]);
        }
        match Query::parse(&bytes) {
            Ok(query) => {
                prop_assert!(query.end <= bytes.len() && query.end >= HEADER + 5);
                prop_assert!(query.name.as_ref().is_none_or(|name| name.len() <= MAX_NAME));
                let reply = query.addresses(&[IpAddr::from([1, 2, 3, 4]), IpAddr::from([0_u16; 8])], MAX_UDP);
                prop_assert!(reply.len() <= MAX_UDP.max(query.end));
                prop_assert!(query.accept([0, 0], answer).is_none_or(|accepted| accepted.bytes[..2] == bytes[..2]));
            }
            Err(Malformed::Reply(reply)) => prop_assert_eq!(reply.len(), HEADER),
            Err(Malformed::Ignore) => {}
        }
    }

    #[test]
    fn what_is_encoded_reads_back(name in "[a-z0-9_-]{1,63}(\\.[a-z0-9_-]{1,20}){0,5}", kind in any::<u16>()) {
        let bytes = query(&name, kind);
        let query = Query::parse(&bytes).unwrap();
        prop_assert_eq!(query.name.as_deref(), Some(name.as_str()));
        prop_assert_eq!(query.kind, kind);
        // And as an answer to itself, in every other case of letters.
        let upper = query.plain(Code::NoError).to_ascii_uppercase();
        let id = [upper[0], upper[1]];
        prop_assert!(query.accept(id, upper).is_some());
    }

    #[test]
    fn every_address_has_its_reverse_name(v4 in any::<[u8; 4]>(), v6 in any::<[u8; 16]>()) {
        let [a, b, c, d] = v4;
        prop_assert_eq!(reversed(&format!("{d}.{c}.{b}.{a}.in-addr.arpa")), Some(IpAddr::from(v4)));
        let digits: Vec<String> =
            v6.iter().rev().flat_map(|byte| [format!("{:x}", byte & 15), format!("{:x}", byte >> 4)]).collect();
        prop_assert_eq!(reversed(&format!("{}.ip6.arpa", digits.join("."))), Some(IpAddr::from(v6)));
    }
}
