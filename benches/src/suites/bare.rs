//! VMs without containers: husk's VMM, jailed and not, beside others, with the same kernel and the same tiny init.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{
    exits::{CPU_END_MS, CPU_START_MS, cpu_times, ended_cpu_ms, exits},
    install::Installed,
    process::{Running, timed},
    watch::Console,
};
use crate::{
    measure::{Round, Subject, ms_between, now_ns},
    plan::{Plan, Suite},
};

/// Memory of the guests.
pub(crate) const MEM_SIZE_MIB: u32 = 512;
/// The user that a jailed VMM runs as.
pub(super) const JAIL_UID: u32 = 70000;
/// What `benches/guest/mark.S` says.
const MARK: &str = "U";
const START: &str = "A bare VM: start, user space, told to end";
const EXIT: &str = "A bare VM: start to exit of a guest that ends at once";
/// A line of the init goes straight to the port: no serial driver is set up.
const CMDLINE: &str = "quiet panic=-1 printk.time=0 8250.nr_uarts=0 random.trust_cpu=on";
const EARLY: &str = "earlyprintk=ttyS0,keep";

/// All that is there.
pub(crate) fn subjects<'a>(plan: &'a Plan, installed: &'a Installed) -> Result<Vec<Subject<'a>>> {
    let husk = Husk::new(installed)?;
    let mut subjects = vec![husk.start("bare-start-jailed", "husk-vmm, jailed", true)];
    if plan.suite == Suite::Gate {
        subjects.extend(plan.peers.qemu.iter().map(|qemu| Peer::qemu(installed, qemu).start(installed)));
        return Ok(subjects);
    }
    subjects.push(husk.start("bare-start", "husk-vmm", false));
    let mut peers = Vec::new();
    if let Some(qemu) = &plan.peers.qemu {
        peers.push(Peer::qemu(installed, qemu));
    }
    if let Some(firecracker) = &plan.peers.firecracker {
        peers.push(Peer::firecracker(installed, firecracker)?);
    }
    if let Some(cloud_hypervisor) = &plan.peers.cloud_hypervisor {
        peers.push(Peer::cloud_hypervisor(installed, cloud_hypervisor));
    }
    subjects.extend(peers.iter().cloned().map(|peer| peer.start(installed)));
    subjects.push(husk.exit("bare-exit-jailed", "husk-vmm, jailed", true));
    subjects.push(husk.exit("bare-exit", "husk-vmm", false));
    // Cloud Hypervisor starts a guest anew that resets itself.
    subjects.extend(peers.into_iter().filter(|peer| !peer.exit.is_empty()).map(Peer::exit));
    Ok(subjects)
}

/// husk's VMM: its four configurations.
struct Husk {
    vmm: PathBuf,
    dir: PathBuf,
    console: PathBuf,
}

impl Husk {
    fn new(installed: &Installed) -> Result<Self> {
        let this = Self {
            vmm: installed.vmm.clone(),
            dir: installed.work.clone(),
            console: installed.work.join("husk.console"),
        };
        for jailed in [true, false] {
            let mut config = json!({"kernel": installed.kernel, "vcpus": 1, "mem_size_mib": MEM_SIZE_MIB, "rng": false,
                "cmdline": CMDLINE, "initramfs": installed.reboot});
            if jailed {
                config["jail"] = json!({"uid": JAIL_UID});
            }
            fs::write(this.config("exit", jailed), config.to_string())?;
            config["initramfs"] = json!(installed.mark);
            config["cmdline"] = json!(format!("{CMDLINE} {EARLY}"));
            config["console"] = json!(this.console);
            fs::write(this.config("start", jailed), config.to_string())?;
        }
        Ok(this)
    }

    fn config(&self, what: &str, jailed: bool) -> PathBuf {
        self.dir.join(format!("{what}-{}.json", if jailed { "jailed" } else { "bare" }))
    }

    fn command(&self, config: &Path) -> Command {
        let mut command = Command::new(&self.vmm);
        command.arg("run").arg("--config").arg(config).stdin(Stdio::null());
        command
    }

    fn exit<'a>(&self, id: &str, label: &str, jailed: bool) -> Subject<'a> {
        let mut command = self.command(&self.config("exit", jailed));
        subject(id, EXIT, label, true, move || {
            Ok(Round { total_ms: timed(&mut command)?.0, ..Round::default() })
        })
    }

    fn start<'a>(&self, id: &str, label: &str, jailed: bool) -> Subject<'a> {
        let control = self.dir.join("control");
        let mut command = self.command(&self.config("start", jailed));
        command.arg("--control").arg(&control);
        let path = self.console.clone();
        subject(id, START, label, true, move || {
            // A VMM that was killed leaves it.
            let _ = fs::remove_file(&control);
            let console = Console::new(&path)?;
            let start = now_ns();
            let vmm = Running::start(&mut command)?;
            console.wait_for(MARK, &vmm)?;
            let marked = now_ns();
            let counts = exits();
            let mut socket = Control::connect(&control)?;
            let state = socket.ask("state")?;
            let at =
                |name: &str| state[name].as_u64().with_context(|| format!("the VMM's state has no {name}"));
            let (main, configured, first) =
                (at("started_ns")?, at("configured_ns")?, at("first_instruction_ns")?);
            let told = now_ns();
            socket.ask("shutdown")?;
            let status = vmm.wait()?;
            let ended = now_ns();
            ensure!(status.success(), "the VMM ended with {status}");
            let stages = [
                ("process made", start, main),
                ("VMM configured", main, configured),
                ("first guest instruction", configured, first),
                ("user space", first, marked),
                ("ended", told, ended),
            ];
            Ok(Round { counts, ..round(&stages) })
        })
    }
}

/// The sum of its stages, and these.
fn round(stages: &[(&str, u64, u64)]) -> Round {
    let stages: Vec<(String, f64)> =
        stages.iter().map(|&(name, from, to)| (name.to_owned(), ms_between(from, to))).collect();
    Round { total_ms: stages.iter().map(|(_, ms)| ms).sum(), stages, counts: Vec::new() }
}

fn subject<'a>(
    id: &str,
    group: &'static str,
    label: &str,
    own: bool,
    run: impl FnMut() -> Result<Round> + 'a,
) -> Subject<'a> {
    Subject { id: id.into(), group, label: label.into(), own, run: Box::new(run) }
}

/// A VMM's control socket: a line asks, a line answers.
struct Control(BufReader<UnixStream>);

impl Control {
    fn connect(path: &Path) -> Result<Self> {
        Ok(Self(BufReader::new(UnixStream::connect(path).context("the VMM has no control socket")?)))
    }

    fn ask(&mut self, what: &str) -> Result<Value> {
        writeln!(self.0.get_mut(), "{}", json!({"op": what}))?;
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let mut answer: Value = serde_json::from_str(&line).context("the VMM's answer is not JSON")?;
        match answer.get_mut("ok") {
            Some(ok) => Ok(ok.take()),
            None => bail!("the VMM refused: {line}"),
        }
    }
}

/// Another VMM: how it runs a guest that says that it runs, and one that ends at once.
#[derive(Debug, Clone)]
struct Peer {
    name: &'static str,
    program: PathBuf,
    start: Vec<String>,
    exit: Vec<String>,
    /// Whether the guest's console is the VMM's standard output.
    console_on_stdout: bool,
}

impl Peer {
    fn qemu(installed: &Installed, program: &Path) -> Self {
        let line = |initramfs: &Path, more: &[&str]| {
            let (kernel, initramfs) = (installed.kernel.display(), initramfs.display());
            let mut words: Vec<String> = format!(
                "-M microvm,acpi=off,x-option-roms=off,rtc=off,isa-serial=on -enable-kvm -cpu host -smp 1 \
                 -m {MEM_SIZE_MIB} -nodefaults -no-user-config -no-reboot -display none -kernel {kernel} \
                 -initrd {initramfs}"
            )
            .split_whitespace()
            .map(str::to_owned)
            .collect();
            words.extend(more.iter().map(|word| (*word).to_owned()));
            words
        };
        let console = format!("file:{}", console(installed).display());
        Self {
            name: "QEMU microvm",
            program: program.into(),
            start: line(
                &installed.mark,
                &["-serial", &console, "-append", &format!("{CMDLINE} {EARLY} reboot=t")],
            ),
            exit: line(&installed.reboot, &["-append", &format!("{CMDLINE} reboot=t")]),
            console_on_stdout: false,
        }
    }

    fn firecracker(installed: &Installed, program: &Path) -> Result<Self> {
        let line = |name: &str, initramfs: &Path, cmdline: String| -> Result<Vec<String>> {
            let config = installed.work.join(name);
            let machine = json!({"vcpu_count": 1, "mem_size_mib": MEM_SIZE_MIB});
            let source = json!({"kernel_image_path": installed.kernel, "initrd_path": initramfs, "boot_args": cmdline});
            let text = json!({"boot-source": source, "machine-config": machine, "drives": []}).to_string();
            fs::write(&config, text)?;
            Ok(vec!["--no-api".into(), "--config-file".into(), config.display().to_string()])
        };
        Ok(Self {
            name: "Firecracker",
            program: program.into(),
            start: line("fc-start.json", &installed.mark, format!("{CMDLINE} {EARLY} reboot=k pci=off"))?,
            exit: line("fc-exit.json", &installed.reboot, format!("{CMDLINE} reboot=k pci=off"))?,
            console_on_stdout: true,
        })
    }

    fn cloud_hypervisor(installed: &Installed, program: &Path) -> Self {
        let console = console(installed);
        let words = [
            "--kernel",
            &installed.kernel.display().to_string(),
            "--initramfs",
            &installed.mark.display().to_string(),
            "--cmdline",
            &format!("{CMDLINE} {EARLY}"),
            "--cpus",
            "boot=1",
            "--memory",
            &format!("size={MEM_SIZE_MIB}M"),
            "--console",
            "off",
            "--serial",
            &format!("file={}", console.display()),
        ];
        Self {
            name: "Cloud Hypervisor",
            program: program.into(),
            start: words.map(str::to_owned).to_vec(),
            exit: Vec::new(),
            console_on_stdout: false,
        }
    }

    fn id(&self, what: &str) -> String {
        format!("bare-{what}-{}", self.name.to_lowercase().replace(' ', "-"))
    }

    fn exit<'a>(self) -> Subject<'a> {
        let mut command = Command::new(&self.program);
        command.args(&self.exit).stdin(Stdio::null());
        subject(&self.id("exit"), EXIT, self.name, false, move || {
            Ok(Round { total_ms: timed(&mut command)?.0, ..Round::default() })
        })
    }

    fn start<'a>(self, installed: &Installed) -> Subject<'a> {
        let path = console(installed);
        subject(&self.id("start"), START, self.name, false, move || {
            let console = Console::new(&path)?;
            let mut command = Command::new(&self.program);
            command.args(&self.start).stdin(Stdio::null()).stderr(Stdio::null()).stdout(Stdio::null());
            if self.console_on_stdout {
                command.stdout(File::options().append(true).open(&path)?);
            }
            let before_ms = ended_cpu_ms()?;
            let start = now_ns();
            let vmm = Running::start(&mut command)?;
            console.wait_for(MARK, &vmm)?;
            let marked = now_ns();
            let mut counts = exits();
            let up_ms: f64 = cpu_times(vmm.id())?.iter().map(|(_, ms)| ms).sum();
            let told = now_ns();
            vmm.signal(Signal::SIGTERM)?;
            vmm.wait()?;
            let ended = now_ns();
            let end_ms = ended_cpu_ms()? - before_ms - up_ms;
            counts.extend([(CPU_START_MS.to_owned(), up_ms), (CPU_END_MS.to_owned(), end_ms)]);
            Ok(Round { counts, ..round(&[("user space", start, marked), ("ended", told, ended)]) })
        })
    }
}

fn console(installed: &Installed) -> PathBuf {
    installed.work.join("peer.console")
}
