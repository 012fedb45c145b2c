//! Processes under test: input, captured output, and an end within a time limit.

use std::{
    io::{Read, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

use crate::wait::{PATIENCE, wait_for, wait_within};

/// How a process ended and what it printed.
#[derive(Debug)]
pub struct Output {
    /// Exit code, or 128 + n when a signal ended it, as a shell gives it.
    pub code: i32,
    /// Bytes on standard output.
    pub stdout: Vec<u8>,
    /// Bytes on standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Standard output as text.
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Exits with `code`, else shows everything.
    ///
    /// # Panics
    /// With another exit code.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert!(self.code == code, "exit code {} instead of {code}\n{}", self.code, self.shown());
        self
    }

    /// Succeeded, and printed exactly this.
    ///
    /// # Panics
    /// When not.
    #[track_caller]
    pub fn expect_out(self, expected: &str) -> Self {
        let this = self.expect_code(0);
        assert!(this.out() == expected, "expected on stdout: {expected:?}\n{}", this.shown());
        this
    }

    /// husk failed as it should: this exit code, nothing on stdout, and on stderr one error of husk's own that says
    /// all of `parts`.
    ///
    /// # Panics
    /// When not.
    #[track_caller]
    pub fn expect_failure(self, code: i32, parts: &[&str]) -> Self {
        let this = self.expect_code(code);
        let err = this.err();
        assert!(this.stdout.is_empty(), "unexpected output\n{}", this.shown());
        let is_error = |line: &&str| line.starts_with("husk: ") && !line.starts_with("husk: unpacking ");
        let errors = err.lines().filter(is_error).count();
        assert!(errors == 1, "expected one line that begins with `husk: `\n{}", this.shown());
        for part in parts {
            assert!(err.contains(part), "expected {part:?} in the error\n{}", this.shown());
        }
        for sign in ["panicked at", "RUST_BACKTRACE", "Error {", "Os {"] {
            assert!(!err.contains(sign), "{sign:?} is not for users\n{}", this.shown());
        }
        this
    }

    fn shown(&self) -> String {
        const MOST: usize = 4000;
        let cut = |text: String| match text.char_indices().nth(MOST) {
            Some((end, _)) => format!("{}... ({} bytes)", &text[..end], text.len()),
            None => text,
        };
        format!("--- stdout\n{}\n--- stderr\n{}", cut(self.out()), cut(self.err()))
    }
}

/// Bytes that a thread collects from a pipe, and somebody waits for.
#[derive(Debug, Default)]
struct Collected {
    bytes: Mutex<Vec<u8>>,
    changed: Condvar,
}

impl Collected {
    fn from(mut pipe: impl Read + Send + 'static) -> (Arc<Self>, JoinHandle<()>) {
        let collected = Arc::new(Self::default());
        let into = Arc::clone(&collected);
        let reader = thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                into.bytes.lock().unwrap().extend_from_slice(&buffer[..count]);
                into.changed.notify_all();
            }
        });
        (collected, reader)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap()).into_owned()
    }

    /// Whether `text` has come before the time was over.
    fn wait_for(&self, text: &str, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut bytes = self.bytes.lock().unwrap();
        while !String::from_utf8_lossy(&bytes).contains(text) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            bytes = self.changed.wait_timeout(bytes, left).unwrap().0;
        }
        true
    }
}

/// A running process. Dropping it before its end kills it with its whole process group, as for a test that has failed; what a
/// process leaves that ends by itself stays, to be found.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<(Arc<Collected>, JoinHandle<()>)>,
    stderr: Option<(Arc<Collected>, JoinHandle<()>)>,
}

impl Running {
    /// Starts a command with its three streams as pipes; what it prints is collected.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn start(command: &mut Command) -> Self {
        let mut running = Self::start_unread(command);
        running.stdout = running.child.stdout.take().map(Collected::from);
        running
    }

    /// Starts a command whose standard output is left to [`Running::take_stdout`].
    ///
    /// # Panics
    /// When it can't be started.
    pub fn start_unread(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own, so that a signal to the test's group is not one to husk's.
        command.process_group(0);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let stdin = child.stdin.take();
        let stderr = child.stderr.take().map(Collected::from);
        Self { child, stdin, stdout: None, stderr }
    }

    /// A child that was started otherwise, whose streams somebody else has.
    pub fn adopt(child: Child) -> Self {
        Self { child, stdin: None, stdout: None, stderr: None }
    }

    /// Its process id.
    ///
    /// # Panics
    /// Never: Linux's ids are small.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    /// Its standard output, when nobody else reads it.
    ///
    /// # Panics
    /// When somebody does.
    pub fn take_stdout(&mut self) -> std::process::ChildStdout {
        self.child.stdout.take().unwrap()
    }

    /// Writes to its standard input.
    ///
    /// # Panics
    /// When it takes no input.
    pub fn write(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(bytes).unwrap();
        stdin.flush().unwrap();
    }

    /// Writes from a thread, and closes standard input after that.
    ///
    /// # Panics
    /// When standard input has been closed.
    pub fn feed(&mut self, bytes: Vec<u8>) {
        let mut stdin = self.stdin.take().unwrap();
        thread::spawn(move || {
            // A process may end without reading everything.
            let _ = stdin.write_all(&bytes);
        });
    }

    /// Closes its standard input.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Standard output so far, as text.
    pub fn out(&self) -> String {
        self.stdout.as_ref().map_or(String::new(), |(collected, _)| collected.text())
    }

    /// Standard error so far, as text.
    pub fn err(&self) -> String {
        self.stderr.as_ref().map_or(String::new(), |(collected, _)| collected.text())
    }

    /// Waits until standard output holds `text`.
    ///
    /// # Panics
    /// When that takes too long, or nobody collects it.
    pub fn wait_for_out(&mut self, text: &str) {
        self.wait_for_out_within(text, PATIENCE);
    }

    /// Waits for so long until standard output holds `text`.
    ///
    /// # Panics
    /// When that takes longer, or nobody collects it.
    pub fn wait_for_out_within(&mut self, text: &str, limit: Duration) {
        let came = self.stdout.as_ref().unwrap().0.wait_for(text, limit);
        assert!(came, "waited for {text:?}, got {:?}, and on stderr {:?}", self.out(), self.err());
    }

    /// Waits until standard error holds `text`.
    ///
    /// # Panics
    /// When that takes too long, or nobody collects it.
    pub fn wait_for_err(&mut self, text: &str) {
        let came = self.stderr.as_ref().unwrap().0.wait_for(text, PATIENCE);
        assert!(came, "waited for {text:?}, got {:?}", self.err());
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Whether it has ended.
    ///
    /// # Panics
    /// When it can't be waited for.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Ends its input, upon which it has to end by itself, with exit code 0.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn end(self) {
        self.finish().expect_code(0);
    }

    /// Ends its input, and waits for its end.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn finish(self) -> Output {
        self.finish_within(PATIENCE)
    }

    /// As [`Running::finish`], with a limit of its own.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn finish_within(mut self, limit: Duration) -> Output {
        self.stdin = None;
        let ended = wait_within(limit, || self.child.try_wait().unwrap());
        let status = ended.unwrap_or_else(|| {
            panic!("does not end; on stdout {:?}, on stderr {:?}", self.out(), self.err())
        });
        let collect = |stream: Option<(Arc<Collected>, JoinHandle<()>)>| {
            stream.map_or(Vec::new(), |(collected, reader)| {
                wait_for("its output to end", PATIENCE, || reader.is_finished().then_some(()));
                std::mem::take(&mut *collected.bytes.lock().unwrap())
            })
        };
        let stdout = collect(self.stdout.take());
        let stderr = collect(self.stderr.take());
        Output { code: code_of(status), stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // An adopted child has no group of its own.
            let _ = killpg(self.pid(), Signal::SIGKILL);
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

fn code_of(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}
