//! A driver's steps, right and wrong.

use std::sync::{Arc, Mutex, MutexGuard};

use proptest::prelude::*;
use virtio_queue::QueueT;
use vm_memory::GuestAddress;

use super::{super::ActivateError, *};

const FEATURES: u64 = 1 << 40 | 1 << 5;
const VERSION_1: u64 = 1 << VIRTIO_F_VERSION_1;
const SIZES: [u16; 2] = [256, 64];

/// What happened to a device.
#[derive(Debug, Default)]
struct Log {
    activations: Vec<Activation>,
    resets: usize,
    refuse: bool,
    config_writes: Vec<(u64, Vec<u8>)>,
    generation: u32,
}

struct Recorder(Arc<Mutex<Log>>);

impl VirtioDevice for Recorder {
    fn device_type(&self) -> u32 {
        42
    }

    fn features(&self) -> u64 {
        FEATURES
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        data.fill(u8::try_from(offset).unwrap_or(u8::MAX));
    }

    fn config_generation(&self) -> u32 {
        self.0.lock().unwrap().generation
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        self.0.lock().unwrap().config_writes.push((offset, data.to_vec()));
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let mut log = self.0.lock().unwrap();
        log.activations.push(activation);
        if log.refuse { Err(ActivateError::QueueCount { expected: 3, found: 2 }) } else { Ok(()) }
    }

    fn reset(&mut self) {
        self.0.lock().unwrap().resets += 1;
    }
}

struct Driver {
    transport: MmioTransport,
    log: Arc<Mutex<Log>>,
}

impl Driver {
    fn new() -> Self {
        let log = Arc::<Mutex<Log>>::default();
        let mem = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap();
        let interrupt = Interrupt::new(EventFd::new(EFD_NONBLOCK).unwrap());
        let transport = MmioTransport::new(Box::new(Recorder(log.clone())), mem, interrupt).unwrap();
        Self { transport, log }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap()
    }

    fn read(&mut self, register: u32) -> u32 {
        let mut data = [0xaa; 4];
        self.transport.read(register.into(), &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&mut self, register: u32, value: u32) {
        self.transport.write(register.into(), &value.to_le_bytes());
    }

    fn set_status(&mut self, bits: u32) -> u32 {
        let status = self.read(VIRTIO_MMIO_STATUS);
        self.write(VIRTIO_MMIO_STATUS, status | bits);
        self.read(VIRTIO_MMIO_STATUS)
    }

    fn accept_features(&mut self, features: u64) {
        for (select, word) in [(0, features & 0xffff_ffff), (1, features >> 32)] {
            self.write(VIRTIO_MMIO_DRIVER_FEATURES_SEL, select);
            self.write(VIRTIO_MMIO_DRIVER_FEATURES, u32::try_from(word).unwrap());
        }
    }

    /// All up to FEATURES_OK.
    fn negotiate(&mut self, features: u64) -> u32 {
        self.set_status(ACKNOWLEDGE);
        self.set_status(DRIVER);
        self.accept_features(features);
        self.set_status(FEATURES_OK)
    }

    fn set_up_queue(&mut self, index: u32, size: u32) {
        let base = 0x1000 * (index + 1);
        self.write(VIRTIO_MMIO_QUEUE_SEL, index);
        self.write(VIRTIO_MMIO_QUEUE_NUM, size);
        self.write(VIRTIO_MMIO_QUEUE_DESC_LOW, base);
        self.write(VIRTIO_MMIO_QUEUE_DESC_HIGH, 0);
        self.write(VIRTIO_MMIO_QUEUE_AVAIL_LOW, base + 0x400);
        self.write(VIRTIO_MMIO_QUEUE_USED_LOW, base + 0x800);
        self.write(VIRTIO_MMIO_QUEUE_READY, 1);
    }

    /// All up to DRIVER_OK.
    fn start(&mut self) -> u32 {
        self.negotiate(VERSION_1 | 1 << 5);
        self.set_up_queue(0, 32);
        self.set_up_queue(1, 64);
        self.set_status(DRIVER_OK)
    }
}

#[test]
fn the_device_introduces_itself() {
    let mut driver = Driver::new();
    let found = [0, 4, 8, 12].map(|register| driver.read(register));
    assert_eq!(found, [0x7472_6976, 2, 42, VENDOR]);
    for (select, expected) in [(0, 1 << 5), (1, 1 << 8 | 1), (2, 0), (u32::MAX, 0)] {
        driver.write(VIRTIO_MMIO_DEVICE_FEATURES_SEL, select);
        assert_eq!(driver.read(VIRTIO_MMIO_DEVICE_FEATURES), expected);
    }
    for (queue, expected) in [(0, 256), (1, 64), (2, 0), (u32::MAX, 0)] {
        driver.write(VIRTIO_MMIO_QUEUE_SEL, queue);
        assert_eq!(driver.read(VIRTIO_MMIO_QUEUE_NUM_MAX), expected);
    }
    // No shared memory regions.
    assert_eq!([0xb0, 0xb4, 0xb8, 0xbc].map(|register| driver.read(register)), [u32::MAX; 4]);
}

#[test]
fn registers_are_read_as_words_and_the_configuration_as_wanted() {
    let mut driver = Driver::new();
    for len in [1, 2, 8] {
        let mut data = vec![0xaa; len];
        driver.transport.read(0, &mut data);
        assert_eq!(data, vec![0; len]);
        driver.transport.read(0x107, &mut data);
        assert_eq!(data, vec![7; len]);
    }
    driver.transport.write(u64::from(VIRTIO_MMIO_STATUS), &[1]);
    assert_eq!(driver.read(VIRTIO_MMIO_STATUS), 0);
}

#[test]
fn a_proper_driver_gets_its_device() {
    let mut driver = Driver::new();
    assert_eq!(driver.start(), 15);
    let log = driver.log();
    let [activation] = &log.activations[..] else { panic!("{log:?}") };
    assert_eq!(activation.features, VERSION_1 | 1 << 5);
    let sizes: Vec<_> = activation.queues.iter().flatten().map(|active| active.queue.size()).collect();
    assert_eq!(sizes, [32, 64]);
    assert_eq!(activation.queues[1].as_ref().unwrap().queue.desc_table(), 0x2000);
}

#[test]
fn a_driver_need_not_set_up_all_queues() {
    let mut driver = Driver::new();
    driver.negotiate(VERSION_1);
    driver.set_up_queue(0, 32);
    assert_eq!(driver.set_status(DRIVER_OK), 15);
    assert_eq!(driver.log().activations[0].queues.iter().flatten().count(), 1);
}

#[test]
fn the_configuration_is_written_after_agreement_only() {
    let mut driver = Driver::new();
    driver.write(VIRTIO_MMIO_CONFIG, 1);
    driver.negotiate(VERSION_1);
    driver.write(VIRTIO_MMIO_CONFIG + 4, 2);
    driver.transport.write(0x109, &[3]);
    driver.set_status(FAILED);
    driver.write(VIRTIO_MMIO_CONFIG, 4);
    assert_eq!(driver.log().config_writes, [(4, vec![2, 0, 0, 0]), (9, vec![3])]);
}

#[test]
fn a_changed_configuration_interrupts_and_has_another_generation() {
    let mut driver = Driver::new();
    driver.start();
    let interrupt = driver.log().activations[0].interrupt.clone();
    interrupt.signal_used();
    assert_eq!(driver.read(VIRTIO_MMIO_CONFIG_GENERATION), 0);
    driver.log.lock().unwrap().generation = 7;
    interrupt.signal_config_changed();
    assert_eq!(driver.read(VIRTIO_MMIO_CONFIG_GENERATION), 7);
    assert_eq!(driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), 3);
}

#[test]
fn features_that_were_not_offered_are_refused() {
    // Without VERSION_1 the driver is a legacy one.
    for features in [VERSION_1 | 1 << 6, VERSION_1 | 1 << 63, 1 << 5, 0] {
        assert_eq!(Driver::new().negotiate(features), ACKNOWLEDGE | DRIVER, "{features:#x}");
    }
    assert_eq!(Driver::new().negotiate(FEATURES | VERSION_1), 11);
    let mut driver = Driver::new();
    driver.set_status(ACKNOWLEDGE);
    driver.set_status(DRIVER);
    driver.accept_features(VERSION_1);
    driver.write(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 2);
    driver.write(VIRTIO_MMIO_DRIVER_FEATURES, 1);
    assert_eq!(driver.set_status(FEATURES_OK), 3);
}

#[test]
fn features_are_fixed_once_agreed() {
    let mut driver = Driver::new();
    driver.negotiate(VERSION_1);
    driver.accept_features(VERSION_1 | 1 << 5);
    driver.set_up_queue(0, 32);
    driver.set_up_queue(1, 32);
    driver.set_status(DRIVER_OK);
    assert_eq!(driver.log().activations[0].features, VERSION_1);
}

#[test]
fn steps_can_not_be_left_out_or_taken_back() {
    let mut driver = Driver::new();
    for wrong in [DRIVER, FEATURES_OK, DRIVER_OK, ACKNOWLEDGE | DRIVER, 15] {
        assert_eq!(driver.set_status(wrong), 0, "{wrong}");
    }
    driver.set_status(ACKNOWLEDGE);
    for wrong in [FEATURES_OK, DRIVER_OK, DRIVER | FEATURES_OK] {
        assert_eq!(driver.set_status(wrong), ACKNOWLEDGE, "{wrong}");
    }
    driver.write(VIRTIO_MMIO_STATUS, DRIVER);
    assert_eq!(driver.read(VIRTIO_MMIO_STATUS), ACKNOWLEDGE);
    driver.set_status(DRIVER);
    assert_eq!(driver.set_status(DRIVER_OK), 3);
    // NEEDS_RESET is the device's to say.
    assert_eq!(driver.set_status(STATUS_NEEDS_RESET), 3);
    assert_eq!(driver.set_status(FAILED), 3 | FAILED);
    assert!(driver.log().activations.is_empty());
}

#[test]
fn queues_are_set_up_between_agreement_and_start_only() {
    let mut driver = Driver::new();
    driver.set_up_queue(0, 32);
    assert_eq!(driver.read(VIRTIO_MMIO_QUEUE_READY), 0);
    driver.start();
    driver.write(VIRTIO_MMIO_QUEUE_READY, 0);
    assert_eq!(driver.read(VIRTIO_MMIO_QUEUE_READY), 1);
    assert_eq!(driver.log().activations[0].queues[0].as_ref().unwrap().queue.size(), 32);
}

#[test]
fn an_unusable_queue_means_needs_reset() {
    for (size, index) in [(0, 0), (33, 0), (512, 0), (128, 1)] {
        let mut driver = Driver::new();
        driver.negotiate(VERSION_1);
        driver.set_up_queue(1 - index, 32);
        driver.set_up_queue(index, size);
        assert_eq!(driver.set_status(DRIVER_OK), 15 | STATUS_NEEDS_RESET, "{size}");
        assert_eq!(driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), 2);
        assert!(driver.log().activations.is_empty());
    }
}

#[test]
fn a_queue_may_be_left_alone() {
    let mut driver = Driver::new();
    driver.negotiate(VERSION_1);
    driver.set_up_queue(1, 32);
    assert_eq!(driver.set_status(DRIVER_OK), 15);
    let log = driver.log();
    let ready: Vec<_> = log.activations[0].queues.iter().map(Option::is_some).collect();
    assert_eq!(ready, [false, true]);
}

#[test]
fn a_device_that_can_not_start_says_so() {
    let mut driver = Driver::new();
    driver.log().refuse = true;
    assert_eq!(driver.start(), 15 | STATUS_NEEDS_RESET);
}

#[test]
fn a_reset_brings_all_back_to_the_start() {
    let mut driver = Driver::new();
    driver.start();
    driver.log().activations[0].interrupt.signal_needs_reset();
    driver.write(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
    driver.write(VIRTIO_MMIO_STATUS, 0);
    assert_eq!(driver.log().resets, 1);
    assert_eq!(driver.read(VIRTIO_MMIO_STATUS), 0);
    assert_eq!(driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
    assert_eq!(driver.read(VIRTIO_MMIO_QUEUE_READY), 0);
    assert!(driver.transport.kicks()[0].read().is_err());
    assert_eq!(driver.start(), 15);
    assert_eq!(driver.log().activations.len(), 2);
}

#[test]
fn interrupts_are_acknowledged_bit_by_bit() {
    let mut driver = Driver::new();
    driver.start();
    let interrupt = driver.log().activations[0].interrupt.clone();
    interrupt.signal_used();
    interrupt.signal_needs_reset();
    assert_eq!(driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), 3);
    driver.write(VIRTIO_MMIO_INTERRUPT_ACK, 1);
    assert_eq!(driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), 2);
    assert_eq!(interrupt.irqfd().read().unwrap(), 2);
}

#[test]
fn notifications_reach_the_queue_when_the_device_runs() {
    let mut driver = Driver::new();
    driver.write(VIRTIO_MMIO_QUEUE_NOTIFY, 1);
    assert!(driver.transport.kicks()[1].read().is_err());
    driver.start();
    driver.write(VIRTIO_MMIO_QUEUE_NOTIFY, 1);
    driver.write(VIRTIO_MMIO_QUEUE_NOTIFY, 2);
    assert_eq!(driver.log().activations[0].queues[1].as_ref().unwrap().kick.read().unwrap(), 1);
    assert!(driver.transport.kicks()[0].read().is_err());
}

/// An access to the register file: mostly to registers that exist, with values that mean something.
fn access() -> impl Strategy<Value = (u64, Vec<u8>, bool)> {
    let register = prop_oneof![9 => (0_u64..0x40).prop_map(|word| word * 4), 1 => 0_u64..0x1000];
    let word = prop_oneof![
        4 => 0_u32..16,
        2 => prop::sample::select(vec![32, 64, 256, 0x1000, 0x2000]),
        1 => any::<u32>(),
    ];
    let data = prop_oneof![
        9 => word.prop_map(|word| word.to_le_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..9),
    ];
    (register, data, any::<bool>())
}

proptest! {
    /// Whatever a driver does, a device is started only with valid queues and features that were offered, and at most
    /// once between resets.
    #[test]
    fn no_driver_starts_a_device_wrongly(accesses in prop::collection::vec(access(), 0..300)) {
        let mut driver = Driver::new();
        for (register, mut data, write) in accesses {
            if write {
                driver.transport.write(register, &data);
            } else {
                driver.transport.read(register, &mut data);
            }
        }
        let log = driver.log();
        prop_assert!(log.activations.len() <= log.resets + 1);
        for activation in &log.activations {
            prop_assert_eq!(activation.features & !(FEATURES | VERSION_1), 0);
            prop_assert_eq!(activation.queues.len(), 2);
            prop_assert!(activation.queues.iter().flatten().all(|active| active.queue.is_valid(&activation.mem)));
        }
    }
}
