//! Interfaces that come while the VM runs.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use husk_base::Mac;
use virtio_bindings::virtio_mmio::{
    VIRTIO_MMIO_CONFIG, VIRTIO_MMIO_CONFIG_GENERATION, VIRTIO_MMIO_DEVICE_FEATURES, VIRTIO_MMIO_DEVICE_ID,
    VIRTIO_MMIO_QUEUE_NUM_MAX, VIRTIO_MMIO_QUEUE_SEL,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{
    super::{Net, NetError, Nets, NetsError, SpareNet, TapError},
    driver::{DATA, Driver, WRITE, memory},
    real_tap::{config, frame, in_namespace, made, packet_socket, wait_until},
};
use crate::{
    config::{NetConfig, NetConfigError, TapConfig},
    jail::seccomp::{self, Role},
    rate_limit::{BucketConfig, RateLimit},
    virtio::{ActivateError, Activation, ActiveQueue, Interrupt, VirtioDevice, mmio::MmioTransport},
};

const KIND: i32 = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;

/// A new tap, as it comes by the control socket.
fn passed(name: &str) -> OwnedFd {
    // SAFETY: the descriptor is new and nobody else's.
    unsafe { OwnedFd::from_raw_fd(made(name, KIND)) }
}

/// An interface with this id, and an address that ends in `last`.
fn on(tap: &impl AsRawFd, id: &str, last: u8) -> NetConfig {
    let mac = Mac::local([0, 0, 0, 0, last]);
    NetConfig { id: id.into(), mac, ..config(TapConfig::Fds(vec![tap.as_raw_fd()]), 1) }
}

fn with_slots<const N: usize>() -> (Nets, [SpareNet; N]) {
    let mut nets = Nets::default();
    let spares = std::array::from_fn(|_| SpareNet::default());
    for (number, spare) in spares.iter().enumerate() {
        nets.add_spare(spare, format!("sparenet{number}"), format!("place {number}"));
    }
    (nets, spares)
}

/// Device id, low half of the features, size of the second queue, generation, and configuration space.
fn look(transport: &mut MmioTransport) -> ([u32; 4], [u8; 14]) {
    // The second queue, which is as the first.
    transport.write(VIRTIO_MMIO_QUEUE_SEL.into(), &1_u32.to_le_bytes());
    let registers = [
        VIRTIO_MMIO_DEVICE_ID,
        VIRTIO_MMIO_DEVICE_FEATURES,
        VIRTIO_MMIO_QUEUE_NUM_MAX,
        VIRTIO_MMIO_CONFIG_GENERATION,
    ];
    let registers = registers.map(|register| {
        let mut value = [0xaa; 4];
        transport.read(register.into(), &mut value);
        u32::from_le_bytes(value)
    });
    let mut space = [0xaa; 14];
    transport.read(VIRTIO_MMIO_CONFIG.into(), &mut space);
    (registers, space)
}

#[test]
fn a_driver_sees_the_interface_when_it_is_there() {
    in_namespace(|| {
        let (mut nets, [spare]) = with_slots();
        let mem = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
        let interrupt = Interrupt::new(EventFd::new(EFD_NONBLOCK).unwrap());
        let mut transport = MmioTransport::new(Box::new(spare), mem, interrupt).unwrap();
        assert_eq!(look(&mut transport), ([1, 0, 256, 0], [0; 14]));
        let tap = passed("tap0");
        let net = NetConfig { mtu: Some(0x578), ..on(&tap, "eth1", 7) };
        let (attached, _) = nets.attach(&net).unwrap();
        assert_eq!((attached.slot.as_str(), attached.device.as_str()), ("sparenet0", "place 0"));
        let ([device, features, size, generation], space) = look(&mut transport);
        assert_eq!([device, size, generation], [1, 256, 1]);
        // MAC and MTU, and nothing of several queues.
        assert_eq!(features & (1 << 5 | 1 << 3 | 1 << 22 | 1 << 17), 1 << 5 | 1 << 3);
        assert_eq!(space, [2, 0, 0, 0, 0, 7, 0, 0, 1, 0, 0x78, 5, 0, 0]);
    });
}

#[test]
fn an_interface_that_came_late_moves_frames() {
    in_namespace(|| {
        let (mut nets, [mut spare]) = with_slots();
        let mem = memory();
        let interrupt = Interrupt::new(EventFd::new(0).unwrap());
        let kicks = [0; 2].map(|_| EventFd::new(EFD_NONBLOCK).unwrap());
        let (mut rx, mut tx) = (Driver::at(&mem, 0x1_0000, 256), Driver::at(&mem, 0x2_0000, 256));
        let activation = |rx: &Driver<'_>, tx: &Driver<'_>, features| Activation {
            mem: mem.clone(),
            queues: [rx, tx]
                .iter()
                .zip(&kicks)
                .map(|(driver, kick)| {
                    Some(ActiveQueue { queue: driver.queue(), kick: kick.try_clone().unwrap() })
                })
                .collect(),
            interrupt: interrupt.clone(),
            features,
        };
        assert_eq!(spare.features(), 0);
        assert!(matches!(spare.activate(activation(&rx, &tx, 0)), Err(ActivateError::Empty)));
        spare.reset();

        let tap = passed("tap0");
        let (_, counters) = nets.attach(&on(&tap, "eth1", 1)).unwrap();
        // The device has its own.
        drop(tap);
        let mut host = packet_socket("tap0");
        for number in 0..64 {
            rx.offer(&[(DATA + number * 0x1000, 0x800, WRITE)]);
        }
        // Without event indices, which this driver does not have.
        let features = spare.features() & !(1 << 29);
        assert_ne!(features, 0);
        spare.activate(activation(&rx, &tx, features)).unwrap();
        host.write_all(&frame(b"to the guest")).unwrap();
        wait_until(&interrupt, || rx.frames().iter().any(|found| found[12..] == frame(b"to the guest")));

        // The limit that holds is that of the running interface.
        let ops = Some(BucketConfig { size: 1, burst: 0, refill_ms: 3_600_000 });
        nets.set_limits("eth1", None, Some(RateLimit { ops, bytes: None })).unwrap();
        let sent = frame(b"from the guest");
        mem.write_slice(&[&[0; 12][..], &sent].concat(), GuestAddress(DATA + 0x10_0000)).unwrap();
        for _ in 0..2 {
            tx.offer(&[(DATA + 0x10_0000, u32::try_from(12 + sent.len()).unwrap(), 0)]);
        }
        kicks[1].write(1).unwrap();
        let mut found = [0; 2000];
        let mut receive = || while !matches!(host.read(&mut found).unwrap(), len if found[..len] == sent) {};
        receive();
        // The thread comes to the second frame when it has sent the first.
        while counters.tx_throttled.get() == 0 {
            std::thread::yield_now();
        }
        assert_eq!(counters.tx_frames.get(), 1);
        nets.set_limits("eth1", None, Some(RateLimit::default())).unwrap();
        receive();
        spare.reset();
        assert_eq!(counters.tx_frames.get(), 2);
    });
}

#[test]
fn slots_are_used_once() {
    in_namespace(|| {
        let (mut nets, spares) = with_slots::<2>();
        nets.add(&Net::new(&config(TapConfig::Name("fixed".into()), 1)).unwrap());
        let taps = ["tap0", "tap1"].map(passed);
        let mut attach = |net: &NetConfig| nets.attach(net).map(|(attached, _)| attached.slot);
        assert!(matches!(attach(&on(&taps[0], "eth0", 9)), Err(NetsError::Taken(id)) if id == "eth0"));
        let same = attach(&on(&taps[0], "eth1", 1)).unwrap_err();
        assert_eq!(
            same.to_string(),
            "the network interface eth0 has the MAC address 02:00:00:00:00:01 already"
        );
        let null = File::open("/dev/null").unwrap();
        let no_tap = attach(&on(&null, "eth1", 2)).unwrap_err();
        let NetsError::Net(NetError::Tap { source: TapError::Descriptor { .. }, .. }) = no_tap else {
            panic!("{no_tap}")
        };
        let zero = Some(BucketConfig { size: 0, burst: 0, refill_ms: 1 });
        let zero = RateLimit { ops: zero, bytes: None };
        let limited = NetConfig { limit_tx: zero, ..on(&taps[0], "eth1", 2) };
        assert!(matches!(attach(&limited), Err(NetsError::Config(NetConfigError::Limit { .. }))));

        // None of these has used a slot.
        assert_eq!(attach(&on(&taps[0], "eth1", 2)).unwrap(), "sparenet0");
        assert!(matches!(attach(&on(&taps[1], "eth1", 3)), Err(NetsError::Taken(_))));
        assert!(matches!(attach(&on(&taps[1], "eth2", 2)), Err(NetsError::MacTaken { .. })));
        assert_eq!(attach(&on(&taps[1], "eth2", 3)).unwrap(), "sparenet1");
        let full = attach(&on(&passed("tap2"), "eth3", 4)).unwrap_err();
        assert!(full.to_string().contains("set spare_nets higher"), "{full}");
        assert!(spares.iter().all(|spare| spare.features() != 0));
        for known in ["eth0", "eth1", "eth2"] {
            nets.set_limits(known, Some(RateLimit::default()), None).unwrap();
        }
        let unknown = nets.set_limits("eth3", None, None).unwrap_err();
        assert_eq!(unknown.to_string(), "there is no network interface \"eth3\"");
        assert!(matches!(nets.set_limits("eth1", Some(zero), None), Err(NetsError::Limit(_))));
    });
}

/// A call that is not allowed kills the test.
#[test]
fn the_main_thread_may_do_what_it_takes() {
    in_namespace(|| {
        let (mut nets, [spare]) = with_slots();
        let (tap, null) = (passed("tap0"), File::open("/dev/null").unwrap());
        seccomp::bind(Role::Main);
        let refused = nets.attach(&on(&null, "eth1", 1)).is_err();
        let attached = nets.attach(&on(&tap, "eth1", 1)).is_ok();
        assert!(refused && attached && spare.features() != 0);
    });
}
