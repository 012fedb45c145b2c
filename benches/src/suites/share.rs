//! A directory of the host shared with a guest (virtio-fs): husk-vmm with husk-fs beside QEMU's microvm with virtiofsd. The same
//! kernel and the same init (`benches/guest/fs.c`) do the same work on the same kind of directory.

use std::{
    fs,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    poll::{PollFd, PollFlags, poll},
};
use serde_json::json;

use super::{
    bare::{JAIL_UID, MEM_SIZE_MIB},
    figures::{self, Figure},
    process::Running,
};
use crate::{measure::retried, plan::Plan, result::Measurement};

/// What the guest says, its unit, and in words.
const FIGURES: [(&str, &str, &str); 7] = [
    ("sequential-read", "MB/s", "Read a file of 32 MiB, which the guest has not read before"),
    ("sequential-write", "MB/s", "Write a file of 16 MiB"),
    ("small-create", "files/s", "Make and write 300 files of 4 KiB"),
    ("small-list", "files/s", "List directories, and look at each of their 300 files"),
    ("small-stat", "files/s", "Look at 300 files by their paths"),
    ("small-read", "files/s", "Open, read and close 300 files of 4 KiB"),
    ("small-remove", "files/s", "Remove 300 files"),
];
const BIG_FILE_LEN: usize = 32 << 20;
const TAG: &str = "share";
const CMDLINE: &str = "quiet panic=-1 random.trust_cpu=on console=ttyS0";
/// How long a guest may take, in seconds of the wall's clock, and how often that is looked at, in milliseconds.
const TIMEOUT_S: u64 = 240;
const LOOK_MS: u16 = 300;

/// Measures both. The second result is how many rounds were lost and done again.
pub(super) fn measure(plan: &Plan, work: &Path) -> Result<(Vec<Measurement>, u32)> {
    let bench = Bench::new(plan, work)?;
    let (mut all, mut lost) = (Vec::new(), 0);
    for (what, unit, words) in FIGURES {
        for server in [Server::Virtiofsd, Server::HuskFs] {
            all.push(Measurement {
                id: format!("{what}-{}", server.name()),
                group: words.into(),
                label: server.label().into(),
                own: server == Server::HuskFs,
                unit: unit.into(),
                more_is_better: true,
                along: None,
                samples: Vec::new(),
                stages: Vec::new(),
                counts: Vec::new(),
            });
        }
    }
    for round in 0..plan.warmups + plan.rounds {
        for server in [Server::Virtiofsd, Server::HuskFs] {
            eprintln!("round {} of {}: {}", round + 1, plan.warmups + plan.rounds, server.label());
            let (figures, again) = retried(server.label(), || bench.run(server))?;
            lost += again;
            if round < plan.warmups {
                continue;
            }
            for (what, ..) in FIGURES {
                let id = format!("{what}-{}", server.name());
                let found = figures.iter().find(|figure| figure.name == what);
                let value = found.with_context(|| format!("the guest said nothing of {what}"))?.value;
                all.iter_mut()
                    .filter(|measurement| measurement.id == id)
                    .for_each(|found| found.samples.push(value));
            }
        }
    }
    Ok((all, lost))
}

/// Who serves the directory, each with its own VMM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Server {
    Virtiofsd,
    HuskFs,
}

impl Server {
    fn name(self) -> &'static str {
        match self {
            Self::Virtiofsd => "virtiofsd",
            Self::HuskFs => "husk",
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Virtiofsd => "QEMU microvm, virtiofsd",
            Self::HuskFs => "husk-vmm, husk-fs",
        }
    }
}

/// All that it takes, in memory.
struct Bench {
    vmm: PathBuf,
    filesystem: PathBuf,
    kernel: PathBuf,
    initramfs: PathBuf,
    qemu: PathBuf,
    virtiofsd: PathBuf,
    dir: PathBuf,
    shared: PathBuf,
    socket: PathBuf,
    console: PathBuf,
}

impl Bench {
    fn new(plan: &Plan, work: &Path) -> Result<Self> {
        let copy = |from: &Path| -> Result<PathBuf> {
            let to = work.join(from.file_name().context("a file has no name")?);
            fs::copy(from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
            Ok(to)
        };
        let shared = work.join("shared");
        fs::create_dir(&shared)?;
        fs::write(shared.join("big"), vec![0x5a; BIG_FILE_LEN])?;
        Ok(Self {
            vmm: copy(&plan.files.vmm)?,
            filesystem: copy(&plan.files.filesystem)?,
            kernel: copy(&plan.files.kernel)?,
            initramfs: copy(&plan.files.share_guest)?,
            qemu: plan.peers.qemu.clone().context("there is no QEMU")?,
            virtiofsd: plan.peers.virtiofsd.clone().context("there is no virtiofsd")?,
            dir: work.into(),
            shared,
            socket: work.join("socket"),
            console: work.join("console"),
        })
    }

    /// Boots a guest that does its work; returns its figures.
    fn run(&self, server: Server) -> Result<Vec<Figure>> {
        for path in [&self.socket, &self.console] {
            if path.exists() {
                fs::remove_file(path)?;
            }
        }
        for left in ["small", "new"].map(|name| self.shared.join(name)) {
            // What a guest that was lost had made.
            if left.is_dir() {
                fs::remove_dir_all(left)?;
            } else if left.exists() {
                fs::remove_file(left)?;
            }
        }
        let listener = inheritable(UnixListener::bind(&self.socket)?)?;
        let log = fs::File::create(self.dir.join("server.log"))?;
        let mut command = self.server(server, &listener);
        let _server = Running::start(command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log))?;
        drop(listener);
        let mut vmm = match server {
            Server::HuskFs => self.husk()?,
            Server::Virtiofsd => self.microvm(),
        };
        let ended = run_to_end(vmm.stdin(Stdio::null()).stdout(Stdio::null()));
        let said = fs::read_to_string(&self.console).unwrap_or_default();
        if !said.lines().any(|line| line.trim() == "finished") {
            let log = fs::read_to_string(self.dir.join("server.log")).unwrap_or_default();
            bail!("the guest did not finish: it said {said:?}; its VMM: {ended:?}; its server {log:?}");
        }
        figures::read(&said)
    }

    /// The server of the directory, on an inherited socket.
    fn server(&self, server: Server, listener: &OwnedFd) -> Command {
        let number = listener.as_raw_fd().to_string();
        let mut command;
        match server {
            Server::HuskFs => {
                command = Command::new(&self.filesystem);
                command.arg("--root").arg(&self.shared).arg("--listen").arg(number);
            }
            Server::Virtiofsd => {
                command = Command::new(&self.virtiofsd);
                // The same policy as husk-fs has by default; all else is virtiofsd's default.
                command.args(["--cache", "auto", "--fd", &number, "--shared-dir"]).arg(&self.shared);
            }
        }
        command
    }

    fn husk(&self) -> Result<Command> {
        let config = self.dir.join("vm.json");
        let text = json!({"kernel": self.kernel, "initramfs": self.initramfs, "cmdline": CMDLINE, "vcpus": 1,
            "mem_size_mib": MEM_SIZE_MIB, "memory": {"shared": true}, "console": self.console, "jail": {"uid": JAIL_UID},
            "filesystems": [{"tag": TAG, "socket": {"path": self.socket}}]});
        fs::write(&config, text.to_string())?;
        let mut command = Command::new(&self.vmm);
        command.arg("run").arg("--config").arg(config);
        Ok(command)
    }

    fn microvm(&self) -> Command {
        let mut command = Command::new(&self.qemu);
        let words = format!(
            "-M microvm,acpi=off,x-option-roms=off,rtc=off,isa-serial=on,memory-backend=mem -enable-kvm -cpu host \
             -smp 1 -m {MEM_SIZE_MIB} -nodefaults -no-user-config -no-reboot -display none \
             -global virtio-mmio.force-legacy=false -object memory-backend-memfd,id=mem,size={MEM_SIZE_MIB}M,share=on \
             -device vhost-user-fs-device,chardev=fs,tag={TAG}"
        );
        command.args(words.split_whitespace());
        command.arg("-chardev").arg(format!("socket,id=fs,path={}", self.socket.display()));
        command.arg("-serial").arg(format!("file:{}", self.console.display()));
        command.arg("-kernel").arg(&self.kernel).arg("-initrd").arg(&self.initramfs);
        command.args(["-append", &format!("{CMDLINE} reboot=t")]);
        command
    }
}

/// Runs a VMM to its end, which is made by force when it takes too long by the wall's clock: the lab loses a guest now and then
/// (docs/lab.md), and its own clock hardly moves meanwhile.
fn run_to_end(command: &mut Command) -> Result<ExitStatus> {
    let vmm = Running::start(command)?;
    let (ended, started) = (vmm.pidfd()?, wall_s());
    while poll(&mut [PollFd::new(ended.as_fd(), PollFlags::POLLIN)], LOOK_MS)? == 0 {
        ensure!(wall_s().saturating_sub(started) < TIMEOUT_S, "it took more than {TIMEOUT_S} s");
    }
    vmm.wait()
}

/// Seconds of the wall's clock, which the lab's machine has in its hardware clock only.
fn wall_s() -> u64 {
    let clock = fs::read_to_string("/sys/class/rtc/rtc0/since_epoch");
    clock.ok().and_then(|seconds| seconds.trim().parse().ok()).unwrap_or(0)
}

/// A listener that children get, under the same number.
fn inheritable(listener: UnixListener) -> Result<OwnedFd> {
    fcntl(&listener, FcntlArg::F_SETFD(FdFlag::empty())).context("cannot pass a socket on")?;
    Ok(listener.into())
}
