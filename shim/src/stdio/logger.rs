//! A logging program: reads a process's output from its descriptors 3 and 4, and closes 5 when it is ready for it.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    path::Path,
    process::Stdio,
    time::Duration,
};

use tokio::{
    io::AsyncReadExt,
    net::unix::pipe,
    process::{Child, Command},
    time::timeout,
};

use crate::error::Error;

/// How long the program may take to be ready, and to end once its input has.
const READY_WITHIN: Duration = Duration::from_secs(10);
const END_WITHIN: Duration = Duration::from_secs(10);

/// Where the program expects its descriptors to begin.
const FIRST_FD: RawFd = 3;

/// A logging program that runs.
#[derive(Debug)]
pub(super) struct Logger(Child);

impl Logger {
    /// Runs the program and waits until it is ready; returns where standard output and errors go.
    ///
    /// # Errors
    /// When it can't be run, or takes too long.
    pub(super) async fn start(
        path: &Path,
        args: &[String],
        id: &str,
        namespace: &str,
    ) -> Result<(Self, pipe::Sender, pipe::Sender), Error> {
        let (child, out, err, ready) =
            spawn(path, args, id, namespace).map_err(Error::io("run the logging program", path))?;
        let logger = Self(child);
        let mut ready = pipe::Receiver::from_owned_fd(ready).map_err(Error::io("read from", path))?;
        // Closing it is as good as writing a byte.
        match timeout(READY_WITHIN, ready.read(&mut [0])).await {
            Ok(read) => read.map_err(Error::io("read from", path))?,
            Err(_) => {
                return Err(Error::invalid(format!(
                    "the logging program {} was not ready within {} s",
                    path.display(),
                    READY_WITHIN.as_secs()
                )));
            }
        };
        Ok((logger, out, err))
    }

    /// Waits until it has dealt with all that it was given; not for long.
    pub(super) async fn finish(mut self) {
        if timeout(END_WITHIN, self.0.wait()).await.is_err() {
            tracing::warn!("a logging program does not end, and is killed");
            let _ = self.0.kill().await;
        }
    }
}

/// The program, where its two inputs are written to, and where it says that it is ready.
fn spawn(
    path: &Path,
    args: &[String],
    id: &str,
    namespace: &str,
) -> io::Result<(Child, pipe::Sender, pipe::Sender, OwnedFd)> {
    let (out_reader, out_writer) = io::pipe()?;
    let (err_reader, err_writer) = io::pipe()?;
    let (ready_reader, ready_writer) = io::pipe()?;
    // Moved out of the way of the numbers that they shall have.
    let theirs = [out_reader.as_raw_fd(), err_reader.as_raw_fd(), ready_writer.as_raw_fd()];
    let mut aside = Vec::with_capacity(theirs.len());
    for fd in theirs {
        aside.push(duplicate_above(fd, FIRST_FD + 3)?);
    }
    let fds: Vec<RawFd> = aside.iter().map(AsRawFd::as_raw_fd).collect();
    let mut command = Command::new(path);
    command
        .args(args)
        .env("CONTAINER_ID", id)
        .env("CONTAINER_NAMESPACE", namespace)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(false);
    // SAFETY: the closure runs between fork and exec, and does nothing but dup2(2), which is async-signal-safe; it neither
    // allocates nor takes locks.
    unsafe {
        command.pre_exec(move || {
            for (to, from) in (FIRST_FD..).zip(&fds) {
                if libc::dup2(*from, to) < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
    let child = command.spawn()?;
    drop((aside, ready_writer));
    let out = pipe::Sender::from_owned_fd(out_writer.into())?;
    let err = pipe::Sender::from_owned_fd(err_writer.into())?;
    Ok((child, out, err, ready_reader.into()))
}

fn duplicate_above(fd: RawFd, least: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl(2) with these arguments reads and writes no memory of ours.
    let duplicate = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, least) };
    if duplicate < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(duplicate) })
}
