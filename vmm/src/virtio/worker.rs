//! The one place that starts a device thread, binds it to its system calls, ends it, and reports one that failed.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        OnceLock,
        mpsc::{Sender, channel},
    },
    thread::{self, JoinHandle},
};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::device::Interrupt;
use crate::{
    jail::seccomp::{self, Role},
    log::guest_fault,
};

/// A thread to be started.
struct Order {
    name: String,
    run: Box<dyn FnOnce() + Send>,
    reply: Sender<io::Result<JoinHandle<()>>>,
}

/// Who starts threads for vCPUs, which may not.
static SPAWNER: OnceLock<Sender<Order>> = OnceLock::new();

/// Starts the thread that starts all further device threads, for the rest of the process's life.
///
/// # Errors
/// When it can't be made.
pub fn start_spawner() -> io::Result<()> {
    let (sender, orders) = channel::<Order>();
    thread::Builder::new().name("spawner".into()).spawn(move || {
        if let Err(error) = seccomp::apply(Role::Spawner) {
            return guest_fault(format_args!("no device can start: {error}"));
        }
        for Order { name, run, reply } in orders {
            // Who asked may be gone only with the whole process.
            let _ = reply.send(thread::Builder::new().name(name).spawn(run));
        }
    })?;
    // There was none before: there is one VM per process.
    let _ = SPAWNER.set(sender);
    Ok(())
}

fn start(name: String, run: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
    let Some(spawner) = SPAWNER.get() else { return thread::Builder::new().name(name).spawn(run) };
    let (reply, answer) = channel();
    let gone = |()| io::Error::other("the thread that starts threads has ended");
    spawner.send(Order { name, run, reply }).map_err(|_| gone(()))?;
    answer.recv().map_err(|_| gone(()))?
}

/// A running device thread. Dropping it ends the thread.
#[derive(Debug)]
pub struct Worker {
    stop: EventFd,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts `run` on a thread called `name`, which may make the system calls of `role`. `run` must return soon after the
    /// event descriptor it is given becomes readable. If it panics or returns an error, the device alone stops: the
    /// driver sees NEEDS_RESET.
    ///
    /// # Errors
    /// When the descriptor or the thread can't be made.
    pub fn spawn<F, E>(name: &str, role: Role, interrupt: Interrupt, run: F) -> io::Result<Self>
    where
        F: FnOnce(EventFd) -> Result<(), E> + Send + 'static,
        E: std::fmt::Display,
    {
        let stop = EventFd::new(EFD_NONBLOCK)?;
        let seen_by_thread = stop.try_clone()?;
        let device = name.to_owned();
        let body = move || {
            let served = match seccomp::apply(role) {
                Ok(()) => catch_unwind(AssertUnwindSafe(|| run(seen_by_thread))),
                Err(error) => {
                    guest_fault(format_args!("device {device} cannot start: {error}"));
                    return interrupt.signal_needs_reset();
                }
            };
            match served {
                Ok(Ok(())) => return,
                Ok(Err(error)) => guest_fault(format_args!("device {device} stopped: {error}")),
                Err(_) => guest_fault(format_args!("device {device} stopped: its thread panicked")),
            }
            interrupt.signal_needs_reset();
        };
        let thread = start(name.to_owned(), Box::new(body))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Worker {
    /// Asks the thread to end, without waiting for it.
    pub fn ask_to_stop(&self) {
        // Fails only when the counter would overflow: then the thread has been told already.
        let _ = self.stop.write(1);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.ask_to_stop();
        if let Some(thread) = self.thread.take() {
            // A panic was caught and reported inside.
            let _ = thread.join();
        }
    }
}
