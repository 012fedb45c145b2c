//! Layers that were cut short or altered, in every compression.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::write::GzEncoder;
use husk_protocol::agent::Reason as ApiReason;
use rustix::io::Errno;

use super::archive::{Archive, Item};
use super::{Root, digest};
use crate::unpack::compression::Blob;
use crate::unpack::{Compression, DiffId, Layer, LayerError, Reason, UnpackError, unpack, unpack_layer};

const ALL: [Compression; 3] = [Compression::None, Compression::Gzip, Compression::Zstd];

/// An archive with a bit of everything.
fn archive() -> Vec<u8> {
    Archive::new()
        .dir("d")
        .add(Item::file("d/f", &[b'x'; 3000]).xattr("user.x", b"1").pax("mtime", b"5.5"))
        .gnu_long(b'L', &[b'n'; 200])
        .file("short", b"data")
        .hard_link("h", "d/f")
        .file("d/.wh.none", b"")
        .finish()
}

fn compress(data: &[u8], compression: Compression) -> Vec<u8> {
    match compression {
        Compression::None => data.to_vec(),
        Compression::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(data).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Zstd => {
            let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
            encoder.include_checksum(true).unwrap();
            encoder.write_all(data).unwrap();
            encoder.finish().unwrap()
        }
    }
}

/// Unpacks a blob from a file that is rounded up with zeros, as disks are.
fn unpack_blob(blob: &[u8], compression: Compression, diff_id: &DiffId) -> Result<u64, LayerError> {
    let root = Root::new();
    let device = tempfile::NamedTempFile::new_in("/tmp").unwrap();
    fs::write(device.path(), [blob, &vec![0; blob.len().wrapping_neg() % 512]].concat()).unwrap();
    let layer = Layer {
        device: device.path().to_path_buf(),
        size: blob.len() as u64,
        compression,
        diff_id: format!("sha256:{diff_id}"),
    };
    let read_bytes = AtomicU64::new(0);
    let result = unpack_layer(&layer, diff_id, File::open(&root.path).unwrap().as_fd(), &read_bytes);
    root.check_canary();
    result.map(|()| read_bytes.load(Ordering::Relaxed))
}

fn code(blob: &[u8], compression: Compression, diff_id: &DiffId) -> Option<ApiReason> {
    unpack_blob(blob, compression, diff_id).err().map(|error| error.api_reason())
}

#[test]
fn every_compression_is_read_to_its_end_and_no_further() {
    let tar = archive();
    for compression in ALL {
        let blob = compress(&tar, compression);
        assert_eq!(unpack_blob(&blob, compression, &digest(&tar)).unwrap(), blob.len() as u64);
    }
}

#[test]
fn many_members_and_frames_make_one_stream() {
    let tar = archive();
    for compression in [Compression::Gzip, Compression::Zstd] {
        let blob: Vec<u8> = tar.chunks(700).flat_map(|chunk| compress(chunk, compression)).collect();
        unpack_blob(&blob, compression, &digest(&tar)).unwrap();
    }
    // zstd:chunked layers end with skippable frames.
    let skippable = b"\x50\x2a\x4d\x18\x03\0\0\0xyz";
    let blob = [skippable, &compress(&tar, Compression::Zstd)[..], skippable].concat();
    unpack_blob(&blob, Compression::Zstd, &digest(&tar)).unwrap();
}

#[test]
fn garbage_behind_the_last_member_or_frame_is_refused() {
    let tar = archive();
    for compression in ALL {
        for garbage in [&b"garbage"[..], &[0; 20], b"\x1f", b"\x28"] {
            let blob = [&compress(&tar, compression)[..], garbage].concat();
            assert_eq!(
                code(&blob, compression, &digest(&tar)),
                Some(ApiReason::DAMAGED_LAYER),
                "{compression:?}"
            );
        }
    }
}

#[test]
fn a_wrong_digest_is_refused_and_named() {
    let tar = archive();
    for compression in ALL {
        let blob = compress(&tar, compression);
        let error = unpack_blob(&blob, compression, &digest(b"else")).unwrap_err();
        assert_eq!(error.api_reason(), ApiReason::DAMAGED_LAYER);
        assert!(error.to_string().contains(&digest(&tar).to_string()), "{error}");
    }
}

#[test]
fn a_layer_cut_short_anywhere_is_refused() {
    let tar = archive();
    let diff_id = digest(&tar);
    for compression in ALL {
        let blob = compress(&tar, compression);
        let step = if compression == Compression::None { 128 } else { 1 };
        for end in (0..blob.len()).step_by(step) {
            assert_eq!(
                code(&blob[..end], compression, &diff_id),
                Some(ApiReason::DAMAGED_LAYER),
                "{compression:?} {end}"
            );
        }
    }
}

#[test]
fn a_flipped_bit_anywhere_is_refused() {
    let tar = archive();
    let diff_id = digest(&tar);
    let mut blob = tar.clone();
    for at in (0..blob.len()).step_by(7) {
        blob[at] ^= 1 << (at % 8);
        assert_eq!(code(&blob, Compression::None, &diff_id), Some(ApiReason::DAMAGED_LAYER), "byte {at}");
        blob[at] = tar[at];
    }
    for compression in [Compression::Gzip, Compression::Zstd] {
        let good = compress(&tar, compression);
        let mut blob = good.clone();
        for at in 0..blob.len() {
            blob[at] ^= 1 << (at % 8);
            // Bits that mean nothing, as in gzip's time stamp, may go unnoticed; a wrong file may not.
            match code(&blob, compression, &diff_id) {
                None | Some(ApiReason::DAMAGED_LAYER) => {}
                other => panic!("{compression:?} byte {at}: {other:?}"),
            }
            blob[at] = good[at];
        }
    }
}

#[test]
fn the_wrong_compression_is_refused() {
    let tar = archive();
    for (real, claimed) in [
        (ALL[0], ALL[1]),
        (ALL[0], ALL[2]),
        (ALL[1], ALL[0]),
        (ALL[1], ALL[2]),
        (ALL[2], ALL[0]),
        (ALL[2], ALL[1]),
    ] {
        let blob = compress(&tar, real);
        assert_eq!(
            code(&blob, claimed, &digest(&tar)),
            Some(ApiReason::DAMAGED_LAYER),
            "{real:?} as {claimed:?}"
        );
    }
    assert_eq!(code(b"", Compression::Gzip, &digest(b"")), Some(ApiReason::DAMAGED_LAYER));
}

#[test]
fn a_disk_shorter_than_its_layer_is_refused() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(100).unwrap();
    let count = AtomicU64::new(0);
    let error = std::io::copy(&mut Blob::new(file, 101, &count), &mut std::io::sink()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    assert_eq!(count.into_inner(), 100);
}

#[test]
fn what_the_caller_gets_wrong_is_told_apart() {
    let layer = |device: &str, diff_id: &str| Layer {
        device: device.into(),
        size: 0,
        compression: Compression::None,
        diff_id: diff_id.into(),
    };
    let error =
        unpack(vec![layer("/dev/null", "md5:0")], "/dev/null".as_ref(), &AtomicU64::new(0)).unwrap_err();
    assert_eq!(error.api_reason(), ApiReason::INVALID_REQUEST);
    assert!(error.to_string().starts_with("layer 1 of 1: diff id"), "{error}");

    let root = Root::new();
    let missing = layer("/nonexistent", "");
    let root = File::open(&root.path).unwrap();
    let error = unpack_layer(&missing, &digest(b""), root.as_fd(), &AtomicU64::new(0)).unwrap_err();
    assert_eq!(error.api_reason(), ApiReason::UNSPECIFIED);
    for errno in [Errno::NOSPC, Errno::DQUOT, Errno::FBIG] {
        let target = UnpackError::Target { action: "write", device: "x".into(), errno };
        assert_eq!(target.api_reason(), ApiReason::DISK_FULL);
        assert_eq!(
            LayerError::from(Reason::System { action: "write", errno }).api_reason(),
            ApiReason::DISK_FULL
        );
    }
}
