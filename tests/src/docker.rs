//! A real dockerd and its client, in a machine that is ours: `scripts/e2e-docker.sh` runs these tests as root in a root file
//! system with Debian's Docker, with husk installed there.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

use crate::{
    containerd::processes,
    process::{Output, Running},
    wait::{PATIENCE, wait_for, wait_until},
};

/// husk's runtime, by the name that `husk containerd install` gives it, and runc's.
pub const HUSK: &str = "husk";
/// The one that husk's is compared with.
pub const RUNC: &str = "runc";
/// The image that is there.
pub const IMAGE: &str = "busybox";

const CONFIG_DIR: &str = "/etc/docker";
/// Where the runtime `husk-large` has its own configuration.
pub const LARGE: &str = "/etc/husk/large.toml";
/// Its store needs a file system that overlayfs can stand on. There is no systemd.
const CONFIG: &str = r#"{
    "data-root": "/lab/disk/docker", "debug": true, "exec-opts": ["native.cgroupdriver=cgroupfs"],
    "runtimes": { "husk-large": {
        "runtimeType": "io.containerd.husk.v2", "options": { "ConfigPath": "/etc/husk/large.toml" }
    } }
}"#;
/// husk's root, where its commands are compared with Docker's.
pub const HOME: &str = "/lab/disk/husk";
const IMAGE_ARCHIVE: &str = "/opt/husk-test/busybox.tar";
const CONTAINERD_CONFIG: &str =
    "version = 2\nroot = '/lab/disk/containerd'\ndisabled_plugins = ['io.containerd.grpc.v1.cri']\n";
/// What bridges and Docker's rules need of the kernel.
const MODULES: [&str; 10] = [
    "bridge",
    "br_netfilter",
    "veth",
    "overlay",
    "iptable_nat",
    "iptable_filter",
    "nft_compat",
    "xt_conntrack",
    "xt_MASQUERADE",
    "xt_addrtype",
];

/// containerd and dockerd, started once for all tests; `husk containerd install` has told it of husk.
///
/// # Panics
/// When it can't be started, or the image can't be loaded.
pub fn dockerd() -> &'static [Child; 2] {
    static ONE: OnceLock<[Child; 2]> = OnceLock::new();
    ONE.get_or_init(|| {
        for module in MODULES {
            let loaded = Running::start(Command::new("modprobe").arg(module)).finish();
            if loaded.code != 0 {
                eprintln!("no kernel module {module}: {}", loaded.err().trim());
            }
        }
        fs::create_dir_all(CONFIG_DIR).unwrap();
        fs::write(format!("{CONFIG_DIR}/daemon.json"), CONFIG).unwrap();
        Running::start(Command::new("husk").args(["containerd", "install"])).finish().expect_code(0);
        fs::create_dir_all("/etc/containerd").unwrap();
        fs::write("/etc/containerd/config.toml", CONTAINERD_CONFIG).unwrap();
        // As Debian's units start them: a containerd of Docker's own must answer within 15 s, which a slow machine can't.
        let containerd = start("containerd", &[]);
        wait_until("containerd to answer", PATIENCE, || {
            Running::start(Command::new("ctr").arg("version")).finish().code == 0
        });
        let daemon = start("dockerd", &["--containerd", "/run/containerd/containerd.sock"]);
        wait_until("dockerd to answer", PATIENCE, || docker(&["version"]).code == 0);
        eprintln!("tested with Docker {}", say(&["version", "-f", "{{.Server.Version}}"]).trim());
        docker(&["load", "-i", IMAGE_ARCHIVE]).expect_code(0);
        Running::start(Command::new("husk").args(["load", "-i", IMAGE_ARCHIVE]).env("HUSK_ROOT", HOME))
            .finish()
            .expect_code(0);
        [containerd, daemon]
    })
}

fn start(program: &str, args: &[&str]) -> Child {
    let log = fs::File::create(format!("/lab/out/{program}.log")).unwrap();
    let errors = log.try_clone().unwrap();
    Command::new(program).args(args).stdout(log).stderr(errors).stdin(Stdio::null()).spawn().unwrap()
}

/// Runs `docker` to its end.
pub fn docker(args: &[&str]) -> Output {
    Running::start(Command::new("docker").args(args)).finish()
}

/// What a `docker` says that is to succeed.
#[track_caller]
pub fn say(args: &[&str]) -> String {
    docker(args).expect_code(0).out()
}

/// `docker run --rm` of a script.
pub fn run(runtime: &str, options: &[&str], script: &str) -> Output {
    docker(&[&["run", "--rm", "--runtime", runtime], options, &[IMAGE, "sh", "-c", script]].concat())
}

/// Starts a script in the background.
#[track_caller]
pub fn detached(name: &str, options: &[&str], script: &str) {
    let start = ["run", "-d", "--runtime", HUSK, "--name", name];
    docker(&[&start, options, &[IMAGE, "sh", "-c", script]].concat()).expect_code(0);
}

/// The last line of what an HTTP server says at a port of this machine, once it serves.
///
/// # Panics
/// When nobody answers.
pub fn get(address: &str) -> String {
    let ask = || {
        let mut stream = TcpStream::connect(address).ok()?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.lines().last().map(str::to_owned)
    };
    wait_for(&format!("an answer of {address}"), PATIENCE, ask)
}

/// How many VMs there are: each has one shim.
pub fn machines() -> usize {
    processes("containerd-shim-husk-v2 -namespace moby").len()
}
