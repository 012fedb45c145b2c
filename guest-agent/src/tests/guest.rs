//! A test's guest: the service, and the host's side of its connections.

use std::{
    collections::HashMap,
    future::Future,
    io,
    os::unix::fs::symlink,
    panic::AssertUnwindSafe,
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use husk_protocol::{
    StdioKind, StreamHello, StreamName,
    agent::{
        ContainerRef, CreateContainerRequest, ExecRequest, ImageRoot, ProcessRef, Reason, RootFs,
        SetupSandboxRequest, Stdio, WaitResponse, root_fs::Root,
    },
    agent_ttrpc::AgentClient,
    port,
};
use nix::{
    mount::{MsFlags, mount},
    sys::wait::{WaitStatus, waitpid},
    unistd::{ForkResult, dup2_stdin, dup2_stdout, fork},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::mpsc,
};
use ttrpc::{r#async::transport::Socket, context::Context};

use crate::stdio::{Dial, Stream};

/// What stands for an image's disk.
pub(super) const BASE: &str = "/run/base";
/// The token that the tests' sandboxes have.
pub(super) const TOKEN: &str = "00112233445566778899aabbccddeeff";
const INSIDE: &str = "HUSK_AGENT_TEST_INSIDE";

/// The test's container: an id of its own, since the machine's cgroups are everybody's.
pub(super) fn id() -> String {
    std::env::var(INSIDE).unwrap()
}

/// Runs the test `name` (its full path) in namespaces of its own, with a root file system of busybox at hand.
pub(super) fn in_guest<F: Future<Output = ()>>(name: &str, body: impl FnOnce(Guest) -> F) {
    assert!(nix::unistd::geteuid().is_root(), "this test makes namespaces: run it as root");
    if std::env::var_os(INSIDE).is_none() {
        let (_, name) = name.split_once("::").unwrap();
        let status = Command::new("unshare")
            .args(["--mount", "--pid", "--fork", "--uts", "--ipc", "--net", "--propagation", "private"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture", "--test-threads=1"])
            .env(INSIDE, format!("t{}-{}", std::process::id(), name.rsplit("::").next().unwrap()))
            .status()
            .unwrap();
        assert!(status.success(), "the test failed in its namespaces: {status}");
        return;
    }
    // The agent has one thread, and the test harness has more: go on in a fork, which inherits orphans as PID 1 does.
    // SAFETY: the child needs only memory allocation, which survives a fork, and leaves through `_exit`.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0))),
        ForkResult::Child => {
            let passed = std::panic::catch_unwind(AssertUnwindSafe(|| {
                // SAFETY: takes no pointers.
                assert_eq!(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) }, 0);
                let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").unwrap();
                dup2_stdin(&null).unwrap();
                dup2_stdout(&null).unwrap();
                prepare().unwrap();
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async { body(Guest::boot().await).await });
            }));
            // SAFETY: ends the process without running anything else of it; takes no pointers.
            unsafe { libc::_exit(i32::from(passed.is_err())) }
        }
    }
}

/// What the agent's init would mount, and what stands for an image's disk.
fn prepare() -> io::Result<()> {
    let none = None::<&str>;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), none)?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none)?;
    mount(Some("cgroup2"), "/sys/fs/cgroup", Some("cgroup2"), MsFlags::empty(), none)?;
    match std::fs::create_dir(crate::paths::CONTAINERS_CGROUP) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let base = std::path::Path::new(BASE);
    std::fs::create_dir_all(base)?;
    mount(Some("tmpfs"), base, Some("tmpfs"), MsFlags::empty(), none)?;
    for dir in ["bin", "etc", "tmp", "root", "home/www", "proc", "dev", "sys"] {
        std::fs::create_dir_all(base.join(dir))?;
    }
    std::fs::copy("/bin/busybox", base.join("bin/busybox"))
        .map_err(|e| io::Error::new(e.kind(), format!("needs /bin/busybox of busybox-static: {e}")))?;
    for applet in [
        "sh",
        "cat",
        "echo",
        "id",
        "env",
        "pwd",
        "sleep",
        "yes",
        "head",
        "dd",
        "stat",
        "ls",
        "true",
        "false",
        "kill",
        "tty",
        "stty",
        "grep",
        "seq",
        "touch",
        "hostname",
        "mkdir",
        "mknod",
        "printf",
        "sha256sum",
    ] {
        symlink("busybox", base.join("bin").join(applet))?;
    }
    std::fs::write(base.join("etc/passwd"), "root:x:0:0::/root:\nwww:x:33:33::/home/www:\n")?;
    std::fs::write(base.join("etc/group"), "root:x:0:\nwww:x:33:\nmail:x:8:www\n")?;
    std::fs::write(base.join("bin/text"), "just text")?;
    std::fs::write(base.join("bin/script"), "#!/bin/none\n")?;
    std::fs::write(base.join("bin/garbage"), [0x7f, b'E', b'L', b'F', 0, 0, 0, 0])?;
    for file in ["script", "garbage"] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(base.join("bin").join(file), mode)?;
    }
    Ok(())
}

type Arrived = Arc<Mutex<HashMap<StreamKey, UnixStream>>>;
type StreamKey = (String, StdioKind);

/// The running service, as the host sees it.
pub(super) struct Guest {
    pub(super) api: AgentClient,
    streams: Arrived,
    arrivals: tokio::sync::Mutex<mpsc::UnboundedReceiver<()>>,
}

impl Guest {
    async fn boot() -> Self {
        let (connections, mut dialled) = mpsc::unbounded_channel();
        let dial: Dial = Arc::new(move |port| {
            let connections = connections.clone();
            Box::pin(async move {
                let (guest, host) = UnixStream::pair()?;
                connections.send((port, host)).map_err(io::Error::other)?;
                Ok(Box::new(guest) as Box<dyn Stream>)
            })
        });
        let further = futures_util::stream::empty();
        tokio::spawn(async move { crate::serve(dial, further, || Ok(())).await.unwrap() });
        let (first, connection) = dialled.recv().await.unwrap();
        assert_eq!(first, port::AGENT);
        let api = AgentClient::new(ttrpc::r#async::Client::new(Socket::new(connection)));

        let streams = Arrived::default();
        let (arrived, arrivals) = mpsc::unbounded_channel();
        let accepted = Arc::clone(&streams);
        tokio::spawn(async move {
            while let Some((port, mut stream)) = dialled.recv().await {
                if port == port::NAMES {
                    tokio::spawn(super::resolver::answer_as_host(stream));
                    continue;
                }
                assert_eq!(port, port::STDIO);
                let (accepted, arrived) = (Arc::clone(&accepted), arrived.clone());
                tokio::spawn(async move {
                    let hello = read_hello(&mut stream).await;
                    assert_eq!(hello.token, TOKEN.parse().unwrap());
                    let StreamName { exec_id, kind, .. } = hello.name;
                    accepted.lock().unwrap().insert((exec_id, kind), stream);
                    let _ = arrived.send(());
                });
            }
        });
        Self { api, streams, arrivals: tokio::sync::Mutex::new(arrivals) }
    }

    /// The host's end of a stream that was, or is being, dialled.
    pub(super) async fn stream(&self, exec_id: &str, kind: StdioKind) -> UnixStream {
        loop {
            if let Some(stream) = self.streams.lock().unwrap().remove(&(exec_id.to_owned(), kind)) {
                return stream;
            }
            self.arrivals.lock().await.recv().await.unwrap();
        }
    }

    /// Creates a container, in a sandbox that is set up, with the base disk mounted.
    pub(super) async fn create(&self, request: &CreateContainerRequest) -> ttrpc::Result<()> {
        let set_up = SetupSandboxRequest { hostname: "test".into(), ..setup() };
        if let Err(error) = self.api.setup_sandbox(context(), &set_up).await {
            assert_eq!(husk_protocol::failure::reason(&error), Reason::WRONG_STATE);
        }
        mount_base();
        self.api.create_container(context(), request).await.map(drop)
    }

    pub(super) async fn start(&self) {
        self.api.start_container(context(), &container()).await.unwrap();
    }

    pub(super) async fn wait(&self, exec_id: &str) -> WaitResponse {
        let process = ProcessRef { container_id: id(), exec_id: exec_id.into(), ..Default::default() };
        self.api.wait(context(), &process).await.unwrap()
    }

    /// Everything that comes on an output stream.
    pub(super) async fn output(&self, exec_id: &str, kind: StdioKind) -> String {
        let mut text = Vec::new();
        self.stream(exec_id, kind).await.read_to_end(&mut text).await.unwrap();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Creates and starts a container and returns its exit code, output and errors.
    pub(super) async fn run(&self, request: &CreateContainerRequest) -> (u32, String, String) {
        self.create(request).await.unwrap();
        self.start().await;
        let (stdout, stderr, exit) = tokio::join!(
            self.output("", StdioKind::Stdout),
            self.output("", StdioKind::Stderr),
            self.wait("")
        );
        (exit.exit_code, stdout, stderr)
    }

    /// Runs a further process and returns its exit code and output.
    pub(super) async fn exec(&self, request: &ExecRequest) -> ttrpc::Result<(u32, String)> {
        self.api.exec(context(), request).await?;
        let (stdout, exit) =
            tokio::join!(self.output(&request.exec_id, StdioKind::Stdout), self.wait(&request.exec_id));
        Ok((exit.exit_code, stdout))
    }

    pub(super) async fn delete(&self) {
        self.api.delete_container(context(), &container()).await.unwrap();
        assert!(!crate::paths::cgroup(&id()).exists());
        assert!(!crate::paths::bundle(&id()).exists());
    }
}

/// Mounts the base disk where the agent would, unless it is mounted: its last container takes it away.
fn mount_base() {
    let disk = crate::paths::disk("base");
    std::fs::create_dir_all(&disk).unwrap();
    if !disk.join("bin").exists() {
        mount(Some(BASE), &disk, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    }
}

async fn read_hello(stream: &mut UnixStream) -> StreamHello {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        line.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(line).unwrap().parse().unwrap()
}

/// A deadline that only a hang reaches.
pub(super) fn context() -> Context {
    ttrpc::context::with_duration(Duration::from_secs(30))
}

pub(super) fn container() -> ContainerRef {
    ContainerRef { container_id: id(), ..Default::default() }
}

/// What every set-up of a sandbox has.
pub(super) fn setup() -> SetupSandboxRequest {
    SetupSandboxRequest { stream_token: TOKEN.into(), ..Default::default() }
}

/// A root above the base disk.
pub(super) fn base_root() -> RootFs {
    let image = ImageRoot { base_disk: "base".into(), ..Default::default() };
    RootFs { root: Some(Root::Image(image)), ..Default::default() }
}

pub(super) fn stdio() -> Stdio {
    Stdio { stdout: true, stderr: true, ..Default::default() }
}

/// An OCI process that runs `args`.
pub(super) fn process(args: &[&str]) -> serde_json::Value {
    let caps = ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID", "CAP_MKNOD"];
    serde_json::json!({
        "user": {"uid": 0, "gid": 0}, "args": args, "cwd": "/", "env": ["PATH=/bin", "B=2", "A=1"],
        "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1000, "hard": 2000}],
    })
}

/// An OCI spec like those that the host writes.
pub(super) fn spec(args: &[&str]) -> serde_json::Value {
    serde_json::json!({
        "ociVersion": "1.1.0", "hostname": "box", "root": {"path": "rootfs", "readonly": false},
        "process": process(args),
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
        ],
        "linux": {
            "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "cgroup"}],
            "maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"],
            "seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [
                {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]},
        },
    })
}

pub(super) fn request(spec: &serde_json::Value) -> CreateContainerRequest {
    CreateContainerRequest {
        container_id: id(),
        spec_json: spec.to_string().into_bytes(),
        rootfs: Some(base_root()).into(),
        stdio: Some(stdio()).into(),
        ..Default::default()
    }
}

/// A request to run a shell script.
pub(super) fn sh(script: &str) -> CreateContainerRequest {
    request(&spec(&["sh", "-c", script]))
}

pub(super) fn exec(exec_id: &str, args: &[&str]) -> ExecRequest {
    ExecRequest {
        container_id: id(),
        exec_id: exec_id.into(),
        process_json: process(args).to_string().into_bytes(),
        stdio: Some(stdio()).into(),
        ..Default::default()
    }
}

/// Sends everything and half-closes.
pub(super) async fn send(mut stream: UnixStream, bytes: &[u8]) -> UnixStream {
    stream.write_all(bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    stream
}
