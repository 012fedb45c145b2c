//! Disks that come and go.

use std::{fs, io::Write, os::fd::OwnedFd, time::Duration};

use virtio_bindings::{
    virtio_blk::{
        VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
    },
    virtio_mmio::{VIRTIO_MMIO_CONFIG, VIRTIO_MMIO_CONFIG_GENERATION},
};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{
    super::super::{Interrupt, mmio::MmioTransport},
    *,
};

fn path_of(file: &tempfile::NamedTempFile) -> Source {
    Source::Path(file.path().into())
}

fn file(len: u64) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(len).unwrap();
    file
}

/// Attaches without a limit.
fn attach(disks: &mut Disks, id: &str, source: Source) -> Result<String, DisksError> {
    disks.attach(id, source, false, RateLimit::default()).map(|attached| attached.slot)
}

#[test]
fn requests_meet_the_disk_that_is_there() {
    for way in ways() {
        let (_file, disk) = disk(&[1; 512], false);
        let mut bench = Bench::new(way, disk);
        assert!(bench.slot.detach().unwrap().is_closed());
        for kind in [VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, 4, 11] {
            assert_eq!(bench.usual(kind, 0, 512), VIRTIO_BLK_S_IOERR);
        }
        assert_eq!(bench.usual(VIRTIO_BLK_T_GET_ID, 0, 20), VIRTIO_BLK_S_OK);
        assert_eq!(&bench.data(6), b"disk-i");
        let (_other, disk) = super::disk(&[2; 1024], true);
        bench.slot.attach("other", disk, RateLimit::default());
        assert_eq!(bench.usual(VIRTIO_BLK_T_IN, 1, 512), VIRTIO_BLK_S_OK);
        assert_eq!(bench.data(512), [2; 512]);
        assert_eq!(bench.usual(VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_IOERR);
        assert_eq!(bench.usual(VIRTIO_BLK_T_GET_ID, 0, 20), VIRTIO_BLK_S_OK);
        assert_eq!(&bench.data(6), b"other\0");
    }
}

#[test]
fn a_disk_is_closed_when_its_last_request_has_ended() {
    if !ways().contains(&Way::InFlight) {
        return eprintln!("skipped: this host has no io_uring");
    }
    let (_file, disk) = disk(&numbered(1024), true);
    let mut bench = Bench::new(Way::InFlight, disk);
    for index in 0..2 {
        bench.driver.put_header(index, VIRTIO_BLK_T_IN, index);
        bench.driver.add(&[(HEADER + 16 * index, 16, 0), (DATA, 512, WRITE), (STATUS + index, 1, WRITE)]);
    }
    let slot = bench.slot.clone();
    let mut queue = bench.queue();
    queue.take(0, &mut 0).unwrap();
    queue.engine.submit().unwrap();
    let closing = slot.detach().unwrap();
    assert!(!closing.is_closed() && !closing.wait(Duration::ZERO));
    finish(&mut queue).unwrap();
    assert!(closing.wait(Duration::MAX) && closing.is_closed());
    drop(queue);
    assert_eq!([0, 1].map(|index| bench.driver.status(index)), [VIRTIO_BLK_S_OK; 2]);
}

#[test]
fn a_driver_sees_size_and_generation_change_together() {
    let block = Block::spare("spare0").unwrap();
    assert_eq!(block.features() & 1 << VIRTIO_BLK_F_RO, 0);
    let mut disks = Disks::default();
    disks.add_spare(&block, "place".into());
    let mem = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
    let interrupt = Interrupt::new(EventFd::new(EFD_NONBLOCK).unwrap());
    let mut transport = MmioTransport::new(Box::new(block), mem, interrupt).unwrap();
    let mut look = || {
        let (mut generation, mut sectors) = ([0; 4], [0; 8]);
        transport.read(VIRTIO_MMIO_CONFIG_GENERATION.into(), &mut generation);
        transport.read(VIRTIO_MMIO_CONFIG.into(), &mut sectors[..4]);
        transport.read(u64::from(VIRTIO_MMIO_CONFIG) + 4, &mut sectors[4..]);
        (u32::from_le_bytes(generation), u64::from_le_bytes(sectors))
    };
    let (before, sectors) = look();
    assert_eq!(sectors, 0);
    let large = file(5 << 40);
    assert_eq!(attach(&mut disks, "data", path_of(&large)).unwrap(), "spare0");
    let (attached, sectors) = look();
    assert_eq!(sectors, 5 << 31);
    disks.detach("data").unwrap();
    let (detached, sectors) = look();
    assert_eq!(sectors, 0);
    assert!(before != attached && attached != detached);
}

#[test]
fn slots_are_taken_and_freed() {
    let (fixed, data) = (file(512), file(512));
    let mut disks = Disks::default();
    disks.add_fixed(&Block::new(&config(&fixed, false)).unwrap());
    let spares = ["spare0", "spare1"].map(|name| Block::spare(name).unwrap());
    spares.iter().for_each(|block| disks.add_spare(block, "place".into()));
    let names: Vec<_> = disks.counters().map(|(name, _)| name).collect();
    assert_eq!(names, ["disk-id", "spare0", "spare1"]);
    assert_eq!(attach(&mut disks, "a", path_of(&data)).unwrap(), "spare0");
    for taken in ["a", "disk-id", "spare0", "spare1"] {
        let error = attach(&mut disks, taken, path_of(&data)).unwrap_err();
        assert!(matches!(error, DisksError::Taken(id) if id == taken));
    }
    for bad in ["", "twenty-one-bytes-of-i", "a b", "ä"] {
        assert!(matches!(attach(&mut disks, bad, path_of(&data)), Err(DisksError::Id)), "{bad:?}");
    }
    let error = attach(&mut disks, "b", Source::Path("/nonexistent".into())).unwrap_err();
    assert!(matches!(error, DisksError::Open { id, .. } if id == "b"));
    assert_eq!(attach(&mut disks, "b", path_of(&data)).unwrap(), "spare1");
    assert!(matches!(attach(&mut disks, "c", path_of(&data)), Err(DisksError::Full(2))));
    assert!(matches!(disks.detach("c"), Err(DisksError::Unknown(id)) if id == "c"));
    assert!(matches!(disks.detach("spare0"), Err(DisksError::Unknown(_))));
    assert!(matches!(disks.detach("disk-id"), Err(DisksError::Fixed(_))));
    disks.detach("a").unwrap();
    assert_eq!(attach(&mut disks, "c", path_of(&data)).unwrap(), "spare0");
    for known in ["b", "c", "disk-id"] {
        disks.set_limit(known, ops(1, 1)).unwrap();
    }
    assert!(matches!(disks.set_limit("a", ops(1, 1)), Err(DisksError::Unknown(_))));
    assert!(matches!(disks.set_limit("b", ops(0, 1)), Err(DisksError::Limit(_))));
    assert!(matches!(disks.attach("d", path_of(&data), false, ops(0, 1)), Err(DisksError::Limit(_))));
}

#[test]
fn a_passed_descriptor_must_be_open_for_what_its_disk_does() {
    let mut data = file(512);
    data.write_all(&[7; 512]).unwrap();
    let open = |options: &mut fs::OpenOptions| Source::Open(options.open(data.path()).unwrap().into());
    let disk = |source, read_only| Disk::open(source, read_only).map(|(disk, _)| disk.sectors());
    let options = fs::OpenOptions::new;
    assert_eq!(disk(open(options().read(true)), true).unwrap(), 1);
    assert_eq!(disk(open(options().read(true).write(true)), true).unwrap(), 1);
    assert_eq!(disk(open(options().read(true).write(true)), false).unwrap(), 1);
    assert!(matches!(disk(open(options().read(true)), false), Err(DiskError::Mode(_))));
    assert!(matches!(disk(open(options().write(true)), false), Err(DiskError::Mode(_))));
    assert!(matches!(disk(open(options().write(true)), true), Err(DiskError::Mode(_))));
    // It would write at the end, wherever it is told to.
    assert!(matches!(disk(open(options().read(true).append(true)), false), Err(DiskError::Mode(_))));
    let pipe = Source::Open(OwnedFd::from(std::io::pipe().unwrap().0));
    assert!(matches!(disk(pipe, true), Err(DiskError::Kind(_))));
}
