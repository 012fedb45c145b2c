//! The command itself: its start, its streams, its end.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, PipeReader, PipeWriter, Read, Write, pipe},
    os::{
        fd::AsFd,
        unix::{ffi::OsStrExt, process::CommandExt},
    },
    process::Command,
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result, anyhow};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::wait::{WaitStatus, waitpid},
    unistd::Pid,
};

use super::system;
use crate::wire::{self, Report, Request};

const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;
const CHUNK: usize = 64 << 10;

/// Runs the command to its end. What it leaves running ends with the machine.
pub(super) fn run(request: &Request, control: &File, [stdout, stderr]: [File; 2]) -> Result<Report> {
    let (stdin_reader, stdin_writer) = pipe()?;
    let (stdout_reader, stdout_writer) = pipe()?;
    let (stderr_reader, stderr_writer) = pipe()?;
    let mut words = request.command.iter().map(|word| OsStr::from_bytes(word));
    let program = words.next().context("no command")?;
    let mut command = Command::new(program);
    command
        .args(words)
        .env_clear()
        .envs(request.env.iter().map(|(name, value)| (name, value)))
        .current_dir(OsStr::from_bytes(&request.cwd))
        .stdin(stdin_reader)
        .stdout(stdout_writer)
        .stderr(stderr_writer);
    // SAFETY: setsid is a plain system call.
    unsafe { command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(io::Error::from)) };
    if !std::path::Path::new(OsStr::from_bytes(&request.cwd)).is_dir() {
        let reason =
            format!("the working directory {} does not exist inside", String::from_utf8_lossy(&request.cwd));
        return Ok(Report::NotRun { code: crate::FAILED, reason });
    }
    let child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let code = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE };
            return Ok(Report::NotRun {
                code,
                reason: format!("cannot run {}: {error}", program.to_string_lossy()),
            });
        }
    };
    // The command held on to copies of the child's ends of the pipes.
    drop(command);

    feed(control.try_clone()?, stdin_writer);
    system::die_with_host(control)?;
    let (ended, end) = pipe()?;
    let out = drain(stdout_reader, stdout, ended.try_clone()?);
    let err = drain(stderr_reader, stderr, ended);
    let code = reap(Pid::from_raw(i32::try_from(child.id())?))?;
    drop(end);
    let [stdout_bytes, stderr_bytes] =
        [out, err].map(|thread| thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread failed"))));
    nix::unistd::sync();
    Ok(Report::Exited { code, stdout_bytes: stdout_bytes?, stderr_bytes: stderr_bytes? })
}

/// Reaps everything until the command itself has ended.
fn reap(command: Pid) -> Result<u8> {
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, code)) if pid == command => return Ok(u8::try_from(code)?),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == command => {
                return Ok(u8::try_from(128 + signal as i32)?);
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(anyhow!(error).context("cannot wait for the command")),
        }
    }
}

/// Gives frames of stdin to the command until the empty one.
fn feed(mut control: File, mut stdin: PipeWriter) {
    thread::spawn(move || {
        while let Ok(chunk) = wire::read_frame(&mut control) {
            if chunk.is_empty() || stdin.write_all(&chunk).is_err() {
                return;
            }
        }
    });
}

/// Passes output on until the pipe is closed, or, once the command has `ended`, empty: others may still hold it open.
/// Gives the number of bytes.
fn drain(mut from: PipeReader, mut port: File, ended: PipeReader) -> JoinHandle<io::Result<u64>> {
    thread::spawn(move || {
        let mut chunk = vec![0; CHUNK];
        let mut total = 0;
        loop {
            let mut polled =
                [PollFd::new(from.as_fd(), PollFlags::POLLIN), PollFd::new(ended.as_fd(), PollFlags::POLLIN)];
            match poll(&mut polled, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            if polled[0].revents().is_none_or(|events| events.is_empty()) {
                return Ok(total);
            }
            let length = from.read(&mut chunk)?;
            if length == 0 {
                return Ok(total);
            }
            port.write_all(&chunk[..length])?;
            total += length as u64;
        }
    })
}

#[cfg(test)]
mod tests {
    use std::io::Seek;

    use super::*;

    #[test]
    fn output_is_complete_though_a_straggler_keeps_the_pipe_open() {
        let (from, mut writer) = pipe().unwrap();
        let (ended, end) = pipe().unwrap();
        let port = tempfile::tempfile().unwrap();
        writer.write_all(&[7; 60_000]).unwrap();
        drop(end);
        let total = drain(from, port.try_clone().unwrap(), ended).join().unwrap().unwrap();
        assert_eq!(total, 60_000);
        let mut port = port;
        assert_eq!(port.stream_position().unwrap(), 60_000);
        drop(writer);
    }
}
