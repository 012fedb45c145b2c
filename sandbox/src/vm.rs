//! Starts a VM and brings its agent within reach; ends it.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    os::fd::{AsRawFd, OwnedFd, RawFd},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use husk_base::{dirs::make_dir_inside, socket};
use husk_protocol::{port, shared};
use husk_vmm::{
    config::{
        BalloonConfig, CpuTemplate, DiskConfig, FilesystemConfig, FilesystemSocket, MacAddress, MemoryConfig,
        NetConfig, TapConfig, VmConfig, VsockConfig,
    },
    jail::{JailConfig, SeccompMode},
    rate_limit::RateLimit,
};
use tokio::{
    net::UnixListener,
    process::{Child, Command},
    task::JoinSet,
    time::timeout,
};

use crate::{
    Error, Result,
    guest::{Guest, random_token, timed_out},
    memory,
    paths::Assets,
    privilege,
    rundir::RunDir,
};

/// Default time that a VM has to boot and an agent to answer a request, in seconds.
pub const DEFAULT_TIMEOUT_S: u64 = 30;

/// How long the VMM may take to end after its guest is gone.
const END_GRACE: Duration = Duration::from_secs(5);

/// Only what goes wrong is printed: each byte costs an exit from the VM.
const CMDLINE: &str = "quiet panic=-1 earlyprintk=ttyS0,keep 8250.nr_uarts=0 random.trust_cpu=on";

const CONSOLE_LINES: usize = 20;
const CONSOLE_BYTES: u64 = 16 * 1024;

/// The directory of the VM's sockets, which is all that a jailed VMM can reach; and the one that stands for the guest.
const SOCKETS: &str = "vsock";
const GUEST_SOCKET: &str = "guest";

/// The guest's vsock address; each VM has a vsock of its own, so it needs not be unique.
const GUEST_CID: u32 = 3;

/// What kind of VM to start.
#[derive(Debug)]
pub struct Plan {
    /// Number of virtual CPUs.
    pub vcpus: u8,
    /// Memory in MiB.
    pub mem_size_mib: u32,
    /// Disks, found in the guest by their serial.
    pub disks: Vec<DiskConfig>,
    /// Slots for disks that join the running VM.
    pub spare_disks: u8,
    /// Network interfaces.
    pub nets: Vec<NetPlan>,
    /// Slots for interfaces that join the running VM.
    pub spare_nets: u8,
    /// A connection to the server of a directory that the guest can mount.
    pub filesystem: Option<OwnedFd>,
    /// The memory can be shared with a file server.
    pub shared_memory: bool,
    /// The directory of the cgroup that the VM is put in, whose limits are set.
    pub cgroup: Option<PathBuf>,
    /// How long the agent may take to answer.
    pub timeout: Duration,
}

/// A network interface of a VM.
#[derive(Debug)]
pub struct NetPlan {
    /// The host's end.
    pub tap: OwnedFd,
    /// The guest's address.
    pub mac: MacAddress,
    /// Limit of what the guest receives.
    pub limit_rx: RateLimit,
    /// Limit of what the guest sends.
    pub limit_tx: RateLimit,
}

/// A running VM whose agent answers. Dropping it ends the VM at once.
#[derive(Debug)]
pub struct Vm {
    process: VmProcess,
    guest: Arc<Guest>,
}

impl Vm {
    /// Starts a VM in `dir` and waits for its agent.
    ///
    /// # Errors
    /// When the VMM can't be started, when the VM ends early, or when the agent does not answer in time; then with the
    /// console's last lines.
    pub async fn start(assets: &Assets, dir: &RunDir, plan: Plan) -> Result<Self> {
        let timeout = plan.timeout;
        // Only root can give the VMM another user.
        let uid = privilege::is_root().then(|| dir.uid());
        make_dir_inside(&dir.join(SOCKETS))?;
        let agent_listener = listen(dir, port::AGENT)?;
        let stdio = listen(dir, port::STDIO)?;
        for path in
            [dir.join(SOCKETS), port_path(dir.path(), port::AGENT), port_path(dir.path(), port::STDIO)]
        {
            std::os::unix::fs::chown(&path, uid, uid).map_err(Error::io("change the owner of", path))?;
        }
        let mut process = VmProcess::spawn(assets, dir, uid, plan)?;
        let socket = tokio::select! {
            accepted = agent_listener.accept() => accepted.map_err(Error::io("accept on", dir.join(SOCKETS)))?.0,
            _ = process.child.wait() => return Err(Error::VmDied { reason: process.last_words() }),
            () = tokio::time::sleep(timeout) => {
                let console = process.console_tail().map_or(String::new(), |tail| format!("; its console ends with:\n{tail}"));
                return Err(Error::AgentTimeout { seconds: timeout.as_secs(), console });
            }
        };
        let guest = Arc::new(Guest::new(socket, stdio, port::STDIO, random_token()?, timeout));
        process.background.spawn(memory::give_back(process.control.clone(), Arc::downgrade(&guest)));
        Ok(Self { process, guest })
    }

    /// Its process, which ends the VM when it is dropped, and what runs in it.
    pub(crate) fn into_parts(self) -> (VmProcess, Arc<Guest>) {
        (self.process, self.guest)
    }

    /// What runs in it.
    pub fn guest(&self) -> &Arc<Guest> {
        &self.guest
    }

    /// What a failed request means: the agent's own error, or that the VM is gone and why.
    pub async fn explain(&mut self, error: ttrpc::Error) -> Error {
        if timed_out(&error) {
            let seconds = self.guest.timeout().as_secs();
            return Error::AgentTimeout { seconds, console: String::new() };
        }
        if let ttrpc::Error::RpcStatus(_) = &error {
            return error.into();
        }
        match timeout(END_GRACE, self.process.child.wait()).await {
            Ok(_) => Error::VmLost { reason: self.process.last_words() },
            Err(_) => error.into(),
        }
    }

    /// Ends the VM at once. Nothing in it is saved.
    ///
    /// # Errors
    /// When the VMM can't be waited for.
    pub async fn kill(mut self) -> Result<()> {
        self.process.kill().await
    }
}

fn listen(dir: &RunDir, port: u32) -> Result<UnixListener> {
    listen_at(&port_path(dir.path(), port))
}

/// Listens on a unix socket, whatever the length of its path.
pub(crate) fn listen_at(path: &Path) -> Result<UnixListener> {
    let listener = socket::bind(path)?;
    let listener = listener.set_nonblocking(true).and_then(|()| UnixListener::from_std(listener));
    listener.map_err(Error::io("listen on", path))
}

/// Where a guest that dials `port` ends up, of the sandbox in `dir`.
pub(crate) fn port_path(dir: &Path, port: u32) -> PathBuf {
    dir.join(SOCKETS).join(format!("{GUEST_SOCKET}_{port}"))
}

/// Where to dial the guest of the sandbox in `dir`.
pub(crate) fn guest_socket(dir: &Path) -> PathBuf {
    dir.join(SOCKETS).join(GUEST_SOCKET)
}

/// The VMM's control socket of the sandbox in `dir`.
pub(crate) fn control_path(dir: &Path) -> PathBuf {
    dir.join("control")
}

/// Where the VMM of the sandbox in `dir` writes what is wrong.
pub(crate) fn log_path(dir: &Path) -> PathBuf {
    dir.join("vmm.log")
}

/// The VMM's process and what it leaves to read. It is killed when dropped, and it ends by itself when husk does: its
/// lifeline hangs up.
#[derive(Debug)]
pub(crate) struct VmProcess {
    child: Child,
    /// What is done meanwhile.
    background: JoinSet<()>,
    _lifeline: io::PipeWriter,
    control: PathBuf,
    console: PathBuf,
    log: PathBuf,
}

impl VmProcess {
    fn spawn(assets: &Assets, dir: &RunDir, uid: Option<u32>, plan: Plan) -> Result<Self> {
        let (control, console, log) =
            (control_path(dir.path()), dir.join("console.log"), log_path(dir.path()));
        let (lifeline_end, lifeline) = io::pipe().map_err(Error::io("create", "the VMM's lifeline"))?;
        let mut inherited = vec![OwnedFd::from(lifeline_end), dir.lock_for_another()?.into()];
        let [lifeline_number, lock_number] = [inherited[0].as_raw_fd(), inherited[1].as_raw_fd()];
        let nets = (0..).zip(plan.nets).map(|(index, net)| {
            let tap = TapConfig::Fds(vec![net.tap.as_raw_fd()]);
            inherited.push(net.tap);
            NetConfig {
                id: format!("net{index}"),
                tap,
                mac: net.mac,
                mtu: None,
                queue_pairs: 1,
                limit_rx: net.limit_rx,
                limit_tx: net.limit_tx,
            }
        });
        let nets = nets.collect();
        let shared = plan.shared_memory || plan.filesystem.is_some();
        let filesystems = plan.filesystem.into_iter().map(|server| {
            let socket = FilesystemSocket::Fd(server.as_raw_fd());
            inherited.push(server);
            FilesystemConfig { tag: shared::TAG.into(), socket }
        });
        let filesystems = filesystems.collect();
        let config = VmConfig {
            kernel: assets.kernel.clone(),
            initramfs: Some(assets.initramfs.clone()),
            cmdline: CMDLINE.into(),
            vcpus: plan.vcpus,
            mem_size_mib: plan.mem_size_mib,
            memory: MemoryConfig { shared, ..Default::default() },
            cpu_template: CpuTemplate::Host,
            balloon: Some(BalloonConfig {
                target_mib: 0,
                stats: false,
                free_page_reporting: true,
                late: true,
            }),
            disks: plan.disks,
            spare_disks: plan.spare_disks,
            nets,
            spare_nets: plan.spare_nets,
            filesystems,
            // The VMM begins in the directory: its own path may be longer than that of a socket.
            vsock: Some(VsockConfig { guest_cid: GUEST_CID, socket: guest_socket(Path::new("")) }),
            console: Some(console.clone()),
            rng: true,
            jail: Some(JailConfig { uid, cgroup: plan.cgroup, seccomp: SeccompMode::Kill }),
        };
        let config_path = dir.join("vm.json");
        let json =
            serde_json::to_vec(&config).map_err(io::Error::from).map_err(Error::io("write", &config_path))?;
        fs::write(&config_path, json).map_err(Error::io("write", &config_path))?;
        let log_file = File::create(&log).map_err(Error::io("create", &log))?;

        let mut command = Command::new(&assets.vmm);
        command
            .arg("run")
            .arg("--config")
            .arg(&config_path)
            .arg("--control")
            .arg(control_path(Path::new("")))
            .current_dir(dir.path());
        command.arg("--lifeline").arg(lifeline_number.to_string());
        command.arg("--lock").arg(lock_number.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log_file).kill_on_drop(true);
        // A terminal sends its signals to husk's whole group: they are for the container, not for the VM's existence.
        command.process_group(0);
        inherit(&mut command, inherited);
        let child = command.spawn().map_err(|source| Error::Spawn {
            program: assets.vmm.display().to_string(),
            hint: "install husk completely",
            source,
        })?;
        let background = JoinSet::new();
        Ok(Self { child, background, _lifeline: lifeline, control, console, log })
    }

    /// Its process id, while it lives.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Returns when it has ended, and why it did.
    pub(crate) async fn ended(&mut self) -> String {
        // One that can't be waited for is not there.
        let _ = self.child.wait().await;
        self.last_words()
    }

    /// Ends it at once.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        self.child.kill().await.map_err(Error::io("end", &self.control))
    }

    /// Why a VMM that has ended did so: its own message, and the end of the guest's console.
    fn last_words(&mut self) -> String {
        let said = tail(&self.log).unwrap_or_else(|| match self.child.try_wait() {
            Ok(Some(status)) => describe(status).into(),
            _ => "the VMM said nothing".into(),
        });
        match self.console_tail() {
            Some(console) => format!("{said}; its console ends with:\n{console}"),
            None => said,
        }
    }

    fn console_tail(&self) -> Option<String> {
        tail(&self.console)
    }
}

fn describe(status: ExitStatus) -> &'static str {
    match status.code() {
        Some(0) => "the guest powered off",
        Some(10) => "the guest's kernel panicked or reset the machine",
        Some(_) => "the VMM failed",
        None => "the VMM was killed",
    }
}

/// Lets the command's process have these descriptors, under the same numbers.
pub(crate) fn inherit(command: &mut Command, fds: Vec<OwnedFd>) {
    let keep_open = move || {
        for fd in &fds {
            let fd: RawFd = fd.as_raw_fd();
            // SAFETY: fcntl with F_SETFD touches no memory; the descriptor is owned by this closure and open.
            if unsafe { libc::fcntl(fd, libc::F_SETFD, 0) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes only fcntl calls, which are async-signal-safe.
    unsafe { command.pre_exec(keep_open) };
}

/// The last lines of a text file, made safe to print; `None` when there are none.
pub(crate) fn tail(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let len = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(CONSOLE_BYTES))).ok()?;
    let mut bytes = Vec::new();
    file.take(CONSOLE_BYTES).read_to_end(&mut bytes).ok()?;
    let text: String = String::from_utf8_lossy(&bytes)
        .chars()
        .filter(|c| *c == '\n' || *c == '\t' || !c.is_control())
        .collect();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(CONSOLE_LINES)..];
    (!last.is_empty()).then(|| last.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_console_is_cut_and_cleaned() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console");
        assert_eq!(tail(&path), None);
        fs::write(&path, "\n\n").unwrap();
        assert_eq!(tail(&path), None);
        let many: String = (0..1000).map(|n| format!("line {n}\x1b[2J\r\n")).collect();
        fs::write(&path, many).unwrap();
        let tail = tail(&path).unwrap();
        assert_eq!(tail.lines().count(), CONSOLE_LINES);
        assert!(tail.ends_with("line 999[2J") && !tail.contains('\x1b'), "{tail:?}");
    }
}
