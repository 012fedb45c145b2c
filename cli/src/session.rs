//! husk's own standard streams, terminal and signals, attached to a process of a container.
//!
//! Copying is done by plain threads with blocking calls: a slow reader of husk's output holds up nothing but that stream, and
//! the process's own end of it through the sockets.

use std::{
    fs::File,
    io::{self, Read, Write},
    net::Shutdown,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    pin::pin,
    thread,
    time::Duration,
};

use anyhow::{Context, bail};
use husk_sandbox::stalls::Stalls;
use husk_supervisor::{Attached, Ended, Pod};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use crate::{
    detach::{Keys, Scanner, Typed},
    signals::Signals,
    terminal::{self, RawMode},
};

const BUFFER: usize = 64 * 1024;
/// This many interrupts end a container that ignores them.
const INTERRUPTS_TO_KILL: u32 = 3;

/// How long a user who has asked for the end waits for output that nobody takes.
const LAST_OUTPUT: Duration = Duration::from_secs(2);

/// What is attached to.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) pod: Pod,
    pub(crate) id: String,
    /// Empty: the container's first process.
    pub(crate) exec_id: String,
    pub(crate) streams: Attached,
    /// The process has a terminal.
    pub(crate) terminal: bool,
    /// Signals are passed on.
    pub(crate) sig_proxy: bool,
    pub(crate) detach_keys: Keys,
}

/// How a session ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The process has ended.
    Ended(Ended),
    /// The user has detached from it, or husk's terminal is gone.
    Detached,
}

/// What a copying thread has to tell.
#[derive(Debug)]
enum News {
    /// The keys that detach were typed.
    Detach,
    /// husk's own reader has left: 1 for standard output, 2 for errors.
    ReaderLeft(i32),
}

/// The answer to the question when a process ends, asked before it is started.
pub(crate) type Waiting = JoinHandle<husk_sandbox::Result<Ended>>;

/// Asks for a process's next end.
pub(crate) fn begin_to_wait(pod: &Pod, id: &str, exec_id: &str) -> Waiting {
    let (pod, id, exec_id) = (pod.clone(), id.to_owned(), exec_id.to_owned());
    tokio::spawn(async move { pod.wait(&id, &exec_id, true).await })
}

/// Says what the container's disks wait for, and when they go on, for ever.
async fn tell_of_stalls(mut stalls: Stalls) {
    loop {
        match stalls.next().await {
            Some(text) => tracing::warn!("{text}; make room there, or end the container"),
            None => tracing::warn!("there is room again: the container goes on"),
        }
    }
}

/// The copying of a session's streams.
#[derive(Debug)]
pub(crate) struct Copying {
    outputs: Vec<oneshot::Receiver<io::Result<()>>>,
    news: mpsc::UnboundedReceiver<News>,
    raw_mode: Option<RawMode>,
    /// husk was started on a terminal.
    on_terminal: bool,
}

impl Session {
    /// Begins to copy.
    ///
    /// # Errors
    /// When a thread can't be started, or the terminal not be used.
    pub(crate) fn begin(&mut self) -> anyhow::Result<Copying> {
        let raw_mode = if self.terminal && self.streams.stdin.is_some() {
            RawMode::enter().context("cannot change the terminal's mode")?
        } else {
            None
        };
        let (tell, news) = mpsc::unbounded_channel();
        let mut outputs = Vec::new();
        let (out, err) = (io::stdout(), io::stderr());
        let sides = [
            (self.streams.stdout.take(), out.as_fd(), libc::STDOUT_FILENO),
            (self.streams.stderr.take(), err.as_fd(), libc::STDERR_FILENO),
        ];
        for (stream, to, number) in sides {
            if let Some(stream) = stream {
                outputs.push(copy_out(stream, duplicate(to)?, number, tell.clone())?);
            }
        }
        if let Some(stream) = self.streams.stdin.take() {
            let keys = self.terminal.then(|| Scanner::new(self.detach_keys.clone()));
            // Not waited for: a read of husk's own input can't be interrupted, and ends with husk.
            copy_in(duplicate(io::stdin().as_fd())?, stream, keys, tell)?;
        }
        Ok(Copying { outputs, news, raw_mode, on_terminal: has_terminal() })
    }

    /// Returns when the process has ended and its output is delivered, or the user detaches. Signals are passed on meanwhile.
    ///
    /// # Errors
    /// When output can't be delivered, or the supervisor was killed.
    pub(crate) async fn attend(
        &self,
        mut copying: Copying,
        mut waiting: Waiting,
        signals: &Signals,
    ) -> anyhow::Result<Outcome> {
        let mut interrupts = 0;
        let mut stalls = pin!(tell_of_stalls(self.pod.stalls()));
        let ended = loop {
            tokio::select! {
                () = &mut stalls => {}
                ended = &mut waiting => break ended.context("cannot wait for the process")?,
                Some(news) = copying.news.recv() => match news {
                    News::Detach => return Ok(Outcome::Detached),
                    News::ReaderLeft(number) => {
                        let stdout = number == libc::STDOUT_FILENO;
                        // It may have ended.
                        let _ = self.pod.close_output(&self.id, &self.exec_id, stdout).await;
                    }
                },
                number = signals.next() => {
                    if number == libc::SIGHUP && copying.on_terminal && !has_terminal() {
                        return Ok(Outcome::Detached);
                    }
                    interrupts += u32::from(number == libc::SIGINT);
                    if self.heard(number, interrupts).await {
                        return Ok(Outcome::Detached);
                    }
                }
            }
        };
        let mut output = pin!(last_output(copying.outputs));
        let failed = tokio::select! {
            biased;
            failed = &mut output => failed,
            // Nobody may read husk's output, and the process hears nothing any more.
            () = signals.asks_to_end() => tokio::time::timeout(LAST_OUTPUT, output).await.unwrap_or_default(),
        };
        drop(copying.raw_mode);
        let ended = ended?;
        if let Some(error) = failed {
            bail!(anyhow::Error::new(error).context("cannot deliver the container's output"));
        }
        Ok(Outcome::Ended(ended))
    }

    /// Passes a signal on. `true`: it is for husk itself, which ends, and the process goes on.
    async fn heard(&self, number: i32, interrupts: u32) -> bool {
        if number == libc::SIGWINCH {
            self.resize().await;
            return false;
        }
        if self.sig_proxy && self.exec_id.is_empty() {
            if number == libc::SIGTERM {
                // The container has as long to end as its user has said, or is killed.
                let (pod, id) = (self.pod.clone(), self.id.clone());
                tokio::spawn(async move { pod.stop(&id, None, None, false).await });
                return false;
            }
            let kill = interrupts >= INTERRUPTS_TO_KILL;
            let number = if kill { libc::SIGKILL } else { number };
            // One that can't be delivered is not a failure: the process has just ended.
            let _ = self.pod.kill(&self.id, number.unsigned_abs()).await;
        } else if matches!(number, libc::SIGINT | libc::SIGTERM | libc::SIGQUIT) {
            return true;
        }
        false
    }

    /// Gives the process's terminal the size of husk's.
    pub(crate) async fn resize(&self) {
        if !self.terminal {
            return;
        }
        if let Some((rows, columns)) = terminal::window_size() {
            let _ = self.pod.resize(&self.id, &self.exec_id, rows, columns).await;
        }
    }
}

/// Returns when all that the process has written is where husk's readers get it; what went wrong with that. A reader that has left
/// is nothing wrong.
async fn last_output(outputs: Vec<oneshot::Receiver<io::Result<()>>>) -> Option<io::Error> {
    let mut failed = None;
    for output in outputs {
        if let Ok(Err(error)) = output.await
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            failed = Some(error);
        }
    }
    failed
}

/// Whether husk has a controlling terminal that has not been closed.
fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}

fn duplicate(fd: BorrowedFd<'_>) -> anyhow::Result<File> {
    Ok(File::from(fd.try_clone_to_owned().context("cannot duplicate a standard stream")?))
}

/// Copies what comes to `to`, on a thread of its own, until it ends. When `to` takes no more, the rest is thrown away.
fn copy_out(
    mut from: UnixStream,
    mut to: File,
    number: i32,
    tell: mpsc::UnboundedSender<News>,
) -> io::Result<oneshot::Receiver<io::Result<()>>> {
    let (done, copied) = oneshot::channel();
    let copy = move || {
        let result = copy(&mut from, &mut to);
        if result.is_err() {
            // Nobody may be left to be told.
            let _ = tell.send(News::ReaderLeft(number));
            let _ = from.shutdown(Shutdown::Both);
        }
        let _ = done.send(result);
    };
    thread::Builder::new().name("output".into()).spawn(copy)?;
    Ok(copied)
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer) {
            // A supervisor that was killed ends it, too.
            Ok(0) | Err(_) => return Ok(()),
            Ok(n) => to.write_all(&buffer[..n])?,
        }
    }
}

/// Copies husk's input to the process, on a thread of its own; its end becomes the process's.
fn copy_in(
    mut from: File,
    mut to: UnixStream,
    mut keys: Option<Scanner>,
    tell: mpsc::UnboundedSender<News>,
) -> io::Result<()> {
    let copy = move || {
        let mut buffer = vec![0; BUFFER];
        loop {
            let typed = match from.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(n) => &buffer[..n],
            };
            let typed = match &mut keys {
                Some(keys) => keys.take(typed),
                None => Typed::Pass(typed.to_vec()),
            };
            let (Typed::Pass(bytes) | Typed::Detach(bytes)) = &typed;
            if to.write_all(bytes).is_err() {
                break;
            }
            if let Typed::Detach(_) = typed {
                let _ = tell.send(News::Detach);
                // The connection ends with husk, and with a terminal that is no end of input.
                return std::mem::forget(to);
            }
        }
        let _ = to.shutdown(Shutdown::Write);
        // Else the supervisor would take its end for the client's.
        std::mem::forget(to);
    };
    thread::Builder::new().name("input".into()).spawn(copy).map(drop)
}
