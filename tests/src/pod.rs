//! A pod with containers of busybox, made by the library that containerd's shim is made of.

use std::{
    fs,
    io::Read,
    net::Shutdown,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use husk_base::{
    chain,
    log::{self, Level},
};
use husk_sandbox::{
    network::NetworkPlan,
    paths::{Assets, Dirs},
    pod::{
        ContainerRequest, Created, NAME_PREFIX, Pod, PodAssets, PodNetwork, PodOptions, RootfsSource,
        StdioFlags,
    },
    rundir::RunDir,
    stdio::Stream,
};
use oci_spec::runtime::{Process, Spec};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::environment;

/// What a container gets of its own.
pub const OUTPUT: StdioFlags = StdioFlags { stdin: false, stdout: true, stderr: true, terminal: false };
const APPLETS: [&str; 23] = [
    "cat", "chmod", "echo", "grep", "head", "hostname", "id", "ip", "kill", "ln", "ls", "mkdir", "mount",
    "nc", "ps", "readlink", "rm", "sh", "sleep", "stat", "touch", "tty", "wc",
];

/// A husk root, and directories of the host beside it.
#[derive(Debug)]
pub struct Home {
    path: PathBuf,
    /// Removed at the end; nothing if it is another process's.
    _own: Option<TempDir>,
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

impl Home {
    /// An empty one.
    ///
    /// # Panics
    /// When there is no place for it.
    pub fn new() -> Self {
        let own = tempfile::Builder::new().prefix("pod-").tempdir().unwrap();
        Self { path: own.path().to_owned(), _own: Some(own) }
    }

    /// An empty one on a tmpfs: an emulated machine's own root is an overlay, on which there can be no other.
    ///
    /// # Panics
    /// When there is no place for it.
    pub fn in_memory() -> Self {
        let own = tempfile::Builder::new().prefix("pod-").tempdir_in("/run").unwrap();
        Self { path: own.path().to_owned(), _own: Some(own) }
    }

    /// That of another process.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), _own: None }
    }

    /// Everything is in here.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// husk's root.
    pub fn root(&self) -> PathBuf {
        self.path().join("husk")
    }

    /// husk's directories.
    pub fn dirs(&self) -> Dirs {
        Dirs::new(Some(&self.root()))
    }

    /// A directory with a file of this name and content.
    ///
    /// # Panics
    /// When it can't be made.
    pub fn volume(&self, name: &str, file: &str, content: &str) -> PathBuf {
        let dir = self.path().join(name);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(file), content).unwrap();
        dir
    }

    /// A root file system of busybox.
    ///
    /// # Panics
    /// When it can't be made.
    pub fn busybox(&self, name: &str) -> PathBuf {
        let root = self.path().join(name);
        for dir in ["bin", "dev", "etc", "proc", "root", "sys", "tmp"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
        for applet in APPLETS {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        fs::write(root.join("etc/passwd"), "root:x:0:0::/root:\nwww:x:33:33::/tmp:\n").unwrap();
        fs::write(root.join("etc/group"), "root:x:0:\nextra:x:77:root\n").unwrap();
        root
    }

    /// What a pod without containers needs.
    pub fn options(&self) -> PodOptions {
        PodOptions {
            give_up: Arc::default(),
            vcpus: 1,
            mem_size_mib: 256,
            network: PodNetwork::Planned(NetworkPlan::none("the-pod")),
            hostname: "the-pod".into(),
            roots: Vec::new(),
            shares: true,
            cgroup: None,
            timeout: Duration::from_secs(60),
        }
    }

    /// Starts a pod.
    ///
    /// # Panics
    /// When that fails.
    pub async fn start(&self, id: &str) -> Pod {
        self.try_start(id, self.options()).await.map_err(|error| chain::text(&error)).unwrap()
    }

    /// Starts a pod with these options.
    ///
    /// # Errors
    /// When that fails.
    pub async fn try_start(&self, id: &str, options: PodOptions) -> husk_sandbox::Result<Pod> {
        log::init(Level::WARN, |_, text| eprintln!("note: {text}"));
        let (dir, _) = RunDir::create(&self.dirs(), Some(&format!("{NAME_PREFIX}{id}")))?;
        Pod::start(&self.dirs(), &assets(), Arc::new(dir), options).await
    }
}

/// husk's pieces.
pub fn assets() -> PodAssets {
    let (bin, guest) = (environment::bin(), environment::guest());
    PodAssets {
        vm: Assets {
            vmm: bin.join("husk-vmm"),
            kernel: guest.join("vmlinux"),
            initramfs: guest.join("initramfs.cpio"),
        },
        filesystem: bin.join("husk-fs"),
    }
}

fn process_json(args: &[&str]) -> Value {
    let capabilities = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_SETUID", "CAP_SETGID"];
    json!({
        "user": {"uid": 0, "gid": 0}, "args": args, "cwd": "/", "env": ["PATH=/bin"],
        "apparmorProfile": "not-in-a-guest",
        "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
    })
}

/// A further process that runs a shell script.
///
/// # Panics
/// Never.
pub fn process(script: &str) -> Process {
    serde_json::from_value(process_json(&["sh", "-c", script])).unwrap()
}

/// A mount's JSON form: a bind of `source`.
pub fn bind(source: &Path, destination: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": "bind", "source": source, "options": options})
}

/// A container that runs a shell script, with a spec as containerd writes it.
///
/// # Panics
/// When the spec is none.
pub fn container(id: &str, rootfs: RootfsSource, script: &str, mounts: &[Value]) -> ContainerRequest {
    let mut all = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]}),
        json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]}),
        json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]}),
        json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}),
    ];
    all.extend(mounts.iter().cloned());
    let spec = json!({
        "ociVersion": "1.1.0", "hostname": "ignored", "root": {"path": "rootfs", "readonly": false},
        "process": process_json(&["sh", "-c", script]),
        "mounts": all,
        "linux": {
            "cgroupsPath": "/default/on-the-host",
            "namespaces": [
                {"type": "pid"}, {"type": "ipc", "path": "/proc/1/ns/ipc"}, {"type": "uts", "path": "/proc/1/ns/uts"},
                {"type": "mount"}, {"type": "network", "path": "/proc/1/ns/net"}, {"type": "cgroup"},
            ],
            "maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"],
            "resources": {"devices": [{"allow": false, "access": "rwm"}], "cpu": {"shares": 100, "cpus": "0-63"},
                "pids": {"limit": 200}, "memory": {"limit": 128 << 20}},
        },
    });
    let spec: Spec = serde_json::from_value(spec).unwrap();
    ContainerRequest { id: id.into(), spec, rootfs, pids: Default::default(), stdio: OUTPUT, own: None }
}

/// Everything that comes on a stream.
#[derive(Debug)]
pub struct Text(JoinHandle<String>);

impl Text {
    /// Begins to read.
    ///
    /// # Panics
    /// When there is no stream.
    pub fn of(stream: Option<Stream>) -> Self {
        let (mut socket, mut text) = stream.expect("a stream").into_parts();
        Self(std::thread::spawn(move || {
            // A VM that is gone leaves what it had said.
            let _ = socket.read_to_end(&mut text);
            let _ = socket.shutdown(Shutdown::Both);
            String::from_utf8_lossy(&text).into_owned()
        }))
    }

    /// All, at the end.
    ///
    /// # Panics
    /// Never.
    pub fn all(self) -> String {
        self.0.join().unwrap()
    }
}

/// Waits for a process's end: its exit code, output and errors.
///
/// # Panics
/// When it can't be waited for.
pub async fn outcome(pod: &Pod, id: &str, exec_id: &str, created: Created) -> (u32, String, String) {
    let (out, err) = (Text::of(created.streams.stdout), Text::of(created.streams.stderr));
    let exit = pod.wait(id, exec_id).await.map_err(|error| chain::text(&error)).unwrap();
    (exit.code, out.all(), err.all())
}

/// Runs a container to its end, and deletes it.
///
/// # Panics
/// When any of that fails.
pub async fn run(pod: &Pod, request: ContainerRequest) -> (u32, String, String) {
    let id = request.id.clone();
    let created = pod.create(request).await.map_err(|error| chain::text(&error)).unwrap();
    pod.start_container(&id).await.unwrap();
    let outcome = outcome(pod, &id, "", created).await;
    pod.delete(&id).await.map_err(|error| chain::text(&error)).unwrap();
    outcome
}

/// Runs a further process to its end.
///
/// # Panics
/// When any of that fails.
pub async fn exec(pod: &Pod, id: &str, exec_id: &str, script: &str) -> (u32, String, String) {
    let created = pod
        .exec(id, exec_id, process(script), OUTPUT, None)
        .await
        .map_err(|error| chain::text(&error))
        .unwrap();
    outcome(pod, id, exec_id, created).await
}
