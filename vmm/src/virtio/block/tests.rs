//! Requests on plain memory, and a device with its thread.

use std::{fs, io::Write};

use proptest::prelude::*;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID,
    VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
};
use virtio_queue::{
    Queue, QueueT,
    desc::{RawDescriptor, split::Descriptor},
    mock::MockSplitQueue,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

use super::{
    super::{ActiveQueue, Interrupt, segments::Segments, serve::ServeError},
    *,
};

const MEM_LEN: usize = 0x4_0000;
const HEADER: u64 = 0x1_0000;
const DATA: u64 = 0x2_0000;
const STATUS: u64 = 0x1_1000;
const WRITE: u16 = 2;
/// A status that no device gives.
const NONE: u8 = 0xee;

fn memory() -> GuestMemoryMmap {
    let mem = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEM_LEN)]).unwrap();
    mem.write_obj(NONE, GuestAddress(STATUS)).unwrap();
    mem
}

fn disk(content: &[u8], read_only: bool) -> (tempfile::NamedTempFile, Disk) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content).unwrap();
    let disk = Disk::open(&config(&file, read_only)).unwrap();
    (file, disk)
}

fn config(file: &tempfile::NamedTempFile, read_only: bool) -> DiskConfig {
    DiskConfig { id: "disk-id".into(), path: file.path().into(), read_only }
}

fn put_header(mem: &GuestMemoryMmap, kind: u32, sector: u64) {
    mem.write_obj(kind, GuestAddress(HEADER)).unwrap();
    mem.write_obj(0_u32, GuestAddress(HEADER + 4)).unwrap();
    mem.write_obj(sector, GuestAddress(HEADER + 8)).unwrap();
}

/// Carries out a request whose descriptors are these.
fn run(disk: &Disk, mem: &GuestMemoryMmap, descriptors: &[(u64, u32, u16)]) -> Result<u32, ServeError> {
    let queue = MockSplitQueue::new(mem, 64);
    let raw = |(address, len, flags): &(u64, u32, u16)| Descriptor::new(*address, *len, *flags, 0).into();
    let descriptors: Vec<RawDescriptor> = descriptors.iter().map(raw).collect();
    let chain = queue.build_desc_chain(&descriptors).unwrap();
    request::handle(disk, &DiskCounters::default(), Segments::collect(mem, chain)?)
}

/// A request of the usual form; returns its status.
fn usual(disk: &Disk, mem: &GuestMemoryMmap, kind: u32, sector: u64, len: u32) -> u32 {
    put_header(mem, kind, sector);
    let data_flags = if kind == VIRTIO_BLK_T_OUT { 0 } else { WRITE };
    let written = run(disk, mem, &[(HEADER, 16, 0), (DATA, len, data_flags), (STATUS, 1, WRITE)]).unwrap();
    assert_eq!(written, if data_flags == WRITE { len + 1 } else { 1 });
    mem.read_obj::<u8>(GuestAddress(STATUS)).unwrap().into()
}

fn data(mem: &GuestMemoryMmap, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    mem.read_slice(&mut bytes, GuestAddress(DATA)).unwrap();
    bytes
}

fn numbered(len: usize) -> Vec<u8> {
    (0..len).map(|index| u8::try_from(index % 251).unwrap()).collect()
}

#[test]
fn what_is_written_is_read() {
    let (file, disk) = disk(&[0; 4096], false);
    let mem = memory();
    let content = numbered(1024);
    mem.write_slice(&content, GuestAddress(DATA)).unwrap();
    assert_eq!(usual(&disk, &mem, VIRTIO_BLK_T_OUT, 2, 1024), VIRTIO_BLK_S_OK);
    assert_eq!(usual(&disk, &mem, VIRTIO_BLK_T_FLUSH, 0, 0), VIRTIO_BLK_S_OK);
    let on_disk = fs::read(file.path()).unwrap();
    assert_eq!((on_disk.len(), &on_disk[1024..2048]), (4096, &content[..]));
    assert_eq!(on_disk[..1024], [0; 1024]);
    mem.write_slice(&[0xff; 1024], GuestAddress(DATA)).unwrap();
    assert_eq!(usual(&disk, &mem, VIRTIO_BLK_T_IN, 2, 1024), VIRTIO_BLK_S_OK);
    assert_eq!(data(&mem, 1024), content);
}

#[test]
fn any_cut_into_descriptors_will_do() {
    let content = numbered(1024);
    let (_file, disk) = disk(&content, true);
    let mem = memory();
    put_header(&mem, VIRTIO_BLK_T_IN, 0);
    // The header in three pieces, the status together with the end of the data.
    let descriptors = [
        (HEADER, 3, 0),
        (HEADER + 3, 12, 0),
        (HEADER + 15, 1, 0),
        (DATA, 100, WRITE),
        (DATA + 100, 925, WRITE),
    ];
    assert_eq!(run(&disk, &mem, &descriptors).unwrap(), 1025);
    assert_eq!(data(&mem, 1025), [&content[..], &[0]].concat());
}

#[test]
fn the_last_sector_is_filled_up_with_zeros() {
    let content = numbered(1000);
    let (_file, disk) = disk(&content, true);
    assert_eq!(disk.sectors(), 2);
    let mem = memory();
    mem.write_slice(&[0xff; 1024], GuestAddress(DATA)).unwrap();
    assert_eq!(usual(&disk, &mem, VIRTIO_BLK_T_IN, 0, 1024), VIRTIO_BLK_S_OK);
    assert_eq!(data(&mem, 1024), [&content[..], &[0; 24]].concat());
    assert_eq!(usual(&disk, &mem, VIRTIO_BLK_T_IN, 1, 1024), VIRTIO_BLK_S_IOERR);
}

#[test]
fn a_read_only_disk_refuses_writes() {
    let (file, disk) = disk(&[7; 512], true);
    let mem = memory();
    assert_eq!(usual(&disk, &mem, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_IOERR);
    assert_eq!(usual(&disk, &mem, VIRTIO_BLK_T_FLUSH, 0, 0), VIRTIO_BLK_S_OK);
    assert_eq!(fs::read(file.path()).unwrap(), [7; 512]);
}

#[test]
fn transfers_stay_on_the_disk() {
    let (file, disk) = disk(&[0; 2048], false);
    let mem = memory();
    let last = u64::MAX / 512;
    for (sector, len) in [(4, 512), (3, 1024), (0, 2560), (0, 511), (0, 1), (last, 512), (u64::MAX, 512)] {
        for kind in [VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT] {
            assert_eq!(usual(&disk, &mem, kind, sector, len), VIRTIO_BLK_S_IOERR, "{sector} {len}");
        }
    }
    assert_eq!(fs::metadata(file.path()).unwrap().len(), 2048);
    assert_eq!(usual(&disk, &mem, VIRTIO_BLK_T_IN, 3, 512), VIRTIO_BLK_S_OK);
}

#[test]
fn a_file_that_shrinks_is_an_io_error() {
    let (file, disk) = disk(&[0; 2048], true);
    file.as_file().set_len(512).unwrap();
    let mem = memory();
    assert_eq!(usual(&disk, &mem, VIRTIO_BLK_T_IN, 0, 1024), VIRTIO_BLK_S_IOERR);
    assert_eq!(usual(&disk, &mem, VIRTIO_BLK_T_IN, 0, 512), VIRTIO_BLK_S_OK);
}

#[test]
fn a_full_host_is_an_io_error() {
    // Writes to this device fail with ENOSPC; its length is set, since it has none.
    let (_file, mut disk) = disk(&[0; 512], false);
    disk.replace_file(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let mem = memory();
    assert_eq!(usual(&disk, &mem, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_IOERR);
}

#[test]
fn the_id_is_the_serial_number() {
    let (_file, disk) = disk(&[0; 512], true);
    let mem = memory();
    mem.write_slice(&[0xff; 20], GuestAddress(DATA)).unwrap();
    assert_eq!(usual(&disk, &mem, VIRTIO_BLK_T_GET_ID, 0, 20), VIRTIO_BLK_S_OK);
    assert_eq!(data(&mem, 20), b"disk-id\0\0\0\0\0\0\0\0\0\0\0\0\0");
    assert_eq!(usual(&disk, &mem, VIRTIO_BLK_T_GET_ID, 0, 19), VIRTIO_BLK_S_IOERR);
}

#[test]
fn odd_requests_are_answered() {
    let (_file, disk) = disk(&[0; 512], true);
    let mem = memory();
    // Discard, write zeroes, and nonsense.
    for kind in [11, 13, 2, u32::MAX] {
        assert_eq!(usual(&disk, &mem, kind, 0, 512), VIRTIO_BLK_S_UNSUPP);
    }
    assert_eq!(run(&disk, &mem, &[(HEADER, 15, 0), (STATUS, 1, WRITE)]).unwrap(), 1);
    assert_eq!(u32::from(mem.read_obj::<u8>(GuestAddress(STATUS)).unwrap()), VIRTIO_BLK_S_IOERR);
    assert!(matches!(run(&disk, &mem, &[(HEADER, 16, 0)]), Err(ServeError::NoRoom)));
    assert!(matches!(run(&disk, &mem, &[(HEADER, 16, 0), (STATUS, 0, WRITE)]), Err(ServeError::NoRoom)));
    let outside = [(HEADER, 16, 0), (MEM_LEN as u64 - 1, 2, WRITE)];
    assert!(matches!(run(&disk, &mem, &outside), Err(ServeError::Chain(_))));
}

#[test]
fn unusable_disks_are_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let open = |read_only| Block::new(&config(&file, read_only)).unwrap_err();
    assert!(matches!(open(true), DiskError::Empty(_)));
    file.as_file().set_len(1000).unwrap();
    assert!(matches!(open(false), DiskError::Length { len: 1000, .. }));
    let missing = DiskConfig { id: "x".into(), path: "/nonexistent".into(), read_only: true };
    assert_eq!(Block::new(&missing).unwrap_err().to_string(), "cannot open the disk /nonexistent");
    let directory = DiskConfig { path: "/".into(), ..missing };
    assert!(matches!(Block::new(&directory), Err(DiskError::Open { .. })));
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
}

/// A device that runs on a queue with these chains, each of one descriptor more than its list of data.
struct Running {
    block: Block,
    interrupt: Interrupt,
    mem: GuestMemoryMmap,
    _file: tempfile::NamedTempFile,
}

impl Running {
    fn new(descriptors: &[(u64, u32, u16)]) -> Self {
        let (file, _) = disk(&numbered(4096), true);
        let mut block = Block::new(&config(&file, true)).unwrap();
        let mem = memory();
        put_header(&mem, VIRTIO_BLK_T_IN, 1);
        let mock = MockSplitQueue::new(&mem, 16);
        let raw: Vec<RawDescriptor> = (1..)
            .zip(descriptors)
            .map(|(next, (address, len, flags))| {
                let chained = if usize::from(next) == descriptors.len() { 0 } else { 1 };
                Descriptor::new(*address, *len, flags | chained, next).into()
            })
            .collect();
        mock.add_desc_chains(&raw, 0).unwrap();
        let queue: Queue = mock.create_queue().unwrap();
        assert!(queue.is_valid(&mem));
        let kick = EventFd::new(0).unwrap();
        // A blocking descriptor, so that a test can wait for the interrupt.
        let interrupt = Interrupt::new(EventFd::new(0).unwrap());
        let activation = Activation {
            mem: mem.clone(),
            queues: vec![Some(ActiveQueue { queue, kick })],
            interrupt: interrupt.clone(),
            features: 0,
        };
        block.activate(activation).unwrap();
        Self { block, interrupt, mem, _file: file }
    }
}

#[test]
fn the_thread_serves_what_is_there_and_interrupts() {
    let mut running = Running::new(&[(HEADER, 16, 0), (DATA, 512, WRITE), (STATUS, 1, WRITE)]);
    running.interrupt.irqfd().read().unwrap();
    assert_eq!(running.interrupt.status(), 1);
    assert_eq!(data(&running.mem, 512), numbered(4096)[512..1024]);
    running.block.reset();
}

#[test]
fn a_bad_chain_stops_the_device_alone() {
    let mut running = Running::new(&[(HEADER, 16, 0), (u64::MAX - 5, 512, WRITE)]);
    running.interrupt.irqfd().read().unwrap();
    assert_eq!((running.interrupt.status(), running.interrupt.device_status()), (2, 64));
    running.block.reset();
}

proptest! {
    /// Whatever a request looks like, it does not panic, does not touch what it should not, and leaves the disk's length.
    #[test]
    fn no_request_does_harm(
        kind in prop_oneof![0_u32..14, any::<u32>()],
        sector in prop_oneof![0_u64..10, any::<u64>()],
        read_only in any::<bool>(),
        descriptors in prop::collection::vec(
            (0x1_0000_u64..0x3_8000, prop_oneof![0_u32..3, Just(512), 0_u32..0x8000], prop::sample::select(vec![0, WRITE])),
            1..8,
        ),
    ) {
        let content = numbered(4096);
        let (file, disk) = disk(&content, read_only);
        let mem = memory();
        put_header(&mem, kind, sector);
        let mut descriptors = descriptors;
        descriptors[0].0 = HEADER;
        let result = run(&disk, &mem, &descriptors);
        let writable: u32 = descriptors.iter().filter(|(_, _, flags)| *flags == WRITE).map(|(_, len, _)| len).sum();
        if let Ok(written) = result {
            prop_assert_eq!(written, writable);
        }
        let after = fs::read(file.path()).unwrap();
        prop_assert_eq!(after.len(), content.len());
        if read_only {
            prop_assert_eq!(after, content);
        }
    }
}
