//! The thread of a pair of queues. All descriptors are watched for edges, and none but the tap is read: what a direction
//! waits for it asks for again after each event, and it waits only after it has found nothing.

use std::{io, os::fd::AsRawFd, os::fd::RawFd, sync::Arc};

use vm_memory::GuestMemoryMmap;
use vmm_sys_util::{
    epoll::{ControlOperation, Epoll, EpollEvent, EventSet},
    eventfd::EventFd,
};

use super::{
    Blocked, NetCounters,
    control::{Control, Steering},
    ring::Ring,
    rx::Receiver,
    throttle::Throttle,
    tx::Transmitter,
};
use crate::virtio::{ActiveQueue, Interrupt, serve::ServeError, turns::Turns};

const STOP: u64 = 0;
const TAP: u64 = 1;
const RX_KICK: u64 = 2;
const TX_KICK: u64 = 3;
const RX_TOKENS: u64 = 4;
const TX_TOKENS: u64 = 5;
const CONTROL_KICK: u64 = 6;

/// What the driver and the device agreed on, as far as the queues are concerned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mode {
    /// The ring's indices tell when to notify and to interrupt.
    pub(super) event_idx: bool,
    /// A frame for the guest may have several buffers.
    pub(super) mergeable: bool,
}

/// The control queue, served by the first pair's thread.
#[derive(Debug)]
pub(super) struct ControlQueue {
    pub(super) active: ActiveQueue,
    /// How many pairs the driver has set up.
    pub(super) usable: u16,
}

/// A pair of queues and all that its thread needs.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) mem: GuestMemoryMmap,
    pub(super) rx: ActiveQueue,
    pub(super) tx: ActiveQueue,
    pub(super) mode: Mode,
    pub(super) interrupt: Interrupt,
    pub(super) rx_throttle: Throttle,
    pub(super) tx_throttle: Throttle,
    pub(super) counters: Arc<NetCounters>,
    pub(super) steering: Steering,
    /// Its number: that of its tap's queue.
    pub(super) index: usize,
    pub(super) control: Option<ControlQueue>,
    pub(super) epoll: Epoll,
}

impl Pair {
    /// Moves frames until `stop` becomes readable.
    ///
    /// # Errors
    /// When the driver broke a queue: the device is of no use until it is reset.
    pub(super) fn run(self, stop: &EventFd) -> Result<(), ServeError> {
        let Self { mem, rx, tx, mode, interrupt, rx_throttle, tx_throttle, counters, steering, .. } = self;
        let epoll = &self.epoll;
        let Some(tap) = steering.taps.get(self.index) else { return Ok(()) };
        let mem = &mem;
        watch(epoll, stop, EventSet::IN, STOP)?;
        watch(epoll, tap, EventSet::IN | EventSet::OUT, TAP)?;
        watch(epoll, &rx.kick, EventSet::IN, RX_KICK)?;
        watch(epoll, &tx.kick, EventSet::IN, TX_KICK)?;
        let ring = |queue| Ring::new(queue, mode.event_idx);
        let mut receiver = Receiver::new(
            mem,
            ring(rx.queue),
            mode.mergeable,
            interrupt.clone(),
            rx_throttle,
            counters.clone(),
        );
        let mut transmitter =
            Transmitter::new(mem, ring(tx.queue), interrupt.clone(), tx_throttle, counters.clone());
        for (fds, token) in [(receiver.token_events(), RX_TOKENS), (transmitter.token_events(), TX_TOKENS)] {
            for fd in fds {
                watch(epoll, &fd, EventSet::IN, token)?;
            }
        }
        let mut control = None;
        if let Some(ControlQueue { active, usable }) = self.control {
            watch(epoll, &active.kick, EventSet::IN, CONTROL_KICK)?;
            let queue = ring(active.queue);
            control = Some((
                Control::new(mem, queue, interrupt.clone(), counters, steering.clone(), usable),
                // Lives as long as it is watched.
                active.kick,
            ));
        }
        let mut turns = Turns::default();
        loop {
            let mut more = receiver.serve(tap)? | transmitter.serve(tap)?;
            turns.found(transmitter.taken());
            if let Some((control, _)) = &mut control {
                more |= control.serve()?;
            }
            let mut events = [EpollEvent::default(); 16];
            let count = match epoll.wait(if more { 0 } else { -1 }, &mut events) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            };
            for event in &events[..count] {
                match event.data() {
                    STOP => return Ok(()),
                    TAP => {
                        receiver.wake(Blocked::Tap);
                        transmitter.wake(Blocked::Tap);
                    }
                    RX_KICK => receiver.wake(Blocked::Ring),
                    TX_KICK => transmitter.wake(Blocked::Ring),
                    RX_TOKENS => receiver.wake(Blocked::Tokens),
                    TX_TOKENS => transmitter.wake(Blocked::Tokens),
                    _ => {
                        if let Some((control, _)) = &mut control {
                            control.wake();
                        }
                    }
                }
            }
        }
    }
}

fn watch(epoll: &Epoll, fd: &impl AsRawFd, events: EventSet, token: u64) -> io::Result<()> {
    let fd: RawFd = fd.as_raw_fd();
    epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(events | EventSet::EDGE_TRIGGERED, token))
}
