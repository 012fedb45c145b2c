//! A network without root, by `pasta` of the passt project: husk runs itself again as root of a user namespace, in a
//! network namespace with one tap that stands for the host's network, and takes that over as any other
//! ([`takeover`](crate::takeover)).
//!
//! What is different in there, as seen with Debian 12's: husk is process 1 of a PID namespace (with the outer /proc), only
//! one user and one group id exist, and pasta gives on the exit code, but 0 for a death by signal. BPF's socket lookup is
//! not allowed, so [`Loopback`](crate::takeover::loopback::Loopback) does not work; taps, tc and nftables do.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::Command,
};

use crate::publish::{PortMapping, PortProtocol};

const TUN: &str = "/dev/net/tun";
const MAX_NAMESPACES: &str = "/proc/sys/user/max_user_namespaces";
/// Switches of distributions' kernels: path, and the value that forbids user namespaces to ordinary users.
const SWITCHES: [(&str, &str); 2] = [
    ("/proc/sys/kernel/unprivileged_userns_clone", "0"),
    ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
];

/// What an ordinary user lacks for a network.
#[derive(Debug, thiserror::Error)]
pub enum Missing {
    /// The program.
    #[error(
        "a network without root needs pasta: install the package passt, run husk as root, or use --network none"
    )]
    Pasta,
    /// The device of taps.
    #[error(
        "a network without root needs {TUN} to be readable and writable for this user (usual mode: 0666)"
    )]
    Tun(#[source] io::Error),
    /// The kernel is told not to.
    #[error("a network without root needs user namespaces, but {} is {value}", path.display())]
    UserNamespaces {
        /// The setting.
        path: PathBuf,
        /// What it is.
        value: String,
    },
}

/// Has pasta's end, however it comes, ask this husk to end the container and itself.
///
/// # Errors
/// When the kernel refuses.
pub fn end_with_pasta() -> io::Result<()> {
    // SAFETY: takes no pointers.
    let result = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether an ordinary user can have a network.
///
/// # Errors
/// What is missing for it.
pub fn check() -> Result<(), Missing> {
    find().map(drop)
}

fn find() -> Result<PathBuf, Missing> {
    let pasta = find_pasta(&env::var_os("PATH").unwrap_or_default()).ok_or(Missing::Pasta)?;
    File::options().read(true).write(true).open(TUN).map_err(Missing::Tun)?;
    check_user_namespaces()?;
    Ok(pasta)
}

/// The command that runs `husk` with `args` under pasta, with these ports of the host leading to it.
///
/// # Errors
/// What is missing for it.
pub fn command<A: AsRef<OsStr>>(
    husk: &Path,
    args: impl IntoIterator<Item = A>,
    ports: &[PortMapping],
) -> Result<Command, Missing> {
    let pasta = find()?;
    let mut command = Command::new(pasta);
    // In the foreground, and silent; the interface is set up by pasta itself; the host's own loopback stays out of reach.
    command.args(["--foreground", "--quiet", "--config-net", "--no-map-gw"]);
    for (option, protocol) in [("--tcp-ports", PortProtocol::Tcp), ("--udp-ports", PortProtocol::Udp)] {
        let mut specs = ports.iter().filter(|port| port.protocol == protocol).map(port_spec).peekable();
        if specs.peek().is_none() {
            // Otherwise it is "auto": whatever listens in there.
            command.args([option, "none"]);
        }
        for spec in specs {
            command.args([option, &spec]);
        }
    }
    // Nothing of the host's for those inside.
    command.args(["--tcp-ns", "none", "--udp-ns", "none", "--"]);
    command.arg(husk).args(args);
    Ok(command)
}

/// `[address/]host port:port inside`.
fn port_spec(port: &PortMapping) -> String {
    let ip = port.host_ip.map(|ip| format!("{ip}/")).unwrap_or_default();
    format!("{ip}{}:{}", port.host_port, port.container_port)
}

fn find_pasta(path: &OsString) -> Option<PathBuf> {
    env::split_paths(path).map(|dir| dir.join("pasta")).find(|path| path.is_file())
}

fn check_user_namespaces() -> Result<(), Missing> {
    for (path, forbids) in SWITCHES.iter().chain([&(MAX_NAMESPACES, "0")]) {
        let value = fs::read_to_string(path).unwrap_or_default();
        if value.trim() == *forbids {
            return Err(Missing::UserNamespaces { path: path.into(), value: value.trim().into() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Sandboxed;

    fn arguments(ports: &[PortMapping]) -> Vec<String> {
        let command = command(Path::new("/bin/husk"), ["run", "x"], ports).unwrap();
        command.get_args().map(|arg| arg.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn the_command_names_ports_and_husk() {
        if find_pasta(&env::var_os("PATH").unwrap()).is_none() || command(Path::new("x"), ["y"], &[]).is_err()
        {
            eprintln!("SKIPPED: needs pasta, user namespaces and {TUN}");
            return;
        }
        let none = "--foreground --quiet --config-net --no-map-gw --tcp-ports none --udp-ports none --tcp-ns none \
                    --udp-ns none -- /bin/husk run x";
        assert_eq!(arguments(&[]).join(" "), none);
        let port = |host_ip: Option<&str>, protocol| PortMapping {
            host_ip: host_ip.map(|ip| ip.parse().unwrap()),
            host_port: 8080,
            container_port: 80,
            protocol,
        };
        let some =
            arguments(&[port(Some("127.0.0.1"), PortProtocol::Tcp), port(None, PortProtocol::Udp)]).join(" ");
        assert!(some.contains("--tcp-ports 127.0.0.1/8080:80 --udp-ports 8080:80 --tcp-ns"), "{some}");
    }

    #[test]
    fn pasta_is_looked_for_in_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = env::join_paths([Path::new("/nonexistent"), dir.path()]).unwrap();
        assert_eq!(find_pasta(&path), None);
        fs::write(dir.path().join("pasta"), "").unwrap();
        assert_eq!(find_pasta(&path), Some(dir.path().join("pasta")));
        assert!(Missing::Pasta.to_string().contains("install the package passt"));
    }

    /// As an ordinary user in a namespace with something that looks like a host's network.
    #[test]
    fn an_ordinary_user_can_make_taps_and_redirect_there() {
        use std::os::unix::process::CommandExt;
        let Some(_own) = Sandboxed::enter() else { return };
        if find_pasta(&env::var_os("PATH").unwrap()).is_none() {
            eprintln!("SKIPPED: needs pasta");
            return;
        }
        crate::testing::open_tun_to_all();
        crate::testing::ip("link add eth0 type veth peer name far");
        crate::testing::ip("link set eth0 up");
        crate::testing::ip("link set far up");
        crate::testing::ip("addr add 192.0.2.7/24 dev eth0");
        crate::testing::ip("route add default via 192.0.2.1");
        let script = "set -e; test $(id -u) = 0; ip -o addr show dev eth0 | grep -q 192.0.2.7; \
                      ip tuntap add t0 mode tap vnet_hdr; tc qdisc add dev eth0 ingress; \
                      tc filter add dev eth0 ingress protocol all u32 match u8 0 0 action mirred egress redirect dev t0; \
                      nft add table inet t; exit 42";
        let mut command = command(Path::new("/bin/sh"), ["-c", script], &[]).unwrap();
        command.uid(65534).gid(65534).current_dir("/");
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(42), "{output:?}");
    }
}
