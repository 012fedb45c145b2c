//! Disk and network of husk's VMM beside QEMU's microvm: the same guest does the same work, by fio and iperf3, on the same file
//! and the same tap.

use std::{
    fs::{self, File},
    net::TcpListener,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    mount::{MsFlags, mount},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, unshare},
    sys::signal::Signal,
};
use serde_json::json;

use super::{bare::MEM_SIZE_MIB, install::Installed, process::Running};
use crate::{
    plan::Plan,
    result::{Measurement, Mode},
    tree::{succeed, tool},
};

/// Where the guest's data and all that it is run with lie in memory, so that no disk is measured.
const WORK: &str = "/mnt";
const HOST: &str = "192.168.77.1";
const TAP: &str = "tap0";
const MAC: &str = "02:00:00:00:00:01";
const CMDLINE: &str = "quiet panic=-1 random.trust_cpu=on root=/dev/vda ro console=ttyS0 init=/bench/io.sh";
/// Port on which connections are taken and closed.
const CONNECTIONS: u16 = 5202;
/// Size of the disk that is measured.
const DISK_BYTES: usize = 64 << 20;
/// A guest that has not ended after so many seconds of the wall's time is ended: the lab lost guests now and then.
const LIMIT: Duration = Duration::from_secs(300);
const TRIES: u32 = 3;
/// The wall's time in seconds: in the lab the clock is virtual, and the machine has this one in hardware.
const WALL: &str = "/sys/class/rtc/rtc0/since_epoch";

/// Measures all of it.
pub(crate) fn measure(plan: &Plan, installed: &Installed) -> Result<(Vec<Measurement>, u32)> {
    let qemu =
        plan.peers.qemu.as_ref().context("QEMU is not installed, and the suite is a comparison with it")?;
    let root = plan.files.io_root.as_ref().context("the guest to be measured in is missing")?;
    prepare(installed)?;
    let _idle = (plan.mode == Mode::Deterministic).then(instead_of_idling).transpose()?;
    let _iperf = Running::start(tool("iperf3").arg("-s").stdout(Stdio::null()).stderr(Stdio::null()))?;
    let listener = TcpListener::bind((HOST, CONNECTIONS)).context("cannot listen for the guest")?;
    std::thread::spawn(move || while listener.accept().is_ok() {});

    let vmms = [husk(installed, root)?, microvm(qemu, root)];
    let (mut all, mut lost): (Vec<Measurement>, u32) = (Vec::new(), 0);
    for round in 1..=plan.rounds {
        for vmm in &vmms {
            eprintln!("round {round} of {}: {}", plan.rounds, vmm.label);
            let (figures, again) = vmm.run()?;
            lost += again;
            for figure in figures {
                add(&mut all, vmm, figure);
            }
        }
    }
    // Those of the same name side by side, in the order in which they were measured.
    let order: Vec<String> = all.iter().map(|measurement| measurement.group.clone()).collect();
    all.sort_by_key(|measurement| order.iter().position(|group| *group == measurement.group));
    Ok((all, lost))
}

/// Mounts, the disk, and the tap.
fn prepare(installed: &Installed) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace")?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("work"), WORK, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
        .context("cannot mount a tmpfs")?;
    succeed(tool("modprobe").args(["-a", "tun", "loop"]))?;
    let (image, data) = (format!("{WORK}/ext4"), format!("{WORK}/data"));
    File::create(&image)?.set_len(512 << 20)?;
    succeed(tool("mke2fs").args(["-q", "-t", "ext4", &image]))?;
    fs::create_dir(&data)?;
    succeed(tool("mount").args(["-o", "loop,noatime", &image, &data]))?;
    fs::write(disk(), vec![0; DISK_BYTES])?;
    std::os::unix::fs::chown(disk(), Some(70000), None)?;
    fs::copy(&installed.kernel, format!("{WORK}/vmlinux"))?;
    fs::copy(&installed.vmm, format!("{WORK}/husk-vmm"))?;
    for line in [
        format!("tuntap add {TAP} mode tap vnet_hdr"),
        format!("address add {HOST}/24 dev {TAP}"),
        format!("link set {TAP} up"),
    ] {
        succeed(tool("ip").args(line.split(' ')))?;
    }
    Ok(())
}

fn disk() -> PathBuf {
    Path::new(WORK).join("data/disk")
}

/// In the lab's deterministic mode idle CPUs poll, and the instruction by which they do takes the emulator ten times longer
/// than others: something that nothing else waits for takes the place of idling.
fn instead_of_idling() -> Result<Running> {
    Running::start(tool("chrt").args(["--idle", "0", "sh", "-c", "while :; do :; done"]))
}

struct Vmm {
    label: &'static str,
    command: Vec<String>,
    console: PathBuf,
}

fn husk(installed: &Installed, root: &Path) -> Result<Vmm> {
    let console = Path::new(WORK).join("husk.console");
    let config = json!({
        "kernel": installed.kernel, "vcpus": 1, "mem_size_mib": MEM_SIZE_MIB, "console": console, "cmdline": CMDLINE,
        "disks": [{"id": "root", "path": root, "read_only": true}, {"id": "data", "path": disk(), "read_only": false}],
        "nets": [{"id": "eth0", "tap": {"name": TAP}, "mac": MAC}], "jail": {"uid": 70000},
    });
    let file = format!("{WORK}/husk.json");
    fs::write(&file, config.to_string())?;
    let command = [&format!("{WORK}/husk-vmm"), "run", "--config", &file].map(str::to_owned).to_vec();
    Ok(Vmm { label: "husk-vmm", command, console })
}

fn microvm(qemu: &Path, root: &Path) -> Vmm {
    let console = Path::new(WORK).join("qemu.console");
    let (root, disk, out) = (root.display(), disk().display().to_string(), console.display().to_string());
    let line = format!(
        "{} -M microvm,acpi=off,x-option-roms=off,rtc=off,isa-serial=on -enable-kvm -cpu host -smp 1 -m {MEM_SIZE_MIB} \
         -nodefaults -no-user-config -no-reboot -display none -serial file:{out} -kernel {WORK}/vmlinux \
         -object iothread,id=io \
         -drive if=none,id=root,format=raw,readonly=on,file={root} -device virtio-blk-device,drive=root \
         -drive if=none,id=data,format=raw,cache=writeback,aio=io_uring,file={disk} \
         -device virtio-blk-device,drive=data,iothread=io \
         -netdev tap,id=net,ifname={TAP},script=no,downscript=no,vhost=off \
         -device virtio-net-device,netdev=net,mac={MAC} -append",
        qemu.display()
    );
    let mut command: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    command.push(format!("{CMDLINE} reboot=t"));
    Vmm { label: "QEMU microvm", command, console }
}

/// A line `figure NAME UNIT VALUE` of the guest's.
#[derive(Debug, PartialEq)]
struct Figure {
    name: String,
    unit: String,
    value: f64,
}

impl Vmm {
    /// What a guest says, in some tries; and how many of them were lost.
    fn run(&self) -> Result<(Vec<Figure>, u32)> {
        for lost in 0..TRIES {
            nix::unistd::sync();
            let _ = fs::remove_file(&self.console);
            let log = File::create(format!("{WORK}/log"))?;
            let mut command = Command::new(&self.command[0]);
            command.args(&self.command[1..]).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
            wait(Running::start(&mut command)?)?;
            let said = fs::read_to_string(&self.console).unwrap_or_default();
            if said.lines().any(|line| line.trim() == "finished") {
                return Ok((figures(&said)?, lost));
            }
            let log = fs::read_to_string(format!("{WORK}/log")).unwrap_or_default();
            eprintln!("the guest of {} did not finish; it said {said:?}, and its VMM {log:?}", self.label);
        }
        bail!("of {TRIES} guests of {} none finished", self.label)
    }
}

fn figures(said: &str) -> Result<Vec<Figure>> {
    let lines = said.lines().filter_map(|line| line.trim().strip_prefix("figure "));
    lines
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let [name, unit, value] = words[..] else { bail!("the guest said {line:?}") };
            let value: f64 = value.parse().with_context(|| format!("the guest said {line:?}"))?;
            ensure!(value.is_finite() && value > 0.0, "the guest said {line:?}");
            Ok(Figure { name: name.replace('-', " "), unit: unit.into(), value })
        })
        .collect()
}

/// Waits for a VMM's end. No program is started meanwhile: that would be measured.
fn wait(vmm: Running) -> Result<()> {
    let ended = vmm.pidfd()?;
    let begun = wall();
    loop {
        let mut polled = [PollFd::new(ended.as_fd(), PollFlags::POLLIN)];
        if poll(&mut polled, PollTimeout::from(300_u16))? > 0 {
            return vmm.wait().map(drop);
        }
        if wall().saturating_sub(begun) > LIMIT {
            eprintln!("a guest has not ended in {} s", LIMIT.as_secs());
            vmm.signal(Signal::SIGKILL)?;
            return vmm.wait().map(drop);
        }
    }
}

fn wall() -> Duration {
    let rtc =
        fs::read_to_string(WALL).ok().and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
    rtc.unwrap_or_else(|| SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

fn add(all: &mut Vec<Measurement>, vmm: &Vmm, figure: Figure) {
    let id = format!("{} {}", figure.name, vmm.label).to_lowercase().replace(' ', "-");
    if let Some(known) = all.iter_mut().find(|measurement| measurement.id == id) {
        known.samples.push(figure.value);
        return;
    }
    all.push(Measurement {
        id,
        group: figure.name,
        label: vmm.label.into(),
        own: vmm.label.starts_with("husk"),
        more_is_better: figure.unit != "us",
        unit: figure.unit,
        along: None,
        samples: vec![figure.value],
        stages: Vec::new(),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_says_is_read() {
        let said = "noise\r\nfigure random-read-4k IOPS 123.5\r\nfigure ping us 80\r\nfinished\r\n";
        let expected = |name: &str, unit: &str, value| Figure { name: name.into(), unit: unit.into(), value };
        assert_eq!(
            figures(said).unwrap(),
            [expected("random read 4k", "IOPS", 123.5), expected("ping", "us", 80.0)]
        );
        for bad in ["figure a b", "figure a b c d", "figure a b c", "figure a b 0", "figure a b NaN"] {
            assert!(figures(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rounds_become_samples() {
        let vmm = Vmm { label: "husk-vmm", command: Vec::new(), console: PathBuf::new() };
        let mut all = Vec::new();
        for value in [1.0, 2.0] {
            add(&mut all, &vmm, Figure { name: "ping".into(), unit: "us".into(), value });
        }
        assert_eq!(
            (all.len(), all[0].samples.as_slice(), all[0].more_is_better),
            (1, &[1.0, 2.0][..], false)
        );
    }
}
