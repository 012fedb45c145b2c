//! An interface's queues, fed with anything. A pair of sockets stands for the tap.

use std::{
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    sync::{Arc, atomic::AtomicU16},
};

use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;

use super::{
    Blocked, MAX_LEN, NetCounters,
    control::{Control, Steering},
    ring::Ring,
    rx::Receiver,
    tap::Tap,
    throttle::Throttle,
    tx::Transmitter,
};
use crate::{
    fuzzing::guest::{Guest, NEXT, Script, Step, WRITE, buffer},
    rate_limit::{RateLimit, RateLimiter},
    virtio::ActiveQueue,
};

/// A bit of the features that has no meaning for interfaces says whether buffers are mergeable.
const MERGEABLE: u64 = 1 << 31;
/// What the host sends, in steps of this many bytes.
const STEP: usize = 1 << 10;

/// Achieves as much as there are chains given back.
pub(crate) fn run(data: &[u8]) -> usize {
    let (Some(mut guest), Ok((tap, host))) = (Guest::new(data, 3), UnixDatagram::pair()) else { return 0 };
    let limiter = || Throttle::new(RateLimiter::new(RateLimit::default(), 0)?);
    let (Ok(rx_throttle), Ok(tx_throttle)) = (limiter(), limiter()) else { return 0 };
    if tap.set_nonblocking(true).is_err() || host.set_nonblocking(true).is_err() {
        return 0;
    }
    let (tap, steered) = match tap.try_clone() {
        Ok(other) => (Tap::from_socket(OwnedFd::from(tap)), Tap::from_socket(OwnedFd::from(other))),
        Err(_) => return 0,
    };
    let Some(activation) = guest.activation() else { return 0 };
    let (mem, interrupt, features) = (guest.mem.clone(), activation.interrupt, activation.features);
    let Ok([rx, tx, control]) = ActiveQueue::all(activation.queues) else { return 0 };
    let ring = |active: ActiveQueue| Ring::new(active.queue, features & (1 << VIRTIO_RING_F_EVENT_IDX) != 0);
    let counters = Arc::<NetCounters>::default();
    let mergeable = features & MERGEABLE != 0;
    let mut receiver =
        Receiver::new(&mem, ring(rx), mergeable, interrupt.clone(), rx_throttle, counters.clone());
    let mut transmitter = Transmitter::new(&mem, ring(tx), interrupt.clone(), tx_throttle, counters.clone());
    let steering = Steering { taps: [steered].into(), in_use: Arc::new(AtomicU16::new(1)) };
    let mut control = Control::new(&mem, ring(control), interrupt, counters, steering, 1);
    while let Some(step) = guest.next() {
        match step {
            Step::Host(what) => act(&host, what),
            Step::Serve => {
                for cause in [Blocked::Ring, Blocked::Tap, Blocked::Tokens] {
                    receiver.wake(cause);
                    transmitter.wake(cause);
                }
                control.wake();
                let served = receiver.serve(&tap).and(transmitter.serve(&tap)).and(control.serve());
                if served.is_err() {
                    break;
                }
            }
        }
    }
    guest.used()
}

/// Takes all frames, or sends one of some length.
fn act(host: &UnixDatagram, what: u8) {
    if what & 1 == 0 {
        while host.recv(&mut [0; 1]).is_ok() {}
        return;
    }
    let len = usize::from(what >> 1) * STEP + usize::from(what);
    // What is too much is lost, as with any interface.
    let _ = host.send(&vec![what; len.min(MAX_LEN + 1)]);
}

/// Frames in both directions, in one piece and in several; one of many buffers; a command.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let send = Script::new(true)
        .describe(1, 0, buffer(0).into(), 12, NEXT, 1)
        .describe(1, 1, 0x7ff0, 100, 0, 0)
        .describe(1, 2, buffer(1).into(), 1500, 0, 0)
        .offer(1, 0)
        .offer(1, 2)
        .serve()
        .host(0);
    let receive = Script::new(false)
        .describe(0, 0, buffer(0).into(), 12, WRITE | NEXT, 1)
        .describe(0, 1, buffer(1).into(), 2000, WRITE, 0)
        .offer(0, 0)
        .host(3)
        .serve();
    let merged = [
        &[0b1011][..],
        &{
            let script = (0..12_u8).fold(Script::new(true), |script, index| {
                let at = u32::from(buffer(0)) + u32::from(index) * 0x400;
                script.describe(0, index, at, 0x400, WRITE, 0).offer(0, index.into())
            });
            script.host(9).serve().host(5).serve().bytes()
        }[1..],
    ]
    .concat();
    let command = Script::new(true)
        .store(buffer(0), &[4, 0, 1, 0])
        .describe(2, 0, buffer(0).into(), 4, NEXT, 1)
        .describe(2, 1, buffer(1).into(), 1, WRITE, 0)
        .offer(2, 0)
        .serve();
    vec![send.bytes(), receive.bytes(), merged, command.bytes()]
}
