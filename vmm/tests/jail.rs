//! The program in its jail, with a guest that does nothing. Needs root and KVM.
#![expect(clippy::unwrap_used, reason = "it is a test")]

use std::{
    fs::{self, File},
    os::{fd::AsRawFd, unix::process::CommandExt},
    path::Path,
    process::{Child, Command},
    time::{Duration, Instant},
};

use husk_jail::trial::assert_only_inherited;
use husk_vmm::client::Client;

const UID: u32 = 2_099_999_999;
/// Only a VMM that will never answer takes so long.
const PATIENCE: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

/// A vmlinux of one segment, loaded at 16 MiB and full of `hlt`.
fn idle_kernel() -> Vec<u8> {
    const CODE_AT: usize = 0x1000;
    const CODE_LEN: usize = 0x1000;
    let mut file = vec![0; CODE_AT];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    // An ELF file of 64 bits, executable, for x86-64; its entry point; one program header, right after this
    // one.
    put(0, b"\x7fELF\x02\x01\x01");
    put(16, &2_u16.to_le_bytes());
    put(18, &62_u16.to_le_bytes());
    put(24, &(16 * MIB).to_le_bytes());
    put(32, &64_u64.to_le_bytes());
    put(54, &56_u16.to_le_bytes());
    put(56, &1_u16.to_le_bytes());
    // To be loaded: where it is in the file, where in memory, and its length in both.
    put(64, &1_u32.to_le_bytes());
    put(72, &(CODE_AT as u64).to_le_bytes());
    put(88, &(16 * MIB).to_le_bytes());
    put(96, &(CODE_LEN as u64).to_le_bytes());
    put(104, &(CODE_LEN as u64).to_le_bytes());
    file.extend([0xf4; CODE_LEN]);
    file
}

struct Vmm {
    process: Child,
    client: Client,
}

impl Vmm {
    /// Starts it with these files open and a secret in its environment; returns when it runs the guest.
    fn start(dir: &Path, options: &[&str], inherited: &[&File]) -> Self {
        let (config, control) = (dir.join("vm.json"), dir.join("control"));
        fs::write(dir.join("vmlinux"), idle_kernel()).unwrap();
        let json = serde_json::json!({
            "kernel": dir.join("vmlinux"), "vcpus": 1, "mem_size_mib": 64,
            "vsock": {"guest_cid": 3, "socket": dir.join("vsock")}, "jail": {"uid": UID},
        });
        fs::write(&config, json.to_string()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_husk-vmm"));
        command.arg("run").arg("--config").arg(config).arg("--control").arg(&control).args(options);
        command.env("HUSK_SECRET", "hidden");
        let numbers: Vec<_> = inherited.iter().map(|file| file.as_raw_fd()).collect();
        let keep_open = move || {
            // SAFETY: touches no memory; the files are open until the process has been started.
            numbers.iter().for_each(|fd| _ = unsafe { libc::fcntl(*fd, libc::F_SETFD, 0) });
            Ok(())
        };
        // SAFETY: between fork and exec the closure makes only system calls.
        unsafe { command.pre_exec(keep_open) };
        let mut process = command.spawn().unwrap();
        let deadline = Instant::now() + PATIENCE;
        let mut client = loop {
            assert_eq!(process.try_wait().unwrap(), None, "the VMM has ended");
            assert!(Instant::now() < deadline, "no control socket");
            match Client::connect(&control) {
                Ok(client) => break client,
                Err(_) => std::thread::yield_now(),
            }
        };
        // It answers when all of the jail is shut.
        client.state().unwrap();
        Self { process, client }
    }

    /// The process outside of the jail, and the one in it.
    fn both(&self) -> [u32; 2] {
        let pid = self.process.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        [pid, children.trim().parse().unwrap()]
    }
}

impl Drop for Vmm {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn can_run() -> bool {
    // SAFETY: only returns a number.
    let can = unsafe { libc::geteuid() } == 0 && File::open("/dev/kvm").is_ok();
    if !can {
        eprintln!("SKIPPED: needs root and KVM");
    }
    can
}

#[test]
fn nothing_is_inherited_but_what_is_passed_by_number() {
    if !can_run() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let [lock, stray] = ["lock", "stray"].map(|name| File::create(dir.path().join(name)).unwrap());
    let number = lock.as_raw_fd().to_string();
    let vmm = Vmm::start(dir.path(), &["--lock", &number], &[&lock, &stray]);
    for pid in vmm.both() {
        assert_only_inherited(pid, &lock, &stray);
    }
}

fn field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name}")).trim().to_owned()
}

/// A thread's status. One that has just begun may still be about to shut itself in; it does nothing before.
fn shut_status(thread: &Path) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = fs::read_to_string(thread.join("status")).unwrap();
        if field(&status, "Seccomp") != "0" || Instant::now() > deadline {
            return status;
        }
        std::thread::yield_now();
    }
}

#[test]
fn the_jailed_process_has_no_rights_and_sees_one_directory() {
    if !can_run() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut vmm = Vmm::start(dir.path(), &[], &[]);
    let [_, pid] = vmm.both();
    for thread in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let status = shut_status(&thread.unwrap().path());
        let field = |name: &str| field(&status, name);
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(field(set), "0000000000000000", "{set}");
        }
        let ids = [UID; 4].map(|id| id.to_string()).join("\t");
        assert_eq!([field("Uid"), field("Gid"), field("Groups")], [ids.clone(), ids, String::new()]);
        assert_eq!((field("NoNewPrivs"), field("Seccomp")), ("1".into(), "2".into()), "{status}");
    }
    let root: Vec<_> =
        fs::read_dir(format!("/proc/{pid}/root")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(root, ["vsock"]);
    let mounts = fs::read_to_string(format!("/proc/{pid}/mounts")).unwrap();
    assert_eq!(mounts.lines().count(), 2, "{mounts}");
    assert!(mounts.lines().all(|line| line.contains(" ro,nosuid,nodev,noexec")), "{mounts}");
    for namespace in ["mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{namespace}")).unwrap();
        assert_ne!(of(&pid.to_string()), of("self"), "{namespace}");
    }
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    for (name, limit) in [("Max core file size", "0"), ("Max processes", "512"), ("Max open files", "4096")] {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        assert_eq!(line.split_whitespace().take(2).collect::<Vec<_>>(), [limit; 2], "{name}");
    }
    vmm.client.shutdown().unwrap();
    assert_eq!(vmm.process.wait().unwrap().code(), Some(0));
}
