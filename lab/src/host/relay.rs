//! The threads that carry bytes between the machine and the world, and tell the session what passed.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::{Arc, Mutex, PoisonError, mpsc::Sender},
    thread,
    time::Duration,
};

use nix::sys::signal::{SigSet, Signal};

use crate::wire::{self, Report};

const CHUNK: usize = 64 << 10;
const PULSE: Duration = Duration::from_millis(100);

/// What a session waits for.
#[derive(Debug)]
pub(crate) enum Event {
    /// The machine said something on the control port, or it is gone.
    Report(io::Result<Report>),
    /// This many more bytes of a stream (0: stdout, 1: stderr) have been passed on.
    Output(usize, io::Result<usize>),
    /// A signal arrived.
    Signal(Signal),
}

/// Passes a port's bytes on as they come. `stream` is what events call it.
pub(crate) fn output(
    events: Sender<Event>,
    stream: usize,
    mut port: UnixStream,
    to: &impl AsFd,
) -> io::Result<()> {
    // A descriptor of its own has no buffer.
    let mut to = File::from(to.as_fd().try_clone_to_owned()?);
    thread::spawn(move || {
        let mut chunk = vec![0; CHUNK];
        // The end of a port needs no event: the control port ends with it.
        while let Ok(length @ 1..) = port.read(&mut chunk) {
            let written = to.write_all(&chunk[..length]).map(|()| length);
            let failed = written.is_err();
            if events.send(Event::Output(stream, written)).is_err() || failed {
                return;
            }
        }
    });
    Ok(())
}

/// Passes stdin on, in frames ended by an empty one.
pub(crate) fn input(mut port: UnixStream, from: OwnedFd) {
    thread::spawn(move || {
        let mut from = File::from(from);
        let mut chunk = vec![0; CHUNK];
        loop {
            // Input that cannot be read is input that has ended.
            let length = from.read(&mut chunk).unwrap_or(0);
            if wire::write_frame(&mut port, &chunk[..length]).is_err() || length == 0 {
                return;
            }
        }
    });
}

/// Interrupts the machine's CPU now and then, for as long as there is a machine. QEMU's main thread and a CPU's thread that
/// enters a guest write the CPU's pending interrupts without a lock, so one can be lost, and if it was the timer's, the machine
/// waits for good. Any later one brings it back.
pub(crate) fn pulse(mut port: UnixStream) {
    thread::spawn(move || {
        while port.write_all(&[0]).is_ok() {
            thread::sleep(PULSE);
        }
    });
}

/// Waits for the report.
pub(crate) fn report(events: Sender<Event>, mut port: UnixStream) {
    thread::spawn(move || events.send(Event::Report(wire::receive(&mut port))));
}

/// Waits for a signal of a set that every thread blocks.
pub(crate) fn signals(events: Sender<Event>, set: SigSet) {
    thread::spawn(move || {
        if let Ok(signal) = set.wait() {
            // Without a receiver the process is about to end anyway.
            let _ = events.send(Event::Signal(signal));
        }
    });
}

/// The last lines of something that is read to its end by a thread.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tail(Arc<Mutex<Vec<u8>>>);

impl Tail {
    const KEPT: usize = 16 << 10;

    /// Reads in the background; with `show`, everything also goes to stderr.
    pub(crate) fn follow(&self, mut from: impl Read + Send + 'static, show: bool) -> thread::JoinHandle<()> {
        let tail = self.clone();
        thread::spawn(move || {
            let mut chunk = vec![0; CHUNK];
            while let Ok(length @ 1..) = from.read(&mut chunk) {
                if show {
                    let _ = io::stderr().write_all(&chunk[..length]);
                }
                tail.push(&chunk[..length]);
            }
        })
    }

    fn push(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(bytes);
        let excess = kept.len().saturating_sub(Self::KEPT);
        kept.drain(..excess);
    }

    /// The last `count` lines that say something.
    pub(crate) fn lines(&self, count: usize) -> Vec<String> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&kept);
        // QEMU warns about each feature of the CPU that its emulation lacks.
        let noise = |line: &str| line.is_empty() || line.contains("TCG doesn't support requested feature");
        let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !noise(line)).collect();
        lines[lines.len().saturating_sub(count)..].iter().map(|line| (*line).to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_bounded_and_ends_with_the_newest() {
        let tail = Tail::default();
        for number in 0..5000 {
            tail.push(format!("line {number}\r\n\r\n").as_bytes());
        }
        assert_eq!(tail.lines(2), ["line 4998", "line 4999"]);
        assert!(tail.0.lock().unwrap().len() <= Tail::KEPT);
    }
}
