//! Requests on plain memory, and a device with its thread.

use std::collections::BTreeSet;

use proptest::prelude::*;
use virtio_queue::{
    Queue, QueueT,
    desc::{RawDescriptor, split::Descriptor},
    mock::MockSplitQueue,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::{
    super::{ActiveQueue, segments::Segments},
    release::PAGE,
    *,
};

const WRITE: u16 = 2;
/// Where requests are put: in the first 16 pages.
const QUEUE: GuestAddress = GuestAddress(0);
const NUMBERS: u64 = 0x8000;
/// Pages of the first region, and of the second after a hole.
const LOW: u64 = 64;
const HIGH: u64 = 32;
const HIGH_START: u64 = 1 << 20;
const HELD_BACK: u64 = 16;

/// Two regions with a hole, full of something.
fn memory() -> GuestMemoryMmap {
    let bytes = |pages: u64| usize::try_from(pages * PAGE).unwrap();
    let regions = [(QUEUE, bytes(LOW)), (GuestAddress(HIGH_START * PAGE), bytes(HIGH))];
    let mem = GuestMemoryMmap::from_ranges(&regions).unwrap();
    for page in existing() {
        mem.write_slice(&[0xa5; 4096], GuestAddress(page * PAGE)).unwrap();
    }
    mem
}

/// All pages but those of the queue and the requests.
fn existing() -> impl Iterator<Item = u64> {
    (HELD_BACK..LOW).chain(HIGH_START..HIGH_START + HIGH)
}

/// The pages that read as zero.
fn released(mem: &GuestMemoryMmap) -> BTreeSet<u64> {
    let is_empty = |page: &u64| {
        let mut bytes = [1; 4096];
        mem.read_slice(&mut bytes, GuestAddress(page * PAGE)).unwrap();
        match bytes {
            [0xa5, ..] => assert_eq!(bytes, [0xa5; 4096], "a part of page {page}"),
            _ => assert_eq!(bytes, [0; 4096], "a part of page {page}"),
        }
        bytes == [0; 4096]
    };
    existing().filter(is_empty).collect()
}

fn with_chain(mem: &GuestMemoryMmap, descriptors: &[(u64, u32, u16)], handle: impl FnOnce(Segments<'_>)) {
    let queue = MockSplitQueue::create(mem, QUEUE, 64);
    let raw = |(address, len, flags): &(u64, u32, u16)| Descriptor::new(*address, *len, *flags, 0).into();
    let descriptors: Vec<RawDescriptor> = descriptors.iter().map(raw).collect();
    let chain = queue.build_desc_chain(&descriptors).unwrap();
    handle(Segments::collect(mem, chain).unwrap());
}

fn inflate(mem: &GuestMemoryMmap, numbers: &[u32], cut: usize) -> BalloonCounters {
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    mem.write_slice(&bytes, GuestAddress(NUMBERS)).unwrap();
    let (cut, len) = (u32::try_from(cut.min(bytes.len())).unwrap(), u32::try_from(bytes.len()).unwrap());
    let counters = BalloonCounters::default();
    with_chain(mem, &[(NUMBERS, cut, 0), (NUMBERS + u64::from(cut), len - cut, 0)], |segments| {
        request::inflate(mem, Releaser::new(false), &counters, &segments.readable);
    });
    counters
}

#[test]
fn inflated_pages_go_back_and_their_neighbours_stay() {
    let mem = memory();
    let counters = inflate(&mem, &[22, 21, 20, 40, u32::try_from(HIGH_START).unwrap() + 3], 5);
    let expected = [20, 21, 22, 40, HIGH_START + 3];
    assert_eq!(released(&mem), BTreeSet::from(expected));
    assert_eq!((counters.inflated_pages.get(), counters.ignored_pages.get()), (5, 0));
}

#[test]
fn shared_memory_goes_back_as_well() {
    let config = crate::config::MemoryConfig { shared: true, ..Default::default() };
    let file = crate::memory::create_file(64, config).unwrap();
    let mem = crate::memory::map(64, config, file.as_ref()).unwrap();
    let address = |page: u64| GuestAddress(page * PAGE);
    for page in 99..103 {
        mem.write_slice(&[0xa5; 4096], address(page)).unwrap();
    }
    let pages = Releaser::new(true).pages(&mem, 100..102, &BalloonCounters::default());
    let first_bytes = [99, 100, 101, 102].map(|page| mem.read_obj::<u8>(address(page)).unwrap());
    assert_eq!((pages, first_bytes), (2, [0xa5, 0, 0, 0xa5]));
}

#[test]
fn reported_memory_goes_back_in_whole_pages() {
    let mem = memory();
    let counters = BalloonCounters::default();
    let reports = [
        (20 * PAGE, 4 * 4096, WRITE),
        // Neither begins nor ends with a page.
        (30 * PAGE + 1, 3 * 4096, WRITE),
        (40 * PAGE + 100, 3000, WRITE),
        (HIGH_START * PAGE, 4096, WRITE),
    ];
    with_chain(&mem, &reports, |segments| {
        request::report(Releaser::new(false), &counters, &segments.writable);
    });
    assert_eq!(released(&mem), BTreeSet::from([20, 21, 22, 23, 31, 32, HIGH_START]));
    assert_eq!(counters.reported_bytes.get(), 7 * PAGE);
}

#[test]
fn statistics_are_told_by_name() {
    let entry = |tag: u16, value: u64| [&tag.to_le_bytes()[..], &value.to_le_bytes()].concat();
    let bytes =
        [entry(4, 1 << 30), entry(5, u64::MAX), entry(16, 1), entry(u16::MAX, 2), entry(4, 77), vec![6]];
    let stats = Stats::parse(&bytes.concat());
    let expected = [("free_bytes".to_owned(), 77), ("total_bytes".to_owned(), u64::MAX)];
    assert_eq!(stats.by_name(), BTreeMap::from(expected));
}

fn config() -> BalloonConfig {
    BalloonConfig { target_mib: 0, stats: true, free_page_reporting: true, late: false }
}

fn fields(balloon: &Balloon) -> (u32, u32) {
    let mut bytes = [0xff; 16];
    balloon.read_config(0, &mut bytes);
    let field = |start: usize| u32::from_le_bytes(bytes[start..start + 4].try_into().unwrap());
    assert_eq!((field(8), field(12)), (0, 0));
    (field(0), field(4))
}

#[test]
fn the_configuration_has_the_hosts_wish_and_the_guests_word() {
    let mut balloon = Balloon::new(&BalloonConfig { target_mib: 3, ..config() }, false).unwrap();
    let handle = balloon.handle(Some("4K@0xd0000000:5".into()));
    assert_eq!(fields(&balloon), (768, 0));
    balloon.write_config(4, &512_u32.to_le_bytes());
    // What the driver may not write.
    balloon.write_config(0, &[0xff; 4]);
    balloon.write_config(4, &[0xff; 8]);
    balloon.write_config(u64::MAX, &[0xff; 4]);
    handle.set_target_mib(u32::MAX);
    assert_eq!(fields(&balloon), (u32::MAX, 512));
    handle.set_target_mib(5);
    let BalloonState { target_mib, actual_mib, stats, device } = handle.state();
    assert_eq!(device.as_deref(), Some("4K@0xd0000000:5"));
    assert_eq!((target_mib, actual_mib, stats.len()), (5, 2, 0));
    balloon.reset();
    assert_eq!(fields(&balloon), (1280, 0));
}

#[test]
fn queues_follow_the_features_without_gaps() {
    use Role::{Deflate, Inflate, Reporting, Stats};
    assert_eq!(roles(0), [Inflate, Deflate]);
    assert_eq!(roles(F_STATS_VQ), [Inflate, Deflate, Stats]);
    assert_eq!(roles(F_REPORTING | F_DEFLATE_ON_OOM), [Inflate, Deflate, Reporting]);
    assert_eq!(roles(F_STATS_VQ | F_REPORTING), [Inflate, Deflate, Stats, Reporting]);
    let balloon = Balloon::new(&BalloonConfig { stats: false, ..config() }, false).unwrap();
    assert_eq!(
        (balloon.queue_max_sizes().len(), balloon.features() & 0x3f),
        (3, F_REPORTING | F_DEFLATE_ON_OOM)
    );
}

/// What a driver gives that has inflate, deflate and statistics, with chains of one descriptor each in one of the queues.
fn activation(role: usize, descriptors: &[(u64, u32, u16)]) -> Activation {
    let mem = memory();
    let queues = (0..3_usize).map(|index| {
        let mock = MockSplitQueue::create(&mem, queue_start(index), 16);
        if index == role {
            let raw =
                |(address, len, flags): &(u64, u32, u16)| Descriptor::new(*address, *len, *flags, 0).into();
            let descriptors: Vec<RawDescriptor> = descriptors.iter().map(raw).collect();
            mock.add_desc_chains(&descriptors, 0).unwrap();
        }
        let queue: Queue = mock.create_queue().unwrap();
        assert!(queue.is_valid(&mem));
        Some(ActiveQueue { queue, kick: EventFd::new(0).unwrap() })
    });
    let queues = queues.collect();
    // A blocking descriptor, so that a test can wait for the interrupt.
    let interrupt = Interrupt::new(EventFd::new(0).unwrap());
    Activation { mem, queues, interrupt, features: F_STATS_VQ }
}

fn queue_start(index: usize) -> GuestAddress {
    GuestAddress(index as u64 * 0x1000)
}

/// A device in operation.
struct Running {
    balloon: Balloon,
    interrupt: Interrupt,
    mem: GuestMemoryMmap,
}

impl Running {
    fn new(role: usize, descriptors: &[(u64, u32, u16)]) -> Self {
        let activation = activation(role, descriptors);
        let (interrupt, mem) = (activation.interrupt.clone(), activation.mem.clone());
        let mut balloon = Balloon::new(&config(), false).unwrap();
        balloon.activate(activation).unwrap();
        Self { balloon, interrupt, mem }
    }
}

#[test]
fn the_thread_inflates_and_interrupts() {
    // The page numbers are 0xa5a5a5a5: nothing that exists.
    let mut running = Running::new(0, &[(20 * PAGE, 8, 0)]);
    running.interrupt.irqfd().read().unwrap();
    assert_eq!(running.interrupt.status(), 1);
    assert_eq!(released(&running.mem), BTreeSet::new());
    assert_eq!(running.balloon.handle(None).counters().ignored_pages.get(), 2);
    running.balloon.reset();
}

#[test]
fn a_new_target_interrupts_with_a_new_generation() {
    let mut running = Running::new(0, &[]);
    let before = running.balloon.config_generation();
    running.balloon.handle(None).set_target_mib(1);
    running.interrupt.irqfd().read().unwrap();
    assert_eq!(running.interrupt.status(), 2);
    assert_ne!(running.balloon.config_generation(), before);
    running.balloon.reset();
    // Nobody is there to be told.
    running.balloon.handle(None).set_target_mib(2);
    assert_eq!((running.balloon.config_generation(), running.interrupt.status()), (before + 2, 2));
}

#[test]
fn statistics_are_asked_for_by_giving_their_buffer_back() {
    let activation = activation(2, &[(20 * PAGE, 20, 0)]);
    let interrupt = activation.interrupt.clone();
    let balloon = Balloon::new(&config(), false).unwrap();
    let (shared, counters) = (balloon.shared.clone(), balloon.handle(None).counters());
    let mut engine = Engine::new(activation, &roles(F_STATS_VQ), balloon.releaser, shared).unwrap();
    // Nothing is there to be given back yet.
    engine.ask_for_stats().unwrap();
    assert!(!engine.serve().unwrap());
    assert_eq!((counters.stats.get(), interrupt.status()), (1, 0));
    engine.ask_for_stats().unwrap();
    assert_eq!(interrupt.status(), 1);
    interrupt.acknowledge(1);
    engine.ask_for_stats().unwrap();
    assert_eq!(interrupt.status(), 0, "the buffer is given back once");
}

#[test]
fn of_several_statistics_buffers_all_but_the_newest_go_back() {
    let activation = activation(2, &[(20 * PAGE, 20, 0), (21 * PAGE, 20, 0), (22 * PAGE, 20, 0)]);
    let (mem, used) = (activation.mem.clone(), activation.queues[2].as_ref().unwrap().queue.used_ring());
    let balloon = Balloon::new(&config(), false).unwrap();
    let shared = balloon.shared.clone();
    let mut engine = Engine::new(activation, &roles(F_STATS_VQ), balloon.releaser, shared).unwrap();
    engine.serve().unwrap();
    let returned = || mem.read_obj::<u16>(GuestAddress(used + 2)).unwrap();
    assert_eq!(returned(), 2);
    engine.ask_for_stats().unwrap();
    assert_eq!(returned(), 3);
}

#[test]
fn a_wish_for_statistics_reaches_the_thread() {
    let mut running = Running::new(2, &[(20 * PAGE, 20, 0)]);
    // Asked before the device has the buffer, a wish may be in vain: so ask until the buffer is back.
    let handle = running.balloon.handle(None);
    while running.interrupt.status() == 0 {
        handle.state();
        std::thread::yield_now();
    }
    assert_eq!(handle.counters().stats.get(), 1);
    running.balloon.reset();
}

#[test]
fn a_bad_chain_stops_the_balloon_alone() {
    let mut running = Running::new(0, &[(u64::MAX - 5, 512, 0)]);
    running.interrupt.irqfd().read().unwrap();
    assert_eq!((running.interrupt.status(), running.interrupt.device_status()), (2, 64));
    running.balloon.reset();
}

/// Numbers of pages: mostly ones that exist, next to each other, or at an edge; never the queue's own.
fn page_number() -> impl Strategy<Value = u32> {
    let (low, high) = (u32::try_from(LOW).unwrap(), u32::try_from(HIGH_START).unwrap());
    prop_oneof![
        6 => 16..low + 4,
        4 => high - 4..high + 40,
        1 => Just(u32::MAX),
        1 => low..u32::MAX,
    ]
}

proptest! {
    /// Exactly the pages go back that exist and were named, whatever else was named and however it was cut.
    #[test]
    fn named_pages_go_back_and_no_others(
        numbers in prop::collection::vec(page_number(), 0..300),
        cut in 0_usize..1300,
    ) {
        let mem = memory();
        let counters = inflate(&mem, &numbers, cut);
        let named: BTreeSet<u64> = numbers.iter().copied().map(u64::from).collect();
        let expected: BTreeSet<u64> = existing().filter(|page| named.contains(page)).collect();
        prop_assert_eq!(released(&mem), expected.clone());
        prop_assert_eq!(counters.inflated_pages.get(), expected.len() as u64);
        prop_assert_eq!(counters.ignored_pages.get(), (numbers.len() - expected.len()) as u64);
    }

    /// Exactly the pages go back that lie within a reported range.
    #[test]
    fn reported_ranges_go_back_and_no_others(
        ranges in prop::collection::vec((HELD_BACK * PAGE..LOW * PAGE, 0_u64..0x8000), 0..20),
    ) {
        let mem = memory();
        let counters = BalloonCounters::default();
        let ranges: Vec<_> = ranges.iter().map(|(start, len)| (*start, (start + len).min(LOW * PAGE))).collect();
        let descriptors: Vec<_> =
            ranges.iter().map(|(start, end)| (*start, u32::try_from(end - start).unwrap(), WRITE)).collect();
        if !descriptors.is_empty() {
            with_chain(&mem, &descriptors, |segments| {
                request::report(Releaser::new(false), &counters, &segments.writable);
            });
        }
        let within = |page: &u64| {
            ranges.iter().any(|(start, end)| *start <= page * PAGE && (page + 1) * PAGE <= *end)
        };
        let expected: BTreeSet<u64> = existing().filter(within).collect();
        prop_assert_eq!(released(&mem), expected);
    }

    /// A request with more pages than are looked at is cut short, and what was left out is counted.
    #[test]
    fn long_requests_are_cut_short(extra in 0_usize..3000) {
        let mem = memory();
        let mut numbers = vec![u32::MAX; request::MAX_PAGES - 1];
        numbers.push(20);
        numbers.resize(request::MAX_PAGES + extra, 21);
        let counters = inflate(&mem, &numbers, 0);
        prop_assert_eq!(released(&mem), BTreeSet::from([20]));
        prop_assert_eq!(counters.ignored_pages.get(), (numbers.len() - 1) as u64);
    }

    /// Whatever the guest says of its memory, it is read, and each tag tells its last value.
    #[test]
    fn any_statistics_are_read(bytes in prop::collection::vec(prop_oneof![0_u8..20, any::<u8>()], 0..200)) {
        let stats = Stats::parse(&bytes).by_name();
        let known = bytes.chunks_exact(10).map(|entry| u16::from_le_bytes([entry[0], entry[1]])).filter(|tag| *tag < 16);
        prop_assert_eq!(stats.len(), known.collect::<BTreeSet<_>>().len());
    }
}
