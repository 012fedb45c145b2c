//! A process of a container, for as long as the host may ask about it.

use husk_protocol::agent::WaitResponse;
use nix::unistd::Pid;
use tokio::sync::watch;

use super::cgroup::Cgroup;
use crate::{
    failure::Failure,
    reaper::Reaper,
    stdio::{Copying, Tty, WindowSize},
};

/// A process that was made.
#[derive(Debug)]
pub(crate) struct Process {
    pid: Pid,
    tty: Option<Tty>,
    /// True as soon as the process was reaped: from then on its pid may be another's.
    ended: watch::Receiver<bool>,
    /// The outcome, once all output is in its streams, too.
    outcome: watch::Receiver<Option<WaitResponse>>,
}

impl Process {
    /// Starts to follow a process of ours, and calls `on_exit` when it has ended.
    pub(crate) fn follow(
        pid: Pid,
        (tty, copying): (Option<Tty>, Copying),
        cgroup: Cgroup,
        reaper: &Reaper,
        on_exit: fn(),
    ) -> Self {
        let exit = reaper.register(pid);
        let (end, ended) = watch::channel(false);
        let (result, outcome) = watch::channel(None);
        tokio::spawn(async move {
            // The reaper lives as long as the machine.
            let exit_code = exit.await.unwrap_or_default();
            on_exit();
            end.send_replace(true);
            let oom_killed = cgroup.oom_kills() > 0;
            copying.finish().await;
            result.send_replace(Some(WaitResponse { exit_code, oom_killed, ..Default::default() }));
        });
        Self { pid, tty, ended, outcome }
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    pub(crate) fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Returns when the process has ended and all its output is in its streams.
    pub(crate) async fn wait(&self) -> WaitResponse {
        let mut outcome = self.outcome.clone();
        match outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or_default(),
            // The task that follows the process does not end without a word.
            Err(_) => WaitResponse::default(),
        }
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: u32) -> Result<(), Failure> {
        if self.has_ended() {
            return Err(Failure::state("the process has ended"));
        }
        send_signal(self.pid, signal)
    }

    /// Sets the terminal's window size.
    pub(crate) fn resize(&self, rows: u32, columns: u32) -> Result<(), Failure> {
        let tty = self.tty.as_ref().ok_or_else(|| Failure::state("the process has no terminal"))?;
        let size = WindowSize::new(rows, columns)
            .ok_or_else(|| Failure::invalid(format!("not a window size: {rows} rows, {columns} columns")))?;
        tty.resize(size).map_err(|e| Failure::io("cannot set the window size", &e))
    }
}

/// Sends a signal, by number, to a process; 0 is none, and always allowed. That it has just ended is fine.
pub(crate) fn send_signal(pid: Pid, signal: u32) -> Result<(), Failure> {
    let number = i32::try_from(signal).ok().filter(|n| (0..=libc::SIGRTMAX()).contains(n));
    let number = number.ok_or_else(|| Failure::invalid(format!("not a signal: {signal}")))?;
    // SAFETY: takes no pointers. (nix's kill knows no real-time signals.)
    if unsafe { libc::kill(pid.as_raw(), number) } != 0 {
        let error = std::io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ESRCH) {
            return Err(Failure::io(format_args!("cannot signal process {pid}"), &error));
        }
    }
    Ok(())
}
