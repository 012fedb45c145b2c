//! Whether KVM on this machine runs ordinary guests. A `/dev/kvm` that opens is not enough: behind it may be a module that
//! interprets the guest's kernel code, as kvm_pvm does on machines without virtualization hardware, and gives up at the
//! first instruction that it does not know. So this looks at processor and module, and then runs a guest of a dozen
//! instructions.

use std::{
    fs,
    io::{self, BufRead, BufReader},
    path::Path,
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
    time::Duration,
};

use serde::{Deserialize, Serialize};

mod guest;

use guest::Outcome;

/// How long the tiny guest may take. It takes milliseconds, unless the machine is very busy.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The modules that make `/dev/kvm` work.
const MODULES: [&str; 3] = ["kvm_amd", "kvm_intel", "kvm_pvm"];
/// The module that needs no virtualization hardware, and can't run ordinary guests.
const INTERPRETER: &str = "kvm_pvm";

/// What the processor offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CpuVirtualization {
    /// AMD's.
    Svm,
    /// Intel's.
    Vmx,
    /// Nothing, as far as the kernel tells.
    None,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Whether VMs can be run.
    pub usable: bool,
    /// Why, or why not: a sentence.
    pub reason: String,
    /// What to do about it; empty if nothing needs to be done.
    pub remedy: String,
    /// The module behind `/dev/kvm`; `None` if it is built into the kernel, or there is none.
    pub kvm_module: Option<String>,
    /// What the processor offers.
    pub cpu_virtualization: CpuVirtualization,
    /// What the tiny guest did; empty if it was not tried.
    pub details: String,
}

/// Looks and tries; takes milliseconds.
pub fn probe() -> Probe {
    let cpu_virtualization = fs::File::open("/proc/cpuinfo")
        .map_or(CpuVirtualization::None, |file| cpu_virtualization(BufReader::new(file)));
    let loaded = MODULES.into_iter().find(|module| Path::new("/sys/module").join(module).exists());
    let tried = try_guest();
    let details = tried.as_ref().map(Outcome::to_string).unwrap_or_default();
    let (usable, reason, remedy) = judge(tried, loaded, cpu_virtualization);
    let kvm_module = loaded.map(str::to_owned);
    Probe { usable, reason, remedy, kvm_module, cpu_virtualization, details }
}

/// The first processor's flags.
fn cpu_virtualization(cpuinfo: impl BufRead) -> CpuVirtualization {
    let flags = cpuinfo.lines().map_while(Result::ok).find(|line| line.starts_with("flags"));
    let has = |flag| flags.as_deref().is_some_and(|flags| flags.split_whitespace().any(|word| word == flag));
    match () {
        () if has("svm") => CpuVirtualization::Svm,
        () if has("vmx") => CpuVirtualization::Vmx,
        () => CpuVirtualization::None,
    }
}

/// Runs the tiny guest; an error if `/dev/kvm` can't even be opened.
fn try_guest() -> io::Result<Outcome> {
    let kvm = guest::open()?;
    let (sender, receiver) = channel();
    thread::Builder::new().name("probe".into()).spawn(move || sender.send(guest::run(&kvm)))?;
    // A guest that hangs keeps its thread; the process ends soon.
    Ok(match receiver.recv_timeout(TIMEOUT) {
        Ok(outcome) => outcome,
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Outcome::Hung,
    })
}

/// The verdict: usable, reason, remedy.
fn judge(tried: io::Result<Outcome>, module: Option<&str>, cpu: CpuVirtualization) -> (bool, String, String) {
    let no = |reason: String, remedy: &str| (false, reason, remedy.to_owned());
    let outcome = match tried {
        Ok(outcome) => outcome,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let missing = "/dev/kvm does not exist";
            return match cpu {
                _ if module.is_some() => no(
                    format!("{missing}, though the module is loaded"),
                    "in a container, have the device /dev/kvm handed in",
                ),
                CpuVirtualization::None => no(
                    format!("{missing}, and this processor offers no virtualization"),
                    "use a machine with AMD-V or VT-x; in a virtual machine, have nested virtualization enabled",
                ),
                CpuVirtualization::Svm => no(missing.into(), "load the module: modprobe kvm_amd"),
                CpuVirtualization::Vmx => no(missing.into(), "load the module: modprobe kvm_intel"),
            };
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return no(
                "no permission to use /dev/kvm".into(),
                "add yourself to its group (usermod -aG kvm USER) and log in again, or be root",
            );
        }
        Err(error) => {
            return no(
                format!("/dev/kvm cannot be opened: {error}"),
                "see the kernel's messages (dmesg) about kvm: virtualization may be disabled in the firmware",
            );
        }
    };
    if module == Some(INTERPRETER) && cpu == CpuVirtualization::None {
        return no(
            format!(
                "{INTERPRETER} is behind /dev/kvm, which interprets guest kernels and does not know all instructions"
            ),
            "use a machine with AMD-V or VT-x; in a virtual machine, have nested virtualization enabled",
        );
    }
    match outcome {
        Outcome::Passed => (true, "KVM runs an ordinary guest".into(), String::new()),
        failed => no(
            format!("/dev/kvm is there, but cannot run an ordinary guest: {failed}"),
            "use a machine with AMD-V or VT-x; in a virtual machine, have nested virtualization enabled",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_whole_words_of_the_right_line() {
        let cpu = |text: &str| cpu_virtualization(text.as_bytes());
        assert_eq!(cpu("model name : x svm\nflags\t\t: fpu svm lm\n"), CpuVirtualization::Svm);
        assert_eq!(cpu("flags : fpu vmx\n"), CpuVirtualization::Vmx);
        assert_eq!(cpu("flags : fpu svm_lock\nvmx flags : vnmi\n"), CpuVirtualization::None);
        assert_eq!(cpu(""), CpuVirtualization::None);
    }

    #[test]
    fn each_finding_has_its_reason_and_remedy() {
        use CpuVirtualization::{None as NoHardware, Svm, Vmx};
        let error = |kind: io::ErrorKind| Err(kind.into());
        let verdicts = [
            (judge(error(io::ErrorKind::NotFound), None, NoHardware), "offers no virtualization", "nested"),
            (judge(error(io::ErrorKind::NotFound), None, Svm), "does not exist", "modprobe kvm_amd"),
            (judge(error(io::ErrorKind::NotFound), None, Vmx), "does not exist", "modprobe kvm_intel"),
            (judge(error(io::ErrorKind::NotFound), Some("kvm_amd"), Svm), "is loaded", "container"),
            (judge(error(io::ErrorKind::PermissionDenied), Some("kvm_amd"), Svm), "no permission", "usermod"),
            (judge(error(io::ErrorKind::ResourceBusy), Some("kvm_amd"), Svm), "cannot be opened", "dmesg"),
            (judge(Ok(Outcome::Passed), Some("kvm_pvm"), NoHardware), "kvm_pvm", "nested"),
            (judge(Ok(Outcome::Hung), Some("kvm_amd"), Svm), "cannot run", "nested"),
        ];
        for ((usable, reason, remedy), in_reason, in_remedy) in verdicts {
            assert!(!usable);
            assert!(reason.contains(in_reason), "{reason}");
            assert!(remedy.contains(in_remedy), "{remedy}");
        }
        // KVM may be built into the kernel, and a virtual machine may hide the processor's flags.
        for (module, cpu) in [(Some("kvm_amd"), Svm), (None, Vmx), (None, NoHardware)] {
            assert!(judge(Ok(Outcome::Passed), module, cpu).0);
        }
    }

    #[test]
    fn the_result_survives_json() {
        let probe = probe();
        let json = serde_json::to_string(&probe).unwrap();
        assert_eq!(serde_json::from_str::<Probe>(&json).unwrap(), probe);
    }
}
