//! `husk-vmm` by itself, with the tests' own init in the guest.

use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind, IoSlice, PipeWriter, Write, pipe},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            net::{UnixListener, UnixStream},
            process::CommandExt,
        },
    },
    path::{Path, PathBuf},
    process::Command,
};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    environment,
    process::{Output, Running},
    wait::{PATIENCE, wait_for},
};

/// The vsock port of the host that the guest's delegate dials.
const DELEGATE_PORT: u32 = 700;
/// As `husk run` boots: quiet, and a panic still reaches the console.
const CMDLINE: &str = "quiet panic=-1 earlyprintk=ttyS0,keep 8250.nr_uarts=0";

/// A directory for a VM's files, and its configuration.
#[derive(Debug)]
pub struct Plan {
    dir: TempDir,
    /// The VMM's configuration.
    pub config: Value,
}

impl Default for Plan {
    fn default() -> Self {
        Self::new()
    }
}

impl Plan {
    /// One vCPU, 128 MiB, a vsock, a console and the tests' init.
    ///
    /// # Panics
    /// When there is no place for its files.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("vm-").tempdir().unwrap();
        let config = json!({
            "kernel": environment::guest().join("vmlinux"),
            "initramfs": environment::test_initramfs(),
            "cmdline": CMDLINE,
            "vcpus": 1,
            "mem_size_mib": 128,
            "vsock": {"guest_cid": 3, "socket": dir.path().join("vsock")},
            "console": dir.path().join("console.log"),
        });
        Self { dir, config }
    }

    /// Sets a field of the configuration.
    #[must_use]
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.config[field] = value.into();
        self
    }

    /// Adds a file of these bytes as a disk.
    ///
    /// # Panics
    /// When it can't be written.
    #[must_use]
    pub fn disk(mut self, id: &str, content: &[u8], read_only: bool) -> Self {
        let path = self.path(id);
        fs::write(&path, content).unwrap();
        let disk = json!({"id": id, "path": path, "read_only": read_only});
        match self.config["disks"].as_array_mut() {
            Some(disks) => disks.push(disk),
            None => self.config["disks"] = json!([disk]),
        }
        self
    }

    /// A path in the VM's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts the VMM and waits for nothing.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn start(self) -> Vm {
        let config = self.path("vm.json");
        fs::write(&config, self.config.to_string()).unwrap();
        let listener = UnixListener::bind(self.path(&format!("vsock_{DELEGATE_PORT}"))).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (lifeline_end, lifeline) = pipe().unwrap();
        let lifeline_end = OwnedFd::from(lifeline_end);
        let mut command = Command::new(environment::bin().join("husk-vmm"));
        command.arg("run").arg("--config").arg(&config).arg("--control").arg(self.path("control"));
        command.arg("--lifeline").arg(lifeline_end.as_raw_fd().to_string());
        let keep_open = move || {
            // SAFETY: fcntl with F_SETFD touches no memory; the descriptor is owned by this closure and open.
            match unsafe { libc::fcntl(lifeline_end.as_raw_fd(), libc::F_SETFD, 0) } {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        };
        // SAFETY: between fork and exec the closure makes one system call and nothing else.
        unsafe { command.pre_exec(keep_open) };
        let running = Running::start(&mut command);
        Vm { plan: self, running, lifeline: Some(lifeline), listener, delegate: None }
    }

    /// Starts the VMM and waits until the guest's delegate has dialled.
    ///
    /// # Panics
    /// When it does not.
    pub fn boot(self) -> Vm {
        let mut vm = self.start();
        vm.wait_for_delegate();
        vm
    }
}

/// A running VM.
#[derive(Debug)]
pub struct Vm {
    plan: Plan,
    running: Running,
    lifeline: Option<PipeWriter>,
    listener: UnixListener,
    delegate: Option<BufReader<UnixStream>>,
}

impl Vm {
    fn wait_for_delegate(&mut self) {
        let stream = wait_for("the guest's delegate", PATIENCE, || match self.listener.accept() {
            Ok((stream, _)) => Some(stream),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                assert!(!self.running.has_ended(), "the VMM ended: {}{}", self.running.err(), self.console());
                None
            }
            Err(error) => panic!("{error}"),
        });
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        self.delegate = Some(BufReader::new(stream));
    }

    /// Sends a line to the delegate.
    ///
    /// # Panics
    /// When it has not dialled, or is gone.
    pub fn tell(&mut self, line: &str) {
        writeln!(self.delegate.as_mut().unwrap().get_mut(), "{line}").unwrap();
    }

    /// Reads the delegate's next line.
    ///
    /// # Panics
    /// When none comes.
    pub fn answer(&mut self) -> String {
        let mut line = String::new();
        self.delegate.as_mut().unwrap().read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Whether a line of the delegate's is there to be read.
    ///
    /// # Panics
    /// When the connection is broken.
    pub fn has_answer(&mut self) -> bool {
        let delegate = self.delegate.as_mut().unwrap();
        delegate.get_ref().set_nonblocking(true).unwrap();
        let there = delegate.fill_buf().is_ok();
        delegate.get_ref().set_nonblocking(false).unwrap();
        there
    }

    /// Sends a line to the delegate and reads its answer.
    ///
    /// # Panics
    /// When none comes.
    pub fn ask(&mut self, line: &str) -> String {
        self.tell(line);
        self.answer()
    }

    /// A number from the delegate's `info`.
    ///
    /// # Panics
    /// When there is none of this name.
    pub fn info(&mut self, name: &str) -> u64 {
        let info = self.ask("info");
        let value = info.split(' ').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_else(|| panic!("no {name} in {info:?}")).parse().unwrap()
    }

    /// Sends an operation to the control socket, and returns its answer.
    ///
    /// # Panics
    /// When it is not answered in JSON.
    pub fn control(&self, op: &str) -> Value {
        self.control_line(&json!({"op": op}).to_string())
    }

    /// Sends a line to the control socket, and returns the answer.
    ///
    /// # Panics
    /// When it is not answered in JSON.
    pub fn control_line(&self, line: &str) -> Value {
        let path = self.plan.path("control");
        let mut stream = wait_for("the control socket", PATIENCE, || UnixStream::connect(&path).ok());
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        writeln!(stream, "{line}").unwrap();
        read_json(stream)
    }

    /// Sends a line to the control socket along with an open file, and returns the answer.
    ///
    /// # Panics
    /// When it is not answered in JSON.
    pub fn control_with_file(&self, line: &Value, file: &fs::File) -> Value {
        let stream = UnixStream::connect(self.plan.path("control")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let line = format!("{line}\n");
        let (bytes, fds) = ([IoSlice::new(line.as_bytes())], [file.as_raw_fd()]);
        let passed = [ControlMessage::ScmRights(&fds)];
        let sent = sendmsg::<()>(stream.as_raw_fd(), &bytes, &passed, MsgFlags::empty(), None).unwrap();
        assert_eq!(sent, line.len());
        read_json(stream)
    }

    /// Connects to a port in the guest. `None`: refused.
    ///
    /// # Panics
    /// When the VMM does not answer as it should.
    pub fn connect(&self, port: u32) -> Option<UnixStream> {
        let mut stream = UnixStream::connect(self.path("vsock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        writeln!(stream, "CONNECT {port}").unwrap();
        let mut line = Vec::new();
        // Byte by byte: what follows the line is the stream's.
        while !line.ends_with(b"\n") {
            let mut byte = [0];
            match std::io::Read::read(&mut stream, &mut byte) {
                Ok(1) => line.push(byte[0]),
                Ok(_) => return None,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no answer to CONNECT: {error}"),
            }
        }
        assert!(line.starts_with(b"OK "), "{:?}", String::from_utf8_lossy(&line));
        Some(stream)
    }

    /// Listens where the guest arrives when it dials a port of the host.
    ///
    /// # Panics
    /// When that fails.
    pub fn listen(&self, port: u32) -> UnixListener {
        UnixListener::bind(self.path(&format!("vsock_{port}"))).unwrap()
    }

    /// A path in the VM's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.plan.path(name)
    }

    /// What is on the console so far.
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.path("console.log")).unwrap_or_default()).into_owned()
    }

    /// Its owner goes away.
    pub fn drop_lifeline(&mut self) {
        self.lifeline = None;
    }

    /// The VMM's process.
    pub fn process(&self) -> &Running {
        &self.running
    }

    /// Waits for the VMM's end; its directory stays as long as the second value.
    ///
    /// # Panics
    /// When it does not end.
    pub fn finish(self) -> (Output, Ended) {
        let Self { plan, running, lifeline, .. } = self;
        let output = running.finish();
        drop(lifeline);
        (output, Ended { plan })
    }
}

fn read_json(stream: UnixStream) -> Value {
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{answer:?}: {error}"))
}

/// What a VM left in its directory.
#[derive(Debug)]
pub struct Ended {
    plan: Plan,
}

impl Ended {
    /// What was on the console.
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.path("console.log")).unwrap_or_default()).into_owned()
    }

    /// A path in the VM's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.plan.path(name)
    }
}

/// Runs `husk-vmm` with these arguments.
///
/// # Panics
/// When it can't be started.
pub fn run(args: &[&str]) -> Output {
    Running::start(Command::new(environment::bin().join("husk-vmm")).args(args)).finish()
}

/// Runs a configuration that can't work to its end.
///
/// # Panics
/// When it does not end.
pub fn run_config(text: &str, dir: &Path) -> Output {
    let config = dir.join("vm.json");
    fs::write(&config, text).unwrap();
    run(&["run", "--config", &config.display().to_string()])
}
