//! Each type of request, and what a device makes of wrong ones.

use std::fs;

use proptest::prelude::*;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH,
    VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
};

use super::{super::kind::Kind, driver::MEM_LEN, *};

#[test]
fn what_is_written_is_read() {
    for (way, durable) in ways().into_iter().flat_map(|way| [(way, false), (way, true)]) {
        let (file, disk) = disk(&[0; 4096], false);
        let mut bench = Bench::new(way, disk);
        bench.durable = durable;
        let content = numbered(1024);
        bench.driver.put(DATA, &content);
        assert_eq!(bench.usual(VIRTIO_BLK_T_OUT, 2, 1024), VIRTIO_BLK_S_OK);
        assert_eq!(bench.usual(VIRTIO_BLK_T_FLUSH, 0, 0), VIRTIO_BLK_S_OK);
        let on_disk = fs::read(file.path()).unwrap();
        assert_eq!((on_disk.len(), &on_disk[1024..2048]), (4096, &content[..]));
        assert_eq!(on_disk[..1024], [0; 1024]);
        bench.driver.put(DATA, &[0xff; 1024]);
        assert_eq!(bench.usual(VIRTIO_BLK_T_IN, 2, 1024), VIRTIO_BLK_S_OK);
        assert_eq!(bench.data(1024), content);
    }
}

#[test]
fn any_cut_into_descriptors_will_do() {
    let content = numbered(1024);
    // The header in three pieces, the status together with the end of the data.
    let header = [(HEADER, 3, 0), (HEADER + 3, 12, 0), (HEADER + 15, 1, 0)];
    for (way, cut) in ways().into_iter().flat_map(|way| [0, 1, 100, 512, 1023, 1024].map(|cut| (way, cut))) {
        let (_file, disk) = disk(&content, true);
        let mut bench = Bench::new(way, disk);
        bench.driver.put_header(0, VIRTIO_BLK_T_IN, 0);
        let data = [(DATA, cut, WRITE), (DATA + u64::from(cut), 1025 - cut, WRITE)];
        let chain: Vec<_> = header.into_iter().chain(data).collect();
        assert_eq!(bench.run(&chain).unwrap(), 1025);
        assert_eq!(bench.data(1025), [&content[..], &[0]].concat());
    }
    for (way, cut) in ways().into_iter().flat_map(|way| [1, 15, 16, 17, 527].map(|cut| (way, cut))) {
        let (file, disk) = disk(&[0; 512], false);
        let mut bench = Bench::new(way, disk);
        bench.driver.put_header(0, VIRTIO_BLK_T_OUT, 0);
        bench.driver.put(HEADER + 16, &content[..512]);
        let chain = [(HEADER, cut, 0), (HEADER + u64::from(cut), 528 - cut, 0), (STATUS, 1, WRITE)];
        assert_eq!(bench.run(&chain).unwrap(), 1);
        assert_eq!(fs::read(file.path()).unwrap(), content[..512]);
    }
}

#[test]
fn the_last_sector_is_filled_up_with_zeros() {
    for way in ways() {
        let content = numbered(1000);
        let (_file, disk) = disk(&content, true);
        assert_eq!(disk.0.sectors(), 2);
        let mut bench = Bench::new(way, disk);
        bench.driver.put(DATA, &[0xff; 1024]);
        assert_eq!(bench.usual(VIRTIO_BLK_T_IN, 0, 1024), VIRTIO_BLK_S_OK);
        assert_eq!(bench.data(1024), [&content[..], &[0; 24]].concat());
        assert_eq!(bench.usual(VIRTIO_BLK_T_IN, 1, 1024), VIRTIO_BLK_S_IOERR);
    }
}

#[test]
fn a_read_only_disk_refuses_writes() {
    for way in ways() {
        let (file, disk) = disk(&[7; 512], true);
        let mut bench = Bench::new(way, disk);
        assert_eq!(bench.usual(VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_IOERR);
        assert_eq!(bench.usual(VIRTIO_BLK_T_FLUSH, 0, 0), VIRTIO_BLK_S_OK);
        assert_eq!(fs::read(file.path()).unwrap(), [7; 512]);
    }
}

#[test]
fn transfers_stay_on_the_disk() {
    for way in ways() {
        let (file, disk) = disk(&[0; 2048], false);
        let mut bench = Bench::new(way, disk);
        let last = u64::MAX / 512;
        for (sector, len) in
            [(4, 512), (3, 1024), (0, 2560), (0, 511), (0, 1), (last, 512), (last + 1, 512), (u64::MAX, 512)]
        {
            for kind in [VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT] {
                assert_eq!(bench.usual(kind, sector, len), VIRTIO_BLK_S_IOERR, "{sector} {len}");
            }
        }
        assert_eq!(fs::metadata(file.path()).unwrap().len(), 2048);
        assert_eq!(bench.usual(VIRTIO_BLK_T_IN, 3, 512), VIRTIO_BLK_S_OK);
        assert_eq!(bench.usual(VIRTIO_BLK_T_IN, 4, 0), VIRTIO_BLK_S_OK);
    }
}

#[test]
fn a_file_that_shrinks_is_an_io_error() {
    for way in ways() {
        let (file, disk) = disk(&[0; 2048], true);
        file.as_file().set_len(512).unwrap();
        let mut bench = Bench::new(way, disk);
        assert_eq!(bench.usual(VIRTIO_BLK_T_IN, 0, 1024), VIRTIO_BLK_S_IOERR);
        assert_eq!(bench.usual(VIRTIO_BLK_T_IN, 0, 512), VIRTIO_BLK_S_OK);
    }
}

#[test]
fn an_error_of_the_host_is_an_io_error() {
    for (way, durable) in ways().into_iter().flat_map(|way| [(way, false), (way, true)]) {
        // A file that is open for reading only can't be written, and one that is open for writing only can't be read.
        let (file, (mut disk, closed)) = disk(&[0; 512], false);
        disk.replace_file(fs::File::open(file.path()).unwrap());
        let mut bench = Bench::new(way, (disk, closed));
        bench.durable = durable;
        assert_eq!(bench.usual(VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_IOERR);
        bench.driver.put(DATA, &[0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bench.usual(VIRTIO_BLK_T_DISCARD, 0, 16), VIRTIO_BLK_S_IOERR);
        assert_eq!(bench.usual(VIRTIO_BLK_T_WRITE_ZEROES, 0, 16), VIRTIO_BLK_S_IOERR);
        let (file, (mut disk, closed)) = super::disk(&[0; 512], false);
        disk.replace_file(fs::OpenOptions::new().write(true).open(file.path()).unwrap());
        assert_eq!(Bench::new(way, (disk, closed)).usual(VIRTIO_BLK_T_IN, 0, 512), VIRTIO_BLK_S_IOERR);
        assert_eq!(bench.slot.counters.errors.get(), 3);
    }
}

#[test]
fn each_error_of_the_host_is_new_once() {
    let (_file, (disk, _closed)) = disk(&[0; 512], false);
    let error = std::io::Error::from_raw_os_error;
    let (write, flush) = (Kind::Write { durable: false }, Kind::Flush);
    assert!(disk.is_new_error(write, &error(libc::EIO)));
    assert!(disk.is_new_error(flush, &error(libc::EIO)) && disk.is_new_error(write, &error(libc::EROFS)));
    assert!(!disk.is_new_error(Kind::Write { durable: true }, &error(libc::EIO)));
    assert!(disk.is_new_error(write, &std::io::ErrorKind::WriteZero.into()));
    assert!(!disk.is_new_error(write, &std::io::ErrorKind::WriteZero.into()));
}

#[test]
fn a_failed_flush_is_never_forgotten() {
    for way in ways() {
        let (file, (mut disk, closed)) = disk(&[0; 512], false);
        // Pipes can't be flushed.
        disk.replace_file(fs::File::from(std::os::fd::OwnedFd::from(std::io::pipe().unwrap().1)));
        let mut bench = Bench::new(way, (disk, closed));
        assert_eq!(bench.usual(VIRTIO_BLK_T_FLUSH, 0, 0), VIRTIO_BLK_S_IOERR);
        let (mut good, _) = Disk::open(Source::Path(file.path().into()), false).unwrap();
        assert!(good.flush().is_ok());
        good.replace_file(fs::File::from(std::os::fd::OwnedFd::from(std::io::pipe().unwrap().1)));
        assert!(good.flush().is_err());
        good.replace_file(file.reopen().unwrap());
        assert!(good.flush().is_err());
    }
}

#[test]
fn the_id_is_the_serial_number() {
    for way in ways() {
        let (_file, disk) = disk(&[0; 512], true);
        let mut bench = Bench::new(way, disk);
        bench.driver.put(DATA, &[0xff; 20]);
        assert_eq!(bench.usual(VIRTIO_BLK_T_GET_ID, 0, 20), VIRTIO_BLK_S_OK);
        assert_eq!(bench.data(20), b"disk-id\0\0\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(bench.usual(VIRTIO_BLK_T_GET_ID, 0, 19), VIRTIO_BLK_S_IOERR);
    }
}

#[test]
fn odd_requests_are_answered() {
    for way in ways() {
        let (_file, disk) = disk(&[0; 512], true);
        let mut bench = Bench::new(way, disk);
        // Discard and write zeroes on a read-only disk, and nonsense.
        for kind in [11, 13, 2, 14, u32::MAX] {
            assert_eq!(bench.usual(kind, 0, 512), VIRTIO_BLK_S_UNSUPP);
        }
        assert_eq!(bench.run(&[(HEADER, 15, 0), (STATUS, 1, WRITE)]).unwrap(), 1);
        assert_eq!(bench.driver.status(0), VIRTIO_BLK_S_IOERR);
        let broken = |chain: &[Chain]| {
            let (_file, disk) = super::disk(&[0; 512], true);
            Bench::new(way, disk).run(chain).unwrap_err()
        };
        assert!(matches!(broken(&[(HEADER, 16, 0)]), ServeError::NoRoom));
        assert!(matches!(broken(&[(HEADER, 16, 0), (STATUS, 0, WRITE)]), ServeError::NoRoom));
        let outside = [(HEADER, 16, 0), (MEM_LEN as u64 - 1, 2, WRITE)];
        assert!(matches!(broken(&outside), ServeError::Chain(_)));
    }
}

#[test]
fn unusable_disks_are_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let open = |read_only| Block::new(&config(&file, read_only)).unwrap_err();
    assert!(matches!(open(true), DiskError::Empty(_)));
    file.as_file().set_len(1000).unwrap();
    assert!(matches!(open(false), DiskError::Length { len: 1000, .. }));
    let missing = DiskConfig::new("x", "/nonexistent", true);
    assert_eq!(Block::new(&missing).unwrap_err().to_string(), "cannot open the disk /nonexistent");
    for odd in ["/", "/dev/null"] {
        let odd = DiskConfig::new("x", odd, true);
        assert!(matches!(Block::new(&odd), Err(DiskError::Kind(path)) if path == odd.path));
    }
}

#[test]
fn the_configuration_has_capacity_and_limits() {
    let (file, _) = disk(&[0; 1025], true);
    let block = Block::new(&config(&file, true)).unwrap();
    let mut data = [0xff; 20];
    block.read_config(0, &mut data);
    assert_eq!(data, [3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 254, 0, 0, 0, 0, 0, 0, 0]);
    block.read_config(u64::MAX, &mut data);
    assert_eq!(data, [0; 20]);
    assert_eq!(block.features() & 1 << VIRTIO_BLK_F_RO, 1 << VIRTIO_BLK_F_RO);
    let mut rest = [0; 44];
    block.read_config(20, &mut rest);
    let word = |at: usize| u32::from_le_bytes(*rest[at - 20..].first_chunk().unwrap());
    // Block size, discard: sectors, ranges and alignment, zeros: sectors and ranges, and that they may give up space.
    let words = [20, 36, 40, 44, 48, 52, 56].map(word);
    assert_eq!(words, [512, 1 << 22, 1, 8, 1 << 15, 1, 1]);
    // Number of queues.
    assert_eq!(rest[14..16], [1, 0]);
    assert_eq!(rest[60 - 20..], [0; 4]);
}

/// What a random chain may be made of.
fn descriptors() -> impl Strategy<Value = Vec<Chain>> {
    let len = prop_oneof![0_u32..3, Just(16), Just(512), 0_u32..0x8000];
    prop::collection::vec((0x1_0000_u64..0x3_8000, len, prop::sample::select(vec![0, WRITE])), 1..8)
}

proptest! {
    /// Whatever a request looks like, it does not panic, does not touch what it should not, and leaves the disk's length.
    #[test]
    fn no_request_does_harm(
        kind in prop_oneof![0_u32..14, any::<u32>()],
        sector in prop_oneof![0_u64..10, any::<u64>()],
        read_only in any::<bool>(),
        mut descriptors in descriptors(),
        way in prop::sample::select(ways()),
    ) {
        let content = numbered(4096);
        let (file, disk) = disk(&content, read_only);
        let mut bench = Bench::new(way, disk);
        bench.driver.put_header(0, kind, sector);
        descriptors[0].0 = HEADER;
        let writable: u32 =
            descriptors.iter().filter(|(_, _, flags)| *flags == WRITE).map(|(_, len, _)| len).sum();
        let before = bench.driver.bytes(0x4_0000, MEM_LEN - 0x4_0000);
        if let Ok(written) = bench.run(&descriptors) {
            prop_assert_eq!(written, writable);
        }
        prop_assert_eq!(bench.driver.bytes(0x4_0000, before.len()), before);
        let after = fs::read(file.path()).unwrap();
        prop_assert_eq!(after.len(), content.len());
        if read_only {
            prop_assert_eq!(after, content);
        }
    }
}
