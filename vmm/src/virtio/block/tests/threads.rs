//! Devices with their threads.

use virtio_bindings::virtio_blk::{VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_T_IN};
use vmm_sys_util::eventfd::EventFd;

use super::{
    super::super::{ActiveQueue, Interrupt},
    *,
};

/// A running device and its driver, with a queue's notification.
pub(super) struct Running {
    pub(super) block: Block,
    interrupt: Interrupt,
    pub(super) drivers: Vec<(Driver, EventFd)>,
}

impl Running {
    pub(super) fn new(mut block: Block, drivers: Vec<Driver>) -> Self {
        // A blocking descriptor, so that a test can wait for the interrupt.
        let interrupt = Interrupt::new(EventFd::new(0).unwrap());
        let drivers: Vec<_> = drivers.into_iter().map(|driver| (driver, EventFd::new(0).unwrap())).collect();
        let queues = drivers
            .iter()
            .map(|(driver, kick)| {
                Some(ActiveQueue { queue: driver.queue(), kick: kick.try_clone().unwrap() })
            })
            .collect();
        let mem = (*drivers[0].0.mem).clone();
        let features = 1 << VIRTIO_BLK_F_FLUSH;
        block.prepare();
        block.activate(Activation { mem, queues, interrupt: interrupt.clone(), features }).unwrap();
        Self { block, interrupt, drivers }
    }

    /// Makes a read of the first sector available, and returns its status.
    fn read(&mut self) -> u32 {
        let (driver, _) = &mut self.drivers[0];
        driver.put_header(0, VIRTIO_BLK_T_IN, 0);
        self.offer(&[(HEADER, 16, 0), (DATA, 512, WRITE), (STATUS, 1, WRITE)]);
        self.status()
    }

    /// Makes a request available.
    pub(super) fn offer(&mut self, chain: &[Chain]) {
        let (driver, kick) = &mut self.drivers[0];
        driver.add(chain);
        kick.write(1).unwrap();
    }

    /// Waits for the end of a request, and returns its status.
    pub(super) fn status(&mut self) -> u32 {
        let (driver, _) = &mut self.drivers[0];
        while driver.take_used().is_empty() {
            self.interrupt.irqfd().read().unwrap();
        }
        driver.status(0)
    }
}

#[test]
fn the_thread_serves_what_is_there_and_interrupts() {
    let (file, _) = disk(&numbered(4096), true);
    let mut driver = Driver::new();
    driver.put_header(0, VIRTIO_BLK_T_IN, 1);
    driver.add(&[(HEADER, 16, 0), (DATA, 512, WRITE), (STATUS, 1, WRITE)]);
    let mut running = Running::new(Block::new(&config(&file, true)).unwrap(), vec![driver]);
    running.interrupt.irqfd().read().unwrap();
    assert_eq!(running.interrupt.status(), 1);
    assert_eq!(running.drivers[0].0.take_used().len(), 1);
    assert_eq!(running.drivers[0].0.bytes(DATA, 512), numbered(4096)[512..1024]);
    assert_eq!(running.read(), VIRTIO_BLK_S_OK);
    assert_eq!(running.drivers[0].0.bytes(DATA, 512), numbered(4096)[..512]);
    running.block.reset();
}

#[test]
fn a_bad_chain_stops_the_device_alone() {
    let (file, _) = disk(&numbered(4096), true);
    let mut driver = Driver::new();
    driver.add(&[(HEADER, 16, 0), (u64::MAX - 5, 512, WRITE)]);
    let mut running = Running::new(Block::new(&config(&file, true)).unwrap(), vec![driver]);
    running.interrupt.irqfd().read().unwrap();
    assert_eq!((running.interrupt.status(), running.interrupt.device_status()), (2, 64));
    // Until it is reset.
    running.block.reset();
    let mut running = Running::new(running.block, vec![Driver::new()]);
    assert_eq!(running.read(), VIRTIO_BLK_S_OK);
}

#[test]
fn a_limited_disk_goes_on_when_its_time_has_come_or_its_limit_changes() {
    let (file, _) = disk(&[0; 512], true);
    let config = DiskConfig { limit: ops(1, 1), ..config(&file, true) };
    let block = Block::new(&config).unwrap();
    let mut disks = Disks::default();
    disks.add_fixed(&block);
    let mut running = Running::new(block, vec![Driver::new()]);
    for _ in 0..5 {
        assert_eq!(running.read(), VIRTIO_BLK_S_OK);
    }
    // One more goes through, and the next would wait for longer than any test.
    disks.set_limit("disk-id", ops(1, 1 << 40)).unwrap();
    assert_eq!(running.read(), VIRTIO_BLK_S_OK);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| running.read());
        let (_, counters) = disks.counters().next().unwrap();
        let before = counters.reads.get();
        while counters.throttled.get() == 0 {
            std::thread::yield_now();
        }
        assert_eq!(counters.reads.get(), before);
        disks.set_limit("disk-id", RateLimit::default()).unwrap();
        assert_eq!(waiting.join().unwrap(), VIRTIO_BLK_S_OK);
    });
}

#[test]
fn each_queue_has_a_thread() {
    let (file, _) = disk(&numbered(4096), true);
    let config = DiskConfig { queues: 3, ..config(&file, true) };
    let block = Block::new(&config).unwrap();
    assert_eq!(block.queue_max_sizes(), [256; 3]);
    assert_ne!(block.features() & 1 << VIRTIO_BLK_F_MQ, 0);
    let mut count = [0; 2];
    block.read_config(34, &mut count);
    assert_eq!(count, [3, 0]);
    // All in one memory, each with rings and data of its own.
    let first = Driver::new();
    let drivers: Vec<_> = (0..3).map(|index| Driver::beside(&first, index)).collect();
    let mut running = Running::new(block, drivers);
    for index in [2, 0, 1] {
        let (driver, kick) = &mut running.drivers[index];
        driver.put_header(0, VIRTIO_BLK_T_IN, index as u64);
        driver.add(&[(HEADER, 16, 0), (DATA, 512, WRITE), (STATUS, 1, WRITE)]);
        kick.write(1).unwrap();
        while driver.take_used().is_empty() {
            running.interrupt.irqfd().read().unwrap();
        }
        assert_eq!(driver.status(0), VIRTIO_BLK_S_OK);
        assert_eq!(driver.bytes(DATA, 512), numbered(4096)[512 * index..512 * (index + 1)]);
    }
    running.block.reset();
}

#[test]
fn the_number_of_queues_must_be_right() {
    let (file, _) = disk(&[0; 512], true);
    let mut block = Block::new(&config(&file, true)).unwrap();
    let activation = Activation {
        mem: (*Driver::new().mem).clone(),
        queues: vec![],
        interrupt: Interrupt::new(EventFd::new(0).unwrap()),
        features: 0,
    };
    assert!(matches!(block.activate(activation), Err(ActivateError::QueueCount { expected: 1, found: 0 })));
}

#[test]
fn disks_come_and_go_under_a_driver_that_never_stops_reading() {
    let files: Vec<_> = (1..=3_u8).map(|fill| disk(&[fill; 4096], true).0).collect();
    let block = Block::spare("spare0").unwrap();
    let mut disks = Disks::default();
    disks.add_spare(&block, "place".into());
    let mut running = Running::new(block, vec![Driver::new()]);
    assert_eq!(running.read(), VIRTIO_BLK_S_IOERR);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let mut seen = std::collections::BTreeSet::new();
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                match running.read() {
                    VIRTIO_BLK_S_OK => {
                        let data = running.drivers[0].0.bytes(DATA, 512);
                        assert!(data.iter().all(|byte| *byte == data[0]));
                        seen.insert(data[0]);
                    }
                    status => assert_eq!(status, VIRTIO_BLK_S_IOERR),
                }
            }
            seen
        });
        let (_, counters) = disks.counters().next().unwrap();
        for (round, file) in files.iter().cycle().take(30).enumerate() {
            let id = format!("disk{round}");
            disks.attach(&id, Source::Path(file.path().into()), true, RateLimit::default()).unwrap();
            let before = counters.reads.get();
            while counters.reads.get() == before && !reading.is_finished() {
                std::thread::yield_now();
            }
            disks.detach(&id).unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(reading.join().unwrap().into_iter().collect::<Vec<_>>(), [1, 2, 3]);
    });
    // The driver was told of each change.
    assert_eq!(running.interrupt.status() & 2, 2);
}

#[test]
fn a_change_before_the_driver_is_ready_is_told_when_it_is() {
    let (file, _) = disk(&[0; 512], true);
    let block = Block::spare("spare0").unwrap();
    let mut disks = Disks::default();
    disks.add_spare(&block, "place".into());
    disks.attach("data", Source::Path(file.path().into()), true, RateLimit::default()).unwrap();
    let running = Running::new(block, vec![Driver::new()]);
    running.interrupt.irqfd().read().unwrap();
    assert_eq!(running.interrupt.status(), 2);
}
