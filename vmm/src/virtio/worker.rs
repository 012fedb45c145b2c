//! The one place that starts a device thread, ends it, and reports one that failed.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    thread::JoinHandle,
};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::device::Interrupt;
use crate::log::guest_fault;

/// A running device thread. Dropping it ends the thread.
#[derive(Debug)]
pub struct Worker {
    stop: EventFd,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts `run` on a thread called `name`. `run` must return soon after the event descriptor it is given becomes
    /// readable. If it panics or returns an error, the device alone stops: the driver sees NEEDS_RESET.
    ///
    /// # Errors
    /// When the descriptor or the thread can't be made.
    pub fn spawn<F, E>(name: &str, interrupt: Interrupt, run: F) -> io::Result<Self>
    where
        F: FnOnce(EventFd) -> Result<(), E> + Send + 'static,
        E: std::fmt::Display,
    {
        let stop = EventFd::new(EFD_NONBLOCK)?;
        let seen_by_thread = stop.try_clone()?;
        let device = name.to_owned();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            match catch_unwind(AssertUnwindSafe(|| run(seen_by_thread))) {
                Ok(Ok(())) => return,
                Ok(Err(error)) => guest_fault(format_args!("device {device} stopped: {error}")),
                Err(_) => guest_fault(format_args!("device {device} stopped: its thread panicked")),
            }
            interrupt.signal_needs_reset();
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Fails only when the counter would overflow: then the thread has been told already.
        let _ = self.stop.write(1);
        if let Some(thread) = self.thread.take() {
            // A panic was caught and reported inside.
            let _ = thread.join();
        }
    }
}
