//! A terminal for husk, and somebody in front of it.

use std::{
    fs::File,
    io::{Read, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Command, Stdio},
    time::Instant,
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    pty::{OpenptyResult, Winsize, openpty},
    sys::termios::{Termios, tcgetattr},
};

use crate::{
    process::{Output, Running},
    wait::PATIENCE,
};

/// The user's side of a terminal, on the other side of which a process runs. Dropping it closes the window.
#[derive(Debug)]
pub struct Terminal {
    master: File,
    slave: Option<OwnedFd>,
    seen: Vec<u8>,
}

impl Terminal {
    /// Starts a command as the leader of a session on a new terminal.
    ///
    /// # Panics
    /// When terminal or process can't be made.
    pub fn start(mut command: Command, rows: u16, columns: u16) -> (Self, Running) {
        let OpenptyResult { master, slave } = openpty(Some(&size(rows, columns)), None).unwrap();
        for end in [&master, &slave] {
            // Or the process would have the user's side, too, and nobody could hang up on it.
            fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
        }
        let stdio = || Stdio::from(slave.try_clone().unwrap());
        command.stdin(stdio()).stdout(stdio()).stderr(stdio());
        let take_terminal = || {
            nix::unistd::setsid()?;
            // SAFETY: TIOCSCTTY takes an integer argument and touches no memory.
            match unsafe { libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY, 0) } {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        };
        // SAFETY: between fork and exec the closure makes two system calls and nothing else.
        unsafe { command.pre_exec(take_terminal) };
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        (Self { master: master.into(), slave: Some(slave), seen: Vec::new() }, Running::adopt(child))
    }

    /// Types.
    ///
    /// # Panics
    /// When the terminal takes no input.
    pub fn type_keys(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// Gives the window another size.
    ///
    /// # Panics
    /// When the terminal refuses.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = size(rows, columns);
        // SAFETY: TIOCSWINSZ reads the winsize that the pointer leads to.
        let result = unsafe { libc::ioctl(self.master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        assert_eq!(result, 0);
    }

    /// The terminal's modes.
    ///
    /// # Panics
    /// When they can't be read.
    pub fn modes(&self) -> Termios {
        tcgetattr(self.slave.as_ref().unwrap().as_fd()).unwrap()
    }

    /// What has appeared on the screen and was read so far.
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.seen).into_owned()
    }

    /// Reads the screen until `text` appears on it.
    ///
    /// # Panics
    /// When that takes too long.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) {
        while !self.screen().contains(text) {
            assert!(self.read_some(), "waited for {text:?} on the terminal, got {:?}", self.screen());
        }
    }

    /// Reads the screen until the process and all that have the terminal are gone.
    ///
    /// # Panics
    /// When that takes too long.
    #[track_caller]
    pub fn finish(mut self, running: Running) -> Output {
        self.slave = None;
        while self.read_some() {}
        Output { stdout: self.seen, ..running.finish() }
    }

    /// Reads what is there, or waits for some. `false`: nobody has the terminal any more, or nothing came for too long.
    fn read_some(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::try_from(left).unwrap()) {
                Err(nix::Error::EINTR) => continue,
                Ok(1) => {}
                _ => return false,
            }
            let mut buffer = [0; 4096];
            // A terminal without processes reads as an error: the end as well.
            let Ok(count @ 1..) = self.master.read(&mut buffer) else { return false };
            self.seen.extend_from_slice(&buffer[..count]);
            return true;
        }
    }
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}
