//! Bytes of no sense, and sense with a few bytes changed: never a panic, never a change outside.

use proptest::collection::vec;
use proptest::prelude::*;

use super::Root;
use super::archive::{Archive, Item};
use husk_protocol::agent::Reason as ApiReason;

/// Names that collide, climb, loop and white out.
fn name() -> impl Strategy<Value = String> {
    let part =
        prop::sample::select(vec!["a", "b", "l", "..", ".", "", ".wh.a", ".wh.b", ".wh..wh..opq", ".wh."]);
    vec(part, 1..4).prop_map(|parts| parts.join("/"))
}

fn item() -> impl Strategy<Value = Item> {
    let link = prop_oneof![name(), Just("../canary/file".into()), Just("/".into()), Just("../canary".into())];
    let flag = prop::sample::select(b"0123456701255S".to_vec());
    (name(), flag, link, vec(any::<u8>(), 0..600), 0..0o10000u32, any::<bool>()).prop_map(
        |(name, flag, link, data, mode, pax)| {
            let mut item = Item::new(&name, flag).link(&link).mode(mode).device(1, 3);
            if matches!(flag, b'0' | b'7') {
                item = item.data(&data);
            }
            if pax { item.xattr("user.x", &data).pax("mtime", b"3.5") } else { item }
        },
    )
}

fn archive() -> impl Strategy<Value = Vec<u8>> {
    vec(item(), 0..12).prop_map(|items| items.into_iter().fold(Archive::new(), Archive::add).finish())
}

fn check(layers: &[Vec<u8>]) {
    let root = Root::new();
    for layer in layers {
        if let Err(error) = root.apply_bytes(layer) {
            // Whatever a layer holds, a failure is its own fault.
            assert_ne!(error.api_reason(), ApiReason::UNSPECIFIED, "{error}");
            assert_ne!(error.api_reason(), ApiReason::INVALID_REQUEST, "{error}");
        }
    }
}

/// Corrects all checksums at multiples of 512, so that changes get past them.
fn seal(tar: &mut [u8]) {
    for block in tar.chunks_exact_mut(512).filter(|block| block.iter().any(|b| *b != 0)) {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bytes_of_no_sense(mut bytes in vec(any::<u8>(), 0..4096), sealed in any::<bool>()) {
        if sealed {
            seal(&mut bytes);
        }
        check(&[bytes]);
    }

    #[test]
    fn layers_of_colliding_names(layers in vec(archive(), 1..4)) {
        check(&layers);
    }

    #[test]
    fn layers_with_changed_bytes(
        mut tar in archive(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        sealed in any::<bool>(),
    ) {
        for (at, value) in changes {
            let at = at.index(tar.len());
            tar[at] = value;
        }
        if sealed {
            seal(&mut tar);
        }
        check(&[tar]);
    }
}
