//! What is said on the socket: who the server is, where the queues are, and that it is over (vhost-user protocol, QEMU's
//! docs/interop/vhost-user.rst).

use std::os::unix::net::UnixStream;

use vhost::{
    VhostBackend, VhostUserMemoryRegionInfo, VringConfigData,
    vhost_user::{
        Frontend, VhostUserFrontend, VhostUserProtocolFeatures, VhostUserVirtioFeatures,
        message::VhostUserHeaderFlag,
    },
};
use virtio_queue::QueueT;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

use crate::virtio::ActiveQueue;

/// The server is of no use any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    /// It refused a message, or is gone.
    #[error("its server does not take {what}: {source}")]
    Refused {
        /// What it was told.
        what: &'static str,
        /// Why.
        source: vhost::Error,
    },
    /// It can't do what the guest's driver was promised.
    #[error("its server lacks the features {0:#x}: it must know indirect descriptors and event indices")]
    Features(u64),
    /// It ended, or was ended.
    #[error("its server hung up")]
    HungUp,
    /// It spoke without being asked.
    #[error("its server sent what nobody asked for")]
    Unasked,
    /// A queue outside of the guest's memory.
    #[error("a queue lies outside the guest's memory")]
    Outside,
    /// An operating system call failed.
    #[error("the event loop failed: {0}")]
    Io(#[from] std::io::Error),
}

/// What becomes of a message.
fn told(what: &'static str) -> impl Fn(vhost::Error) -> SessionError {
    move |source| SessionError::Refused { what, source }
}

/// A connection to a server.
pub(super) struct Session {
    frontend: Frontend,
    /// What of the protocol the server knows, once it has been asked.
    protocol: Option<VhostUserProtocolFeatures>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("protocol", &self.protocol).finish_non_exhaustive()
    }
}

impl Session {
    /// A session in which nothing was said yet.
    pub(super) fn new(socket: UnixStream, queues: u64) -> Self {
        Self { frontend: Frontend::from_stream(socket, queues), protocol: None }
    }

    /// Gives the server the memory and the queues. `call` is what it tells the driver by that it used buffers.
    ///
    /// # Errors
    /// When the server is not there, refuses, or can't do what `features` says.
    pub(super) fn start(
        &mut self,
        mem: &GuestMemoryMmap,
        features: u64,
        queues: &[Option<ActiveQueue>],
        call: &EventFd,
    ) -> Result<(), SessionError> {
        self.greet(features)?;
        let frontend = &mut self.frontend;
        let features = features | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
        frontend.set_features(features).map_err(told("the features"))?;
        let regions: Result<Vec<_>, _> =
            mem.iter().map(VhostUserMemoryRegionInfo::from_guest_region).collect();
        let memory = told("the guest's memory");
        frontend.set_mem_table(&regions.map_err(&memory)?).map_err(&memory)?;
        let queue = told("a queue");
        for (index, ActiveQueue { queue: rings, kick }) in used(queues) {
            frontend.set_vring_num(index, rings.size()).map_err(&queue)?;
            frontend.set_vring_addr(index, &addresses(mem, rings)?).map_err(&queue)?;
            frontend.set_vring_base(index, 0).map_err(&queue)?;
            frontend.set_vring_call(index, call).map_err(&queue)?;
            frontend.set_vring_kick(index, kick).map_err(&queue)?;
            frontend.set_vring_enable(index, true).map_err(&queue)?;
        }
        Ok(())
    }

    /// Says hello, the first time, and looks at what the server can do.
    fn greet(&mut self, features: u64) -> Result<(), SessionError> {
        let hello = told("a greeting");
        let frontend = &mut self.frontend;
        let offered = frontend.get_features().map_err(&hello)?;
        let wanted = features | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
        if wanted & !offered != 0 {
            return Err(SessionError::Features(wanted & !offered));
        }
        if self.protocol.is_none() {
            frontend.set_owner().map_err(&hello)?;
            let known = VhostUserProtocolFeatures::REPLY_ACK | VhostUserProtocolFeatures::RESET_DEVICE;
            let protocol = frontend.get_protocol_features().map_err(&hello)? & known;
            frontend.set_protocol_features(protocol).map_err(&hello)?;
            if protocol.contains(VhostUserProtocolFeatures::REPLY_ACK) {
                // Without, a server that refuses something just hangs up.
                frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
            }
            self.protocol = Some(protocol);
        }
        Ok(())
    }

    /// Takes the queues back. When this returns, the server uses them no more.
    ///
    /// # Errors
    /// When the server is not there.
    pub(super) fn stop(&mut self, queues: &[Option<ActiveQueue>]) -> Result<(), SessionError> {
        let end = told("the end");
        for (index, _) in used(queues) {
            // First, so that a notification on its way does not find a queue that is half taken apart.
            self.frontend.set_vring_enable(index, false).map_err(&end)?;
            self.frontend.get_vring_base(index).map_err(&end)?;
        }
        if self.protocol.is_some_and(|known| known.contains(VhostUserProtocolFeatures::RESET_DEVICE)) {
            self.frontend.reset_device().map_err(&end)?;
        }
        Ok(())
    }
}

/// The queues that the driver set up, and their numbers.
fn used(queues: &[Option<ActiveQueue>]) -> impl Iterator<Item = (usize, &ActiveQueue)> {
    queues.iter().enumerate().filter_map(|(index, queue)| Some((index, queue.as_ref()?)))
}

/// Where a queue is, as addresses of this process: so the protocol has it.
fn addresses(mem: &GuestMemoryMmap, queue: &impl QueueT) -> Result<VringConfigData, SessionError> {
    let here = |address| {
        mem.get_host_address(GuestAddress(address))
            .map(|pointer| pointer as u64)
            .map_err(|_| SessionError::Outside)
    };
    Ok(VringConfigData {
        queue_max_size: queue.max_size(),
        queue_size: queue.size(),
        flags: 0,
        desc_table_addr: here(queue.desc_table())?,
        used_ring_addr: here(queue.used_ring())?,
        avail_ring_addr: here(queue.avail_ring())?,
        log_addr: None,
    })
}
