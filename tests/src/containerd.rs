//! A real containerd and its client `ctr`, in a machine that is ours: `scripts/e2e-containerd.sh` runs these tests as root in
//! a root file system with one version of it, with husk installed there.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Mutex, OnceLock, PoisonError},
};

use serde_json::Value;

use crate::{
    process::{Output, Running},
    wait::{PATIENCE, wait_for, wait_until, wait_within},
};

/// husk's runtime and runc's.
pub const HUSK: &str = "io.containerd.husk.v2";
/// The one that husk's is compared with.
pub const RUNC: &str = "io.containerd.runc.v2";
/// The image that is there.
pub const IMAGE: &str = "docker.io/library/busybox:latest";

/// Its store needs a file system that overlayfs can stand on.
const BASE_CONFIG: &str =
    "version = 2\nroot = '/lab/disk/containerd'\nstate = '/run/containerd'\n[debug]\nlevel = 'debug'\n";
/// Snapshotters whose snapshots are file systems on devices: in files that are copies of an empty one, and in a pool of the
/// device mapper's.
const ON_DEVICES: &str = "[plugins.'io.containerd.snapshotter.v1.blockfile']\nroot_path = '/lab/disk/blockfile'\n\
    scratch_file = '/lab/disk/scratch'\nfs_type = 'ext4'\nmount_options = ['loop']\nrecreate_scratch = false\n\
    [plugins.'io.containerd.snapshotter.v1.devmapper']\nroot_path = '/lab/disk/devmapper'\npool_name = 'snapshots'\n\
    base_image_size = '64MB'\nfs_type = 'ext4'\n";
/// Makes the empty file system and the pool. The machine has no udev to make device nodes.
const MAKE_DEVICES: &str = "set -e; cd /lab/disk; truncate -s 64M scratch; mkfs.ext4 -q scratch; modprobe -a loop dm-thin-pool erofs
    truncate -s 1G data; truncate -s 16M metadata
    dmsetup create snapshots --table \"0 2097152 thin-pool $(losetup --find --show metadata) $(losetup --find --show data) 128 8192\"";
const WITHOUT_UDEV: (&str, &str) = ("DM_DISABLE_UDEV", "1");
/// Where its configuration is.
pub const CONFIG: &str = "/etc/containerd/config.toml";
/// The archive of [`IMAGE`].
pub const IMAGE_ARCHIVE: &str = "/opt/husk-test/busybox.tar";
const LOG: &str = "/lab/out/containerd.log";

/// The daemon, started once for all tests.
#[derive(Debug)]
pub struct Containerd {
    daemon: Mutex<Child>,
    events: Mutex<Running>,
}

/// The daemon.
///
/// # Panics
/// When it can't be started, or the image can't be imported.
pub fn containerd() -> &'static Containerd {
    static ONE: OnceLock<Containerd> = OnceLock::new();
    ONE.get_or_init(|| {
        configure(&format!("disabled_plugins = ['io.containerd.grpc.v1.cri']\n{BASE_CONFIG}{ON_DEVICES}"));
        make_devices();
        let started = Containerd::start();
        ctr(&["image", "import", IMAGE_ARCHIVE]).expect_code(0);
        started
    })
}

/// Writes the configuration of a daemon that serves the CRI, too: what all have, and `cri`.
///
/// # Panics
/// When it can't be written.
pub fn configure_cri(cri: &str) {
    configure(&format!("{BASE_CONFIG}{cri}"));
}

fn configure(text: &str) {
    fs::create_dir_all("/etc/containerd").unwrap();
    fs::write(CONFIG, text).unwrap();
}

fn make_devices() {
    let mut shell = Command::new("sh");
    shell.args(["-c", MAKE_DEVICES]).env(WITHOUT_UDEV.0, WITHOUT_UDEV.1);
    Running::start(&mut shell).finish().expect_code(0);
}

fn start() -> Child {
    let log = fs::File::options().create(true).append(true).open(LOG).unwrap();
    let errors = log.try_clone().unwrap();
    let mut command = Command::new("containerd");
    command.env(WITHOUT_UDEV.0, WITHOUT_UDEV.1).stdout(log).stderr(errors).stdin(Stdio::null());
    let daemon = command.spawn().unwrap();
    wait_until("containerd to answer", PATIENCE, || ctr(&["version"]).code == 0);
    daemon
}

fn listen() -> Running {
    Running::start(Command::new("ctr").arg("events"))
}

/// Runs `ctr` to its end.
pub fn ctr(args: &[&str]) -> Output {
    Running::start(Command::new("ctr").args(args)).finish()
}

/// `ctr run` in the foreground, of a container that is removed afterwards.
pub fn run(runtime: &str, id: &str, command: &[&str]) -> Command {
    let mut ctr = Command::new("ctr");
    ctr.args(["run", "--rm", "--runtime", runtime, IMAGE, id]).args(command);
    ctr
}

impl Containerd {
    /// Starts the daemon as it is configured, and says which version it is.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start() -> Self {
        let daemon = Mutex::new(start());
        let version = ctr(&["version"]).expect_code(0).out();
        eprintln!(
            "tested with containerd {}",
            version.lines().rfind(|line| line.contains("Version:")).unwrap_or("?")
        );
        Self { daemon, events: Mutex::new(listen()) }
    }

    /// Kills the daemon and starts it again. Events that were told before are forgotten.
    ///
    /// # Panics
    /// When it does not come back.
    pub fn restart(&self) {
        let mut daemon = self.daemon.lock().unwrap_or_else(PoisonError::into_inner);
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        *daemon = start();
        *self.events.lock().unwrap_or_else(PoisonError::into_inner) = listen();
    }

    /// The events of a container's tasks so far: topic, process and exit code of each.
    pub fn task_events(&self, id: &str) -> Vec<String> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner).out();
        let mut found = Vec::new();
        for line in events.lines() {
            let Some((start, json)) = line.find('{').map(|at| line.split_at(at)) else { continue };
            let Some(topic) = start.split_whitespace().find(|word| word.starts_with("/tasks/")) else {
                continue;
            };
            let Ok(event) = serde_json::from_str::<Value>(json) else { continue };
            if event["container_id"] == id {
                let process = event["id"].as_str().or(event["exec_id"].as_str()).unwrap_or("");
                found.push(
                    format!("{topic} {process} {}", event["exit_status"].as_u64().unwrap_or(0))
                        .replace(id, "ID"),
                );
            }
        }
        found
    }

    /// Waits for an event of a container's task.
    ///
    /// # Panics
    /// When it does not come.
    pub fn wait_for_event(&self, id: &str, topic: &str) {
        let what = format!("{topic} of {id}");
        wait_until(&what, PATIENCE, || self.task_events(id).iter().any(|event| event.starts_with(topic)));
    }
}

/// The state of a container's task, as `ctr task ls` shows it.
pub fn status(id: &str) -> Option<String> {
    let list = ctr(&["task", "ls"]).expect_code(0).out();
    let line = list.lines().find(|line| line.split_whitespace().next() == Some(id))?;
    line.split_whitespace().nth(2).map(str::to_owned)
}

/// Waits for a state.
///
/// # Panics
/// When it does not come.
pub fn wait_for_status(id: &str, wanted: &str) {
    wait_for(&format!("{id} to be {wanted}"), PATIENCE, || (status(id)? == wanted).then_some(()));
}

/// The processes whose command line has this in it, with the line.
///
/// # Panics
/// When there is no `/proc`.
pub fn processes(part: &str) -> Vec<(i32, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(part) {
            found.push((pid, line));
        }
    }
    found
}

/// How much there is on the machine of what a pod takes up.
#[derive(Debug, PartialEq, Eq)]
pub struct Taken {
    programs: usize,
    mounts: usize,
    interfaces: usize,
    cgroups: usize,
    files_of_run: usize,
}

impl Taken {
    /// What there is now.
    ///
    /// # Panics
    /// When the machine has no `/proc` or `/sys`.
    pub fn now() -> Self {
        Self {
            programs: processes("/").len(),
            mounts: fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count(),
            interfaces: fs::read_dir("/sys/class/net").unwrap().count(),
            cgroups: count("/sys/fs/cgroup".as_ref(), &fs::FileType::is_dir),
            files_of_run: count("/run".as_ref(), &|_| true),
        }
    }
}

/// Shared memory of the whole machine in KiB: that of guests, and files in memory.
///
/// # Panics
/// When there is no `/proc`.
pub fn shared_memory_kib() -> u64 {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap();
    let line = meminfo.lines().find_map(|line| line.strip_prefix("Shmem:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// What is below a directory, of some kind. What vanishes meanwhile does not count.
fn count(dir: &Path, kind: &impl Fn(&fs::FileType) -> bool) -> usize {
    let mut found = 0;
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(file_type) = entry.file_type() else { continue };
        found += usize::from(kind(&file_type));
        if file_type.is_dir() {
            found += count(&entry.path(), kind);
        }
    }
    found
}

/// Waits until nothing of husk is left on the machine.
///
/// # Panics
/// When something stays.
pub fn assert_nothing_left() {
    if wait_within(PATIENCE, || left().is_empty().then_some(())).is_none() {
        panic!("left behind:\n{}", left().join("\n"));
    }
}

fn left() -> Vec<String> {
    let mut left: Vec<String> = ["containerd-shim-husk", "libexec/husk"]
        .iter()
        .flat_map(|part| processes(part))
        .map(|(pid, line)| format!("process {pid}: {line}"))
        .collect();
    for dir in
        ["/run/husk", "/run/husk/names", "/run/containerd/s", "/var/lib/husk/scratch", "/sys/fs/cgroup/husk"]
    {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let cgroup_file = dir.starts_with("/sys") && entry.file_type().unwrap().is_file();
            if !cgroup_file && !["lock", "names", "networks"].contains(&name.as_str()) {
                left.push(format!("{dir}/{name}"));
            }
        }
    }
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let ours = |line: &&str| line.contains("husk/") || line.contains("runtime.v2.task");
    left.extend(mounts.lines().filter(ours).map(str::to_owned));
    left
}
