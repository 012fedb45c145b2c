//! The device's event loop: the queues, the sockets, and who gets their turn.

use std::{
    io,
    os::{fd::AsRawFd, unix::net::UnixListener},
    path::PathBuf,
    sync::Arc,
};

use vm_memory::GuestMemoryMmap;
use vmm_sys_util::{
    epoll::{ControlOperation, Epoll, EpollEvent, EventSet},
    eventfd::EventFd,
};

use super::{
    VsockCounters,
    chain::{Buffers, Ring},
    muxer::Muxer,
};
use crate::virtio::{ActiveQueue, Interrupt};

const STOP: u64 = 0;
const RX_KICK: u64 = 1;
const TX_KICK: u64 = 2;
const LISTENER: u64 = 3;
const FIRST_SOCKET: u64 = 4;

/// Most packets per queue between two looks at the other events.
const BATCH: usize = 256;

/// The device must stop. What is printed of it is its text, which so says why as well.
#[derive(Debug, thiserror::Error)]
pub(super) enum EngineError {
    /// The driver broke a ring, or a chain in one.
    #[error("the driver broke a queue: {0}")]
    Queue(virtio_queue::Error),
    /// The host's kernel refused something.
    #[error("the event loop failed: {0}")]
    Io(io::Error),
}

impl From<virtio_queue::Error> for EngineError {
    fn from(error: virtio_queue::Error) -> Self {
        Self::Queue(error)
    }
}

impl From<io::Error> for EngineError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A device in operation. Dropping it ends all connections.
#[derive(Debug)]
pub(super) struct Engine {
    mem: GuestMemoryMmap,
    rx: Ring,
    rx_kick: EventFd,
    tx: Ring,
    tx_kick: EventFd,
    interrupt: Interrupt,
    epoll: Epoll,
    muxer: Muxer,
    counters: Arc<VsockCounters>,
    /// The guest has given no buffers; it notifies when it does.
    rx_empty: bool,
    /// All packets of the guest have been looked at; it notifies when there are more.
    tx_empty: bool,
}

impl Engine {
    /// Sets up the event loop.
    ///
    /// # Errors
    /// When the kernel refuses a descriptor.
    pub(super) fn new(
        mem: GuestMemoryMmap,
        rx: ActiveQueue,
        tx: ActiveQueue,
        interrupt: Interrupt,
        guest_cid: u32,
        host: (UnixListener, PathBuf),
        counters: Arc<VsockCounters>,
    ) -> io::Result<Self> {
        let (listener, socket) = host;
        let epoll = Epoll::new()?;
        watch_input(&epoll, &rx.kick, RX_KICK)?;
        watch_input(&epoll, &tx.kick, TX_KICK)?;
        let mut muxer = Muxer::new(guest_cid, socket, listener, FIRST_SOCKET);
        muxer.watch(&epoll, LISTENER)?;
        Ok(Self {
            mem,
            rx: Ring::new(rx.queue),
            rx_kick: rx.kick,
            tx: Ring::new(tx.queue),
            tx_kick: tx.kick,
            interrupt,
            epoll,
            muxer,
            counters,
            rx_empty: false,
            tx_empty: false,
        })
    }

    /// Works until `stop` becomes readable. What the guest has sent by then is passed on as far as host peers take it
    /// at once.
    ///
    /// # Errors
    /// When the driver broke a queue, or the kernel refuses something.
    pub(super) fn run(mut self, stop: &EventFd) -> Result<(), EngineError> {
        watch_input(&self.epoll, stop, STOP)?;
        while self.turn(self.timeout())? {}
        self.tx_empty = false;
        self.serve_tx()
    }

    /// How long to wait for events, in ms: not at all when a batch was cut short.
    fn timeout(&self) -> i32 {
        let tx_ready = !self.tx_empty && !self.muxer.is_stalled();
        let rx_ready = !self.rx_empty && self.muxer.has_output();
        if tx_ready || rx_ready { 0 } else { -1 }
    }

    /// One round: events, the guest's packets, packets for the guest. False when told to stop.
    pub(super) fn turn(&mut self, timeout: i32) -> Result<bool, EngineError> {
        let mut events = [EpollEvent::default(); 64];
        let count = match self.epoll.wait(timeout, &mut events) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error.into()),
        };
        let mut stop = false;
        for event in &events[..count] {
            match event.data() {
                STOP => stop = true,
                RX_KICK => {
                    self.rx_kick.read()?;
                    self.rx_empty = false;
                }
                TX_KICK => {
                    self.tx_kick.read()?;
                    self.tx_empty = false;
                }
                LISTENER => self.muxer.accept()?,
                token => self.muxer.host_event(token, EventSet::from_bits_truncate(event.events())),
            }
        }
        self.serve_tx()?;
        self.serve_rx()?;
        self.muxer.watch(&self.epoll, LISTENER)?;
        // Both queues share the interrupt, and each must be asked.
        let (rx, tx) = (self.rx.take_interrupt(&self.mem)?, self.tx.take_interrupt(&self.mem)?);
        if rx || tx {
            self.interrupt.signal_used();
        }
        Ok(!stop)
    }

    fn serve_tx(&mut self) -> Result<(), EngineError> {
        for _ in 0..BATCH {
            if self.tx_empty || self.muxer.is_stalled() {
                break;
            }
            let Some(chain) = self.tx.pop(&self.mem)? else {
                self.tx_empty = true;
                break;
            };
            let head = chain.head_index();
            match Buffers::readable(&self.mem, chain) {
                Some(bytes) => {
                    self.counters.tx_packets.add(1);
                    self.counters.tx_bytes.add(bytes.len() as u64);
                    self.muxer.guest_packet(bytes);
                }
                None => self.counters.tx_errors.add(1),
            }
            self.tx.push_used(&self.mem, head, 0)?;
        }
        Ok(())
    }

    fn serve_rx(&mut self) -> Result<(), EngineError> {
        for _ in 0..BATCH {
            if self.rx_empty || !self.muxer.has_output() {
                break;
            }
            let Some(chain) = self.rx.pop(&self.mem)? else {
                self.rx_empty = true;
                break;
            };
            let head = chain.head_index();
            let written = match Buffers::writable(&self.mem, chain) {
                Some(buffer) => self.muxer.fill(buffer),
                None => Some(0),
            };
            match written {
                Some(len) => {
                    self.counters.rx_packets.add(1);
                    self.counters.rx_bytes.add(len as u64);
                    self.rx.push_used(&self.mem, head, len)?;
                }
                None => self.rx.undo_pop(),
            }
        }
        Ok(())
    }
}

fn watch_input(epoll: &Epoll, fd: &EventFd, token: u64) -> io::Result<()> {
    epoll.ctl(ControlOperation::Add, fd.as_raw_fd(), EpollEvent::new(EventSet::IN, token))
}

#[cfg(test)]
impl Engine {
    /// Whether [`Self::run`] would sleep now.
    pub(super) fn is_idle(&self) -> bool {
        self.timeout() != 0 && self.epoll.wait(0, &mut [EpollEvent::default()]).unwrap() == 0
    }
    /// How much waits for buffers of the guest.
    pub(super) fn waiting(&self) -> usize {
        self.muxer.waiting()
    }
}
