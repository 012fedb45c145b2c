//! The signals that husk passes on to a container.

use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};

use crate::{Error, Result};

/// A signal that husk received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal(i32);

impl Signal {
    /// Its number.
    pub fn number(self) -> i32 {
        self.0
    }

    /// Somebody wants husk to be gone soon: a closed terminal, or SIGTERM.
    pub fn asks_to_end(self) -> bool {
        matches!(self.0, libc::SIGTERM | libc::SIGHUP)
    }

    /// The exit code of a process ended by this signal.
    pub fn exit_code(self) -> u8 {
        u8::try_from(128 + self.0).unwrap_or(u8::MAX)
    }
}

/// Signals as they arrive, instead of their default action.
#[derive(Debug)]
pub struct Signals {
    interrupt: SignalStream,
    terminate: SignalStream,
    hangup: SignalStream,
    quit: SignalStream,
    window: SignalStream,
}

impl Signals {
    /// From now on, these signals no longer end husk by themselves.
    ///
    /// # Errors
    /// When a handler can't be set.
    pub fn catch() -> Result<Self> {
        let catch = |kind| signal(kind).map_err(Error::io("handle", "signals"));
        Ok(Self {
            interrupt: catch(SignalKind::interrupt())?,
            terminate: catch(SignalKind::terminate())?,
            hangup: catch(SignalKind::hangup())?,
            quit: catch(SignalKind::quit())?,
            window: catch(SignalKind::window_change())?,
        })
    }

    /// The next signal.
    pub async fn next(&mut self) -> Signal {
        Signal(tokio::select! {
            _ = self.interrupt.recv() => libc::SIGINT,
            _ = self.terminate.recv() => libc::SIGTERM,
            _ = self.hangup.recv() => libc::SIGHUP,
            _ = self.quit.recv() => libc::SIGQUIT,
            _ = self.window.recv() => libc::SIGWINCH,
        })
    }

    /// The next signal that would have ended husk.
    pub async fn fatal(&mut self) -> Signal {
        loop {
            let signal = self.next().await;
            if signal.number() != libc::SIGWINCH {
                return signal;
            }
        }
    }
}

/// A signal's number from its name, with or without SIG, or from the number itself, as images give it.
pub fn parse(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let name = text.to_ascii_uppercase();
    let name = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
    if let Some(offset) = name.strip_prefix("SIGRTMIN+") {
        return offset
            .parse::<i32>()
            .ok()
            .filter(|offset| (0..=30).contains(offset))
            .map(|offset| 34 + offset);
    }
    name.parse::<nix::sys::signal::Signal>().ok().map(|signal| signal as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_name_and_number() {
        for (text, number) in
            [("SIGTERM", 15), ("quit", 3), ("SigInt", 2), ("9", 9), ("SIGRTMIN+3", 37), ("WINCH", 28)]
        {
            assert_eq!(parse(text), Some(number), "{text}");
        }
        for text in ["", "0", "65", "-1", "SIGNOPE", "SIGRTMIN+99"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
