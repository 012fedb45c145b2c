//! What a container is asked to be: by its image, and by its user.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

/// What an image says of how to run it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// More arguments, or the program where there is no entry point.
    pub cmd: Vec<String>,
    /// `K=V`.
    pub env: Vec<String>,
    /// Working directory.
    pub working_dir: Option<String>,
    /// `user`, `uid`, `user:group`, ...
    pub user: Option<String>,
    /// Paths that stay writable when the root is read-only.
    pub volumes: Vec<String>,
    /// The signal that has its program end: a name or a number.
    pub stop_signal: Option<String>,
    /// Ports that its program listens on, as `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// Labels.
    pub labels: Vec<(String, String)>,
}

/// What a user asks of a container; what is not asked comes from the image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerOptions {
    /// Replaces the image's command.
    pub args: Vec<String>,
    /// Replaces the image's entry point and drops its command; empty: none at all.
    pub entrypoint: Option<String>,
    /// `K=V`, added to the image's environment.
    pub env: Vec<String>,
    /// Working directory.
    pub workdir: Option<PathBuf>,
    /// `user`, `uid`, `user:group`, ...
    pub user: Option<String>,
    /// Host name; the start of the container's id by default.
    pub hostname: Option<String>,
    /// CPU limit in thousandths of a CPU.
    pub milli_cpus: Option<u64>,
    /// Memory limit in bytes.
    pub memory_bytes: Option<u64>,
    /// No writing to the root file system.
    pub read_only: bool,
    /// The first process is an init, which starts the program, passes signals on to it, and reaps.
    #[serde(default)]
    pub init: bool,
    /// Mounts of a tmpfs.
    pub tmpfs: Vec<Tmpfs>,
    /// Give the process a terminal.
    pub terminal: bool,
    /// Keep its standard input open.
    pub interactive: bool,
    /// Its standard input ends with the first client that is attached to it.
    pub stdin_once: bool,
    /// The client that created it was to be attached to it.
    pub attached: bool,
    /// Labels, which come before the image's.
    pub labels: Vec<(String, String)>,
    /// The signal that has it end: a name or a number.
    pub stop_signal: Option<String>,
    /// Seconds between that signal and SIGKILL; negative: no limit.
    pub stop_timeout_s: Option<i64>,
}

impl ContainerOptions {
    /// Seconds between the stop signal and SIGKILL, if nothing is said (as Docker's).
    pub const STOP_TIMEOUT_S: i64 = 10;

    /// The container's host name.
    pub fn hostname(&self, id: &str) -> String {
        self.hostname.clone().unwrap_or_else(|| husk_base::id::short(id).to_owned())
    }
}

/// One `--tmpfs` option.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    /// Absolute path in the container.
    pub path: PathBuf,
    /// Mount options.
    pub options: Vec<String>,
}

/// Options of a tmpfs that have no value, and those that have one (tmpfs(5), mount(8)).
const TMPFS_FLAGS: [&str; 12] = [
    "ro",
    "rw",
    "exec",
    "noexec",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "sync",
    "async",
    "noatime",
    "nodiratime",
];
const TMPFS_VALUES: [&str; 7] = ["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "huge"];

impl FromStr for Tmpfs {
    type Err = String;

    /// Parses Docker's `PATH[:OPTION[,OPTION...]]`.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (path, options) = text.split_once(':').unwrap_or((text, ""));
        let path = PathBuf::from(path);
        if !path.is_absolute() || path == Path::new("/") {
            return Err("expected an absolute path other than /, as in /run or /run:size=64m,mode=755".into());
        }
        let given: Vec<&str> = options.split(',').filter(|option| !option.is_empty()).collect();
        let is_known = |option: &&&str| match option.split_once('=') {
            Some((key, value)) => !TMPFS_VALUES.contains(&key) || value.is_empty(),
            None => !TMPFS_FLAGS.contains(*option),
        };
        if let Some(unknown) = given.iter().find(is_known) {
            return Err(format!(
                "{unknown:?} is not an option of a tmpfs: use {} or {}=VALUE",
                TMPFS_FLAGS.join(", "),
                TMPFS_VALUES.join("=VALUE, ")
            ));
        }
        let defaults = ["noexec", "nosuid", "nodev"];
        let options = defaults.into_iter().chain(given).map(str::to_owned).collect();
        Ok(Self { path, options })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tmpfs_options_are_those_of_mount() {
        let parsed: Tmpfs = "/run:size=64m,mode=755,exec".parse().unwrap();
        assert_eq!(parsed.path, Path::new("/run"));
        assert_eq!(parsed.options, ["noexec", "nosuid", "nodev", "size=64m", "mode=755", "exec"]);
        for wrong in ["run", "/", "/a:bogus", "/a:size=", "/a:ro=1", ""] {
            assert!(wrong.parse::<Tmpfs>().is_err(), "{wrong}");
        }
    }
}
