//! A device on a tap of the kernel's, in a network namespace of the test's own. Needs root.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsRawFd, FromRawFd, IntoRawFd, RawFd},
    thread,
};

use husk_base::Mac;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{
    super::{Net, NetError, TapError, tap},
    driver::{DATA, Driver, WRITE, memory},
};
use crate::{
    config::{NetConfig, TapConfig},
    rate_limit::RateLimit,
    virtio::{Activation, ActiveQueue, Interrupt, VirtioDevice},
};

/// An Ethernet type for experiments, which nothing else in the namespace sends.
const TYPE: u16 = 0x88b5;

/// Runs a test in a new network namespace; says why when it can't.
pub(super) fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let name = thread::current().name().unwrap_or_default().to_owned();
    let run = move || {
        // SAFETY: moves this thread alone to another namespace; no memory is touched.
        let failed = unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0;
        let reason = failed.then(io::Error::last_os_error);
        let reason = reason.or_else(|| File::options().read(true).write(true).open("/dev/net/tun").err());
        match reason {
            None => test(),
            Some(error) => eprintln!("SKIPPED {name}: needs root and /dev/net/tun: {error}"),
        }
    };
    thread::spawn(run).join().unwrap();
}

pub(super) fn config(tap: TapConfig, queue_pairs: u8) -> NetConfig {
    NetConfig {
        id: "eth0".into(),
        tap,
        mac: Mac::local([0, 0, 0, 0, 1]),
        mtu: None,
        queue_pairs,
        limit_rx: RateLimit::default(),
        limit_tx: RateLimit::default(),
    }
}

fn named(name: &str) -> TapConfig {
    TapConfig::Name(name.into())
}

fn checked(result: i32) -> i32 {
    assert!(result >= 0, "{}", io::Error::last_os_error());
    result
}

/// A socket for the host's side of an interface: it sends and receives whole frames of [`TYPE`].
pub(super) fn packet_socket(interface: &str) -> File {
    // SAFETY: makes a descriptor and touches no memory; it is nobody else's.
    let socket = unsafe {
        File::from_raw_fd(checked(libc::socket(libc::AF_PACKET, libc::SOCK_RAW, i32::from(TYPE.to_be()))))
    };
    // SAFETY: all of it is numbers, for which zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from.cast_signed();
    }
    let (fd, request) = (socket.as_raw_fd(), &raw mut request);
    // SAFETY: the requests are complete and live on; of the union the field is read that the kernel has filled in.
    let index = unsafe {
        checked(libc::ioctl(fd, libc::SIOCGIFFLAGS, request));
        (*request).ifr_ifru.ifru_flags |= i16::try_from(libc::IFF_UP).unwrap();
        checked(libc::ioctl(fd, libc::SIOCSIFFLAGS, request));
        checked(libc::ioctl(fd, libc::SIOCGIFINDEX, request));
        (*request).ifr_ifru.ifru_ifindex
    };
    // SAFETY: as above.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).unwrap();
    address.sll_protocol = TYPE.to_be();
    address.sll_ifindex = index;
    let len = libc::socklen_t::try_from(size_of_val(&address)).unwrap();
    // SAFETY: the address is complete, has this length and lives on.
    checked(unsafe { libc::bind(fd, (&raw const address).cast(), len) });
    socket
}

pub(super) fn frame(content: &[u8]) -> Vec<u8> {
    [&[0xff; 6][..], &[2, 0, 0, 0, 0, 9], &TYPE.to_be_bytes(), content].concat()
}

#[test]
fn frames_go_through_a_tap_in_both_directions() {
    in_namespace(|| {
        let mut net = Net::new(&config(named("tap0"), 1)).unwrap();
        let mut host = packet_socket("tap0");
        let mem = memory();
        let (mut rx, mut tx) = (Driver::at(&mem, 0x1_0000, 256), Driver::at(&mem, 0x2_0000, 256));
        let interrupt = Interrupt::new(EventFd::new(0).unwrap());
        for round in 0..2 {
            for number in 0..64 {
                rx.offer(&[(DATA + number * 0x1000, 0x800, WRITE)]);
            }
            let kick = || EventFd::new(EFD_NONBLOCK).unwrap();
            let tx_kick = kick();
            let queues = vec![
                Some(ActiveQueue { queue: rx.queue(), kick: kick() }),
                Some(ActiveQueue { queue: tx.queue(), kick: tx_kick.try_clone().unwrap() }),
            ];
            let features = net.features() & !(1 << 29);
            let activation = Activation { mem: mem.clone(), queues, interrupt: interrupt.clone(), features };
            net.activate(activation).unwrap();
            if net.state.udp_segmentation {
                assert_eq!(net.state.offloads(), 0b110_0111);
            }

            host.write_all(&frame(b"to the guest")).unwrap();
            // The kernel has frames of its own to send on a new interface.
            loop {
                interrupt.irqfd().read().unwrap();
                if rx.frames().iter().any(|found| found[12..] == frame(b"to the guest")) {
                    break;
                }
            }
            let sent = frame(format!("from the guest, {round}").as_bytes());
            mem.write_slice(&[&[0; 12][..], &sent].concat(), GuestAddress(DATA + 0x10_0000)).unwrap();
            tx.offer(&[(DATA + 0x10_0000, u32::try_from(12 + sent.len()).unwrap(), 0)]);
            tx_kick.write(1).unwrap();
            let mut found = [0; 2000];
            loop {
                let len = host.read(&mut found).unwrap();
                if found[..len] == sent {
                    break;
                }
            }
            net.reset();
            assert_eq!(net.state.offloads(), 0);
            // After a reset a driver begins anew.
            for base in [0x1_0000, 0x2_0000] {
                mem.write_slice(&[0; 0x3000], GuestAddress(base)).unwrap();
            }
            (rx, tx) = (Driver::at(&mem, 0x1_0000, 256), Driver::at(&mem, 0x2_0000, 256));
            assert_eq!(net.counters().tx_frames.get(), round + 1);
        }
        assert_eq!([net.counters().tx_errors.get(), net.counters().rx_errors.get()], [0, 0]);
    });
}

#[test]
fn a_header_that_makes_no_sense_costs_the_frame_alone() {
    in_namespace(|| {
        let taps = tap::open(&named("tap0"), 1).unwrap();
        let _up = packet_socket("tap0");
        let mem = memory();
        let host = super::driver::Host::new();
        let mut tx = Driver::new(&mem, 16);
        let mut transmitter = host.transmitter(&tx, false);
        // GSO of a type that does not exist, checksum beyond the frame, and nothing wrong.
        let headers =
            [[0, 9, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0x40, 0, 0, 0, 0], [0; 12]];
        for (at, header) in (0..).map(|number| DATA + number * 0x1000).zip(headers) {
            let packet = [&header[..], &frame(b"content")].concat();
            mem.write_slice(&packet, GuestAddress(at)).unwrap();
            tx.offer(&[(at, u32::try_from(packet.len()).unwrap(), 0)]);
        }
        transmitter.serve(&taps[0]).unwrap();
        assert_eq!(
            (tx.used().len(), host.counters.tx_errors.get(), host.counters.tx_frames.get()),
            (3, 2, 1)
        );
    });
}

#[test]
fn queues_are_attached_as_they_are_used() {
    in_namespace(|| {
        let net = Net::new(&config(named("tap0"), 3)).unwrap();
        for pairs in [3, 1, 2, 2, 3] {
            net.steering().use_pairs(pairs).unwrap();
            assert_eq!(net.state.pairs_in_use.load(std::sync::atomic::Ordering::Relaxed), pairs);
        }
        assert_eq!(net.queue_max_sizes(), [256; 7]);
    });
}

/// Waits for the device's interrupts until `done`, but not for ever.
pub(super) fn wait_until(interrupt: &Interrupt, mut done: impl FnMut() -> bool) {
    while !done() {
        let mut ready = libc::pollfd { fd: interrupt.irqfd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: the kernel reads and writes the one element, which lives on.
        let count = unsafe { libc::poll(&raw mut ready, 1, 60_000) };
        assert_eq!(count, 1, "the device does not do what it should");
        interrupt.irqfd().read().unwrap();
    }
}

#[test]
fn a_pair_that_ran_before_it_was_used_gets_frames() {
    in_namespace(|| {
        let mut net = Net::new(&config(named("tap0"), 2)).unwrap();
        let mut host = packet_socket("tap0");
        let mem = memory();
        let interrupt = Interrupt::new(EventFd::new(0).unwrap());
        let [mut rx, mut tx, mut control] =
            [0x3_0000, 0x4_0000, 0x5_0000].map(|base| Driver::at(&mem, base, 256));
        let others = [0x1_0000, 0x2_0000].map(|base| Driver::at(&mem, base, 256));
        let mut kicks = Vec::new();
        let mut active = |driver: &Driver<'_>| {
            let kick = EventFd::new(EFD_NONBLOCK).unwrap();
            kicks.push(kick.try_clone().unwrap());
            Some(ActiveQueue { queue: driver.queue(), kick })
        };
        let queues = [&others[0], &others[1], &rx, &tx, &control].map(&mut active).into();
        let features = net.features() & !(1 << 29);
        for number in 0..64 {
            rx.offer(&[(DATA + number * 0x1000, 0x800, WRITE)]);
        }
        let packet = [&[0; 12][..], &frame(b"from the guest")].concat();
        mem.write_slice(&packet, GuestAddress(DATA + 0x10_0000)).unwrap();
        let sent = (DATA + 0x10_0000, u32::try_from(packet.len()).unwrap(), 0);
        tx.offer(&[sent]);
        net.activate(Activation { mem: mem.clone(), queues, interrupt: interrupt.clone(), features })
            .unwrap();

        // The second pair's thread waits for frames, before the tap gives it any, when it has looked at what it may not
        // send yet.
        wait_until(&interrupt, || tx.used().len() == 1);
        mem.write_slice(&[4, 0, 2, 0, 0xff], GuestAddress(DATA + 0x11_0000)).unwrap();
        control.offer(&[(DATA + 0x11_0000, 4, 0), (DATA + 0x11_0004, 1, WRITE)]);
        kicks[4].write(1).unwrap();
        wait_until(&interrupt, || control.used().len() == 1);
        assert_eq!(mem.read_obj::<u8>(GuestAddress(DATA + 0x11_0004)).unwrap(), 0);

        // The tap gives answers to the queue that the question came from.
        tx.offer(&[sent]);
        kicks[3].write(1).unwrap();
        wait_until(&interrupt, || tx.used().len() == 1);
        host.write_all(&frame(b"to the guest")).unwrap();
        wait_until(&interrupt, || rx.frames().iter().any(|found| found[12..] == frame(b"to the guest")));
        assert_eq!(net.counters().rx_errors.get(), 0);
        net.reset();
    });
}

/// A tap's descriptor, made as whoever starts the VMM makes it.
pub(super) fn made(name: &str, flags: i32) -> RawFd {
    let file = File::options().read(true).write(true).open("/dev/net/tun").unwrap();
    // SAFETY: all of it is numbers, for which zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = i16::try_from(flags).unwrap();
    // SAFETY: the request is complete and lives on.
    checked(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) });
    file.into_raw_fd()
}

#[test]
fn inherited_descriptors_are_looked_at() {
    in_namespace(|| {
        let good = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        let several = good | libc::IFF_MULTI_QUEUE;
        let error = |fds: Vec<RawFd>| {
            let pairs = u8::try_from(fds.len()).unwrap();
            match Net::new(&config(TapConfig::Fds(fds), pairs)).unwrap_err() {
                NetError::Tap { source, .. } => source,
                error => panic!("{error}"),
            }
        };
        Net::new(&config(TapConfig::Fds(vec![made("tap0", good)]), 1)).unwrap();
        let two = vec![made("tap1", several), made("tap1", several)];
        let net = Net::new(&config(TapConfig::Fds(two), 2)).unwrap();
        net.steering().use_pairs(2).unwrap();

        assert!(matches!(error(vec![made("tap2", several), made("tap3", several)]), TapError::Different(..)));
        assert!(matches!(error(vec![made("tap4", several)]), TapError::Kind { .. }));
        assert!(matches!(error(vec![made("tap5", libc::IFF_TAP | libc::IFF_NO_PI)]), TapError::Kind { .. }));
        let file = File::open("/dev/null").unwrap();
        assert!(matches!(error(vec![file.as_raw_fd()]), TapError::Descriptor { .. }));
        assert!(matches!(error(vec![1_000_000]), TapError::Descriptor { fd: 1_000_000, .. }));
        let attach = Net::new(&config(named("lo"), 1)).unwrap_err();
        let NetError::Tap { source, .. } = attach else { panic!("{attach}") };
        assert_eq!(source.to_string(), "cannot attach to the tap lo");
        let one = error(vec![made("tap6", good), made("tap7", good)]);
        assert!(one.to_string().ends_with("IFF_VNET_HDR with IFF_MULTI_QUEUE"), "{one}");
    });
}
