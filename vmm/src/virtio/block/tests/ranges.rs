//! Discards and zeros.

use std::{
    fs,
    os::fd::FromRawFd,
    os::fd::OwnedFd,
    os::unix::fs::{FileExt, MetadataExt},
};

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES,
};

use super::*;

const DISK_LEN: usize = 64 << 10;

/// A request about a range; returns its status.
fn range(bench: &mut Bench, kind: u32, sector: u64, count: u32, flags: u32) -> u32 {
    let mut bytes = sector.to_le_bytes().to_vec();
    bytes.extend(count.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bench.driver.put(DATA, &bytes);
    bench.usual(kind, 0, 16)
}

#[test]
fn zeros_read_as_zeros_and_may_give_up_space() {
    for (way, durable) in ways().into_iter().flat_map(|way| [(way, false), (way, true)]) {
        let (file, disk) = disk(&[7; DISK_LEN], false);
        let mut bench = Bench::new(way, disk);
        bench.durable = durable;
        assert_eq!(range(&mut bench, VIRTIO_BLK_T_WRITE_ZEROES, 1, 16, 0), VIRTIO_BLK_S_OK);
        let allocated = file.as_file().metadata().unwrap().blocks();
        assert_eq!(range(&mut bench, VIRTIO_BLK_T_WRITE_ZEROES, 64, 64, 1), VIRTIO_BLK_S_OK);
        assert!(file.as_file().metadata().unwrap().blocks() < allocated);
        let mut expected = vec![7; DISK_LEN];
        expected[512..17 * 512].fill(0);
        expected[64 * 512..].fill(0);
        assert!(fs::read(file.path()).unwrap() == expected);
        let counters = &bench.slot.counters;
        assert_eq!((counters.zeroings.get(), counters.zeroed_bytes.get()), (2, 80 * 512));
    }
}

#[test]
fn discards_give_up_space_and_leave_the_length() {
    for way in ways() {
        let (file, disk) = disk(&[7; DISK_LEN], false);
        let mut bench = Bench::new(way, disk);
        let allocated = file.as_file().metadata().unwrap().blocks();
        assert_eq!(range(&mut bench, VIRTIO_BLK_T_DISCARD, 64, 64, 0), VIRTIO_BLK_S_OK);
        let after = file.as_file().metadata().unwrap();
        assert!(after.blocks() < allocated && after.len() == DISK_LEN as u64);
        let content = fs::read(file.path()).unwrap();
        assert!(content[..64 * 512] == [7; 64 * 512]);
        assert_eq!(bench.slot.counters.discarded_bytes.get(), 64 * 512);
    }
}

#[test]
fn ranges_are_checked_like_writes() {
    for (way, kind) in ways()
        .into_iter()
        .flat_map(|way| [VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES].map(|kind| (way, kind)))
    {
        let (file, disk) = disk(&[7; DISK_LEN], false);
        let mut bench = Bench::new(way, disk);
        for (sector, count) in
            [(128, 1), (127, 2), (0, 129), (u64::MAX, 1), (0, 0), (0, u32::MAX), (1 << 55, 8)]
        {
            let status = range(&mut bench, kind, sector, count, 0);
            assert_eq!(status, VIRTIO_BLK_S_IOERR, "{sector} {count}");
        }
        for flags in [2, 3, 1 << 31] {
            assert_eq!(range(&mut bench, kind, 0, 8, flags), VIRTIO_BLK_S_UNSUPP);
        }
        // No range, half of one, two.
        for len in [0, 8, 15, 17, 32] {
            assert_eq!(bench.usual(kind, 0, len), VIRTIO_BLK_S_IOERR, "{len}");
        }
        assert!(fs::read(file.path()).unwrap() == [7; DISK_LEN]);
    }
    let (_file, disk) = disk(&[7; DISK_LEN], false);
    let mut bench = Bench::new(Way::InPlace, disk);
    // Only zeros may have it.
    assert_eq!(range(&mut bench, VIRTIO_BLK_T_DISCARD, 0, 8, 1), VIRTIO_BLK_S_UNSUPP);
}

#[test]
fn a_file_system_that_knows_no_zeros_gets_them_written() {
    for way in ways() {
        // SAFETY: the name is a string that lives on.
        let fd = unsafe { libc::memfd_create(c"disk".as_ptr(), libc::MFD_CLOEXEC) };
        assert!(fd >= 0);
        // SAFETY: the descriptor is new and nobody else's.
        let file = fs::File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        file.write_all_at(&[7; 4 * DISK_LEN], 0).unwrap();
        let passed = file.try_clone().unwrap().into();
        let mut bench = Bench::new(way, Disk::open(Source::Open(passed), false).unwrap());
        // More than one piece.
        assert_eq!(range(&mut bench, VIRTIO_BLK_T_WRITE_ZEROES, 3, 300, 0), VIRTIO_BLK_S_OK);
        let mut content = vec![1; 4 * DISK_LEN];
        file.read_exact_at(&mut content, 0).unwrap();
        let mut expected = vec![7; 4 * DISK_LEN];
        expected[3 * 512..303 * 512].fill(0);
        assert!(content == expected);
    }
}
