//! Whether a disk waits for room, because the host's file system has none for what the guest writes. Shared by the disk's
//! queues, which wait, and the control socket, which tells of it.

use std::{
    io,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::kind::Kind;
use crate::{config::WhenFull, control::StallReason, log::guest_fault};

/// What all queues of a disk share about its waiting.
#[derive(Debug)]
pub(super) struct Room {
    when_full: WhenFull,
    waits: Mutex<Waits>,
    /// How often the queues were asked to try again.
    asked: AtomicU64,
    /// Wakes the queues' threads when that changes.
    ask: EventFd,
}

#[derive(Debug, Default)]
struct Waits {
    /// How many queues wait.
    queues: usize,
    /// Why the first of them began to.
    reason: Option<StallReason>,
}

impl Room {
    /// A disk that does not wait yet.
    ///
    /// # Errors
    /// When no eventfd can be had.
    pub(super) fn new(when_full: WhenFull) -> io::Result<Self> {
        let (waits, asked) = Default::default();
        Ok(Self { when_full, waits, asked, ask: EventFd::new(EFD_NONBLOCK)? })
    }

    fn lock(&self) -> MutexGuard<'_, Waits> {
        // Every change is complete before anything could panic.
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why a request that ended with `error` waits and is tried again; `None` if it fails.
    ///
    /// A flush is not among those that wait. When it fails, for whatever reason, the host's kernel may have thrown away
    /// what was written before, and the next flush would succeed without it.
    pub(super) fn refusal(&self, kind: Kind, error: &io::Error) -> Option<StallReason> {
        match (self.when_full, kind) {
            (WhenFull::Fail, _) | (_, Kind::Read | Kind::Flush) => None,
            (WhenFull::Wait, Kind::Write { .. } | Kind::Discard | Kind::WriteZeroes { .. }) => {
                match error.raw_os_error() {
                    Some(libc::ENOSPC) => Some(StallReason::NoSpace),
                    Some(libc::EDQUOT) => Some(StallReason::Quota),
                    _ => None,
                }
            }
        }
    }

    /// Why the disk waits, if it does.
    pub(super) fn stalled(&self) -> Option<StallReason> {
        self.lock().reason
    }

    /// One more queue waits, of the disk `id`.
    pub(super) fn begin(&self, id: &str, reason: StallReason) {
        let is_first = {
            let mut waits = self.lock();
            waits.queues += 1;
            waits.reason.get_or_insert(reason);
            waits.queues == 1
        };
        // Without the lock: the reader of stderr may be slow, and the control socket asks for the state.
        if is_first {
            guest_fault(format_args!("disk {id}: {reason}: writing waits until there is room"));
        }
    }

    /// A queue waits no longer. `id` is that of the disk if it continues, and `None` if disk or queue have gone.
    pub(super) fn end(&self, id: Option<&str>) {
        let is_last = {
            let mut waits = self.lock();
            waits.queues = waits.queues.saturating_sub(1);
            if waits.queues == 0 {
                waits.reason = None;
            }
            waits.queues == 0
        };
        if let (true, Some(id)) = (is_last, id) {
            guest_fault(format_args!("disk {id}: there is room again: writing continues"));
        }
    }

    /// Has all queues that wait try again at once.
    pub(super) fn ask(&self) {
        self.asked.fetch_add(1, Ordering::SeqCst);
        // Fails only when its counter would overflow, and then it is readable anyway.
        let _ = self.ask.write(1);
    }

    /// How often the queues were asked to try again.
    pub(super) fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    /// Gets a write each time that the queues are asked.
    pub(super) fn ask_fd(&self) -> &EventFd {
        &self.ask
    }
}
