//! What the emulated machine is made of, as QEMU's arguments.

use std::{ffi::OsString, path::PathBuf};

/// Descriptors that QEMU inherits, by number: nothing of the lab's has a name in any file system.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Descriptors {
    pub(crate) initramfs: i32,
    pub(crate) console: i32,
    /// Control, stdout, stderr and the pulse, which are ports 1 to 4 inside.
    pub(crate) ports: [i32; 4],
    pub(crate) disk: Option<i32>,
}

/// The machine.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) deterministic: bool,
    pub(crate) cpus: u32,
    pub(crate) memory_mib: u32,
    pub(crate) kernel: PathBuf,
    pub(crate) modules: PathBuf,
    pub(crate) root: PathBuf,
    pub(crate) out: Option<PathBuf>,
    pub(crate) descriptors: Descriptors,
}

impl Machine {
    /// QEMU's command line, the program's name apart.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let mut arguments = Arguments::default();
        arguments.add("-nodefaults", "");
        arguments.add("-no-user-config", "");
        arguments.add("-no-reboot", "");
        arguments.add("-display", "none");
        arguments.add("-machine", "q35,usb=off,smbus=off,sata=off,vmport=off,graphics=off");
        // The software emulation of an AMD CPU is the one that includes nested virtualization.
        arguments.add("-cpu", "EPYC");
        arguments.add("-m", &self.memory_mib.to_string());
        if self.deterministic {
            arguments.add("-accel", "tcg,thread=single,tb-size=1024");
            arguments.add("-icount", "shift=0,sleep=off");
            arguments.add("-smp", "1");
        } else {
            arguments.add("-accel", "tcg,thread=multi,tb-size=1024");
            arguments.add("-smp", &self.cpus.to_string());
        }
        arguments.add_os("-kernel", self.kernel.clone().into());
        arguments.add("-initrd", &format!("/proc/self/fd/{}", self.descriptors.initramfs));
        arguments.add("-append", self.kernel_arguments());
        self.add_ports(&mut arguments);
        arguments.share("root", &self.root, true);
        arguments.share("modules", &self.modules, true);
        if let Some(out) = &self.out {
            arguments.share("out", out, false);
        }
        if let Some(disk) = self.descriptors.disk {
            arguments
                .add("-drive", &format!("if=none,id=disk,format=raw,cache=unsafe,file=/proc/self/fd/{disk}"));
            arguments.add("-device", "virtio-blk-pci,drive=disk");
        }
        arguments.0
    }

    fn kernel_arguments(&self) -> &'static str {
        // Repeatable figures need a kernel that sits in the same place each time, and honest ones its mitigations. An
        // idle CPU that halts makes virtual time jump to the next timer, however far that is, whenever it waits for
        // the host (a 9p request): polling, it waits in instructions.
        if self.deterministic {
            "console=ttyS0 quiet panic=-1 nokaslr idle=poll"
        } else {
            "console=ttyS0 quiet panic=-1 nokaslr mitigations=off no_timer_check"
        }
    }

    fn add_ports(&self, arguments: &mut Arguments) {
        arguments.add("-chardev", &format!("socket,id=console,fd={}", self.descriptors.console));
        arguments.add("-serial", "chardev:console");
        arguments.add("-device", "virtio-serial-pci,max_ports=5");
        for (number, descriptor) in (1..).zip(self.descriptors.ports) {
            arguments.add("-chardev", &format!("socket,id=port{number},fd={descriptor}"));
            arguments.add("-device", &format!("virtserialport,nr={number},chardev=port{number}"));
        }
    }
}

#[derive(Debug, Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    fn add(&mut self, option: &str, value: &str) {
        self.0.push(option.into());
        if !value.is_empty() {
            self.0.push(value.into());
        }
    }

    fn add_os(&mut self, option: &str, value: OsString) {
        self.0.push(option.into());
        self.0.push(value);
    }

    /// Shares a directory over 9p. A comma in a QEMU option is written twice.
    fn share(&mut self, tag: &str, dir: &std::path::Path, read_only: bool) {
        let mut value = OsString::from("local,path=");
        let bytes = std::os::unix::ffi::OsStrExt::as_bytes(dir.as_os_str());
        let doubled: Vec<u8> = bytes
            .iter()
            .flat_map(|byte| std::iter::repeat_n(*byte, 1 + usize::from(*byte == b',')))
            .collect();
        value.push(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&doubled));
        value.push(format!(",mount_tag={tag},security_model=none,multidevs=remap"));
        if read_only {
            value.push(",readonly=on");
        }
        self.add_os("-virtfs", value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(deterministic: bool) -> Machine {
        Machine {
            deterministic,
            cpus: 3,
            memory_mib: 1024,
            kernel: "/k/vmlinux".into(),
            modules: "/k/modules".into(),
            root: "/odd,root".into(),
            out: None,
            descriptors: Descriptors { initramfs: 5, console: 6, ports: [7, 8, 9, 10], disk: None },
        }
    }

    fn line(machine: &Machine) -> String {
        machine.arguments().iter().map(|argument| argument.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn virtual_time_means_one_cpu_and_counted_instructions() {
        let line = line(&machine(true));
        assert!(
            line.contains("-accel tcg,thread=single") && line.contains("-icount shift=0,sleep=off"),
            "{line}"
        );
        assert!(line.contains("-smp 1 ") && !line.contains("mitigations=off"), "{line}");
    }

    #[test]
    fn real_time_uses_the_asked_number_of_cpus() {
        let line = line(&machine(false));
        assert!(line.contains("-smp 3 ") && !line.contains("icount"), "{line}");
    }

    #[test]
    fn only_results_and_disk_are_writable() {
        let mut machine = machine(false);
        machine.out = Some("/results".into());
        machine.descriptors.disk = Some(11);
        let line = line(&machine);
        assert!(
            line.contains("path=/odd,,root,mount_tag=root,security_model=none,multidevs=remap,readonly=on"),
            "{line}"
        );
        assert!(line.contains("mount_tag=modules,security_model=none,multidevs=remap,readonly=on"), "{line}");
        assert!(line.contains("path=/results,mount_tag=out,security_model=none,multidevs=remap -"), "{line}");
        assert!(line.contains("file=/proc/self/fd/11"), "{line}");
    }
}
