//! Disk and network of the VMM, beside QEMU's microvm: the same guest does the same work, by fio and iperf3, on the same file
//! of the host and the same tap.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result};
use serde_json::json;

use super::{
    figures::{self, Figure},
    install::Installed,
    process::{Running, timed},
    streams,
    watch::Console,
};
use crate::{
    measure::retried,
    plan::Plan,
    result::{Measurement, Mode},
    tree::{succeed, tool},
};

const MEM_SIZE_MIB: u32 = 512;
const DISK_MIB: u64 = 64;
const CMDLINE: &str = "quiet panic=-1 random.trust_cpu=on root=/dev/vda ro console=ttyS0 init=/bench/io.sh";
const MAC: &str = "02:00:00:00:00:01";
const TAP: &str = "tap0";
/// The host's address on the tap, and the port on which it takes connections and drops them.
const ADDRESS: &str = "192.168.77.1";
const PORT: u16 = 5202;

/// Measures all of it. The second result is how many rounds were lost and done again.
pub(crate) fn measure(plan: &Plan, installed: &Installed) -> Result<(Vec<Measurement>, u32)> {
    let root = plan.files.io_root.as_deref().context("the plan has no root file system")?;
    let _idle = match plan.mode {
        Mode::Deterministic => Some(instead_of_idling()?),
        Mode::Wall => None,
    };
    let host = Host::new(installed, root)?;
    let mut subjects = vec![host.husk(installed)?];
    if let Some(qemu) = &plan.peers.qemu {
        subjects.push(host.qemu(installed, qemu)?);
    }
    let (mut all, mut lost) = (Vec::new(), 0);
    for number in 0..plan.rounds {
        for (index, subject) in subjects.iter().enumerate() {
            eprintln!("round {} of {}: {}", number + 1, plan.rounds, subject.label);
            let (figures, again) = retried(subject.label, || host.run(subject))?;
            lost += again;
            for figure in figures {
                add(&mut all, subject, index == 0, figure);
            }
        }
    }
    all.sort_by_key(|one: &Measurement| one.group.clone());
    all.extend(streams::measure(plan, installed)?);
    Ok((all, lost))
}

/// An idle CPU polls in the lab's deterministic mode, by an instruction that takes the emulator ten times longer than others:
/// something that nothing else waits for takes its place.
fn instead_of_idling() -> Result<Running> {
    let mut command = tool("chrt");
    command.args(["--idle", "0", "sh", "-c", "while :; do :; done"]).stdin(Stdio::null());
    Running::start(&mut command)
}

/// What both VMMs work on.
struct Host {
    root: PathBuf,
    disk: PathBuf,
    console: PathBuf,
    _iperf3: Running,
}

/// A VMM with its guest.
struct Vmm {
    id: &'static str,
    label: &'static str,
    program: PathBuf,
    args: Vec<String>,
}

impl Host {
    fn new(installed: &Installed, root: &Path) -> Result<Self> {
        super::own_mounts()?;
        succeed(tool("modprobe").args(["-a", "tun", "loop"]))?;
        // An ext4 in memory, so that no disk is measured.
        let memory = installed.work.join("io");
        fs::create_dir(&memory)?;
        succeed(tool("mount").args(["-t", "tmpfs", "-o", "mode=755", "io"]).arg(&memory))?;
        let (image, data) = (memory.join("ext4"), memory.join("data"));
        fs::create_dir(&data)?;
        fs::File::create(&image)?.set_len(512 << 20)?;
        succeed(tool("mke2fs").args(["-q", "-t", "ext4"]).arg(&image))?;
        succeed(tool("mount").args(["-o", "loop,noatime"]).arg(&image).arg(&data))?;
        let disk = data.join("disk");
        fs::write(&disk, vec![0; usize::try_from(DISK_MIB << 20)?])?;
        std::os::unix::fs::chown(&disk, Some(super::bare::JAIL_UID), None)?;

        succeed(tool("ip").args(["tuntap", "add", TAP, "mode", "tap", "vnet_hdr"]))?;
        succeed(tool("ip").args(["address", "add", &format!("{ADDRESS}/24"), "dev", TAP]))?;
        succeed(tool("ip").args(["link", "set", TAP, "up"]))?;
        let mut server = tool("iperf3");
        server.arg("-s").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let iperf3 = Running::start(&mut server)?;
        let listener = TcpListener::bind((ADDRESS, PORT)).context("cannot listen on the tap")?;
        // Each connection is dropped as soon as it is there; the thread ends with the process.
        std::thread::spawn(move || while listener.accept().is_ok() {});
        Ok(Self { root: root.into(), disk, console: installed.work.join("io.console"), _iperf3: iperf3 })
    }

    fn husk(&self, installed: &Installed) -> Result<Vmm> {
        let config = json!({
            "kernel": installed.kernel, "vcpus": 1, "mem_size_mib": MEM_SIZE_MIB, "console": self.console, "cmdline": CMDLINE,
            "disks": [{"id": "root", "path": self.root, "read_only": true}, {"id": "data", "path": self.disk, "read_only": false}],
            "nets": [{"id": "eth0", "tap": {"name": TAP}, "mac": MAC}], "jail": {"uid": super::bare::JAIL_UID},
        });
        let path = installed.work.join("io.json");
        fs::write(&path, config.to_string())?;
        let args = ["run".into(), "--config".into(), path.display().to_string()].into();
        Ok(Vmm { id: "husk", label: "husk-vmm, jailed", program: installed.vmm.clone(), args })
    }

    fn qemu(&self, installed: &Installed, program: &Path) -> Result<Vmm> {
        // Its libraries are read from the lab's shared files once, before anything is measured.
        timed(Command::new(program).arg("--version"))?;
        let (root, disk) = (self.root.display(), self.disk.display());
        let (console, kernel) = (self.console.display(), installed.kernel.display());
        let words = format!(
            "-M microvm,acpi=off,x-option-roms=off,rtc=off,isa-serial=on -enable-kvm -cpu host -smp 1 -m {MEM_SIZE_MIB} \
             -nodefaults -no-user-config -no-reboot -display none -serial file:{console} -kernel {kernel} -object iothread,id=io \
             -drive if=none,id=root,format=raw,readonly=on,file={root} -device virtio-blk-device,drive=root \
             -drive if=none,id=data,format=raw,cache=writeback,aio=io_uring,file={disk} \
             -device virtio-blk-device,drive=data,iothread=io \
             -netdev tap,id=net,ifname={TAP},script=no,downscript=no,vhost=off -device virtio-net-device,netdev=net,mac={MAC}"
        );
        let mut args: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        args.extend(["-append".into(), format!("{CMDLINE} reboot=t")]);
        Ok(Vmm { id: "qemu", label: "QEMU microvm", program: program.into(), args })
    }

    /// What a guest of this VMM says.
    fn run(&self, vmm: &Vmm) -> Result<Vec<Figure>> {
        let console = Console::new(&self.console)?;
        let running = Running::start(Command::new(&vmm.program).args(&vmm.args).stdin(Stdio::null()))?;
        console.wait_for("finished", &running)?;
        running.wait()?;
        figures::read(&fs::read_to_string(&self.console)?)
    }
}

fn add(all: &mut Vec<Measurement>, vmm: &Vmm, own: bool, figure: Figure) {
    let id = format!("{}-{}", figure.name, vmm.id);
    if let Some(known) = all.iter_mut().find(|known| known.id == id) {
        known.samples.push(figure.value);
        return;
    }
    all.push(Measurement {
        id,
        more_is_better: figure.unit != "us",
        group: figure.name.replace('-', " "),
        label: vmm.label.into(),
        own,
        unit: figure.unit,
        along: None,
        samples: vec![figure.value],
        stages: Vec::new(),
        counts: Vec::new(),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_rounds_come_together() {
        let vmm = Vmm { id: "husk", label: "husk-vmm", program: PathBuf::new(), args: Vec::new() };
        let mut all = Vec::new();
        for figure in figures::read("figure ping us 78.5\nfigure tcp Mbit/s 4000\nfigure ping us 70").unwrap()
        {
            add(&mut all, &vmm, true, figure);
        }
        assert_eq!((all[0].samples.as_slice(), all[0].more_is_better), (&[78.5, 70.0][..], false));
        assert_eq!((all[1].id.as_str(), all[1].more_is_better), ("tcp-husk", true));
    }
}
