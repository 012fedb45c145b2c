//! The `husk` command with a root of its own.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use nix::sys::signal::{Signal, kill};
use tempfile::TempDir;

use crate::{
    environment::{self, BUSYBOX},
    leftovers,
    process::{Output, Running},
    wait::{PATIENCE, wait_until, wait_within},
};

/// husk with a root of its own: nothing that other tests do is seen, and whatever is left is this test's.
///
/// `husk run` without a word about networks has none here, which is quicker: see [`Husk::with_network`].
#[derive(Debug)]
pub struct Husk {
    bin: PathBuf,
    root: TempDir,
    env: Vec<(String, String)>,
    has_network: bool,
}

impl Husk {
    /// With the prepared images, unpacked already. They are shared with other tests: none may remove or add any.
    ///
    /// # Panics
    /// When the root can't be made.
    pub fn new() -> Self {
        let this = Self::fresh();
        let (data, prepared) = (this.data(), environment::prepared_root().join("data"));
        fs::create_dir(&data).unwrap();
        for name in ["images", "disks"] {
            symlink(prepared.join(name), data.join(name)).unwrap();
        }
        this
    }

    /// With no image at all.
    ///
    /// # Panics
    /// When the root can't be made.
    pub fn fresh() -> Self {
        // A short path: unix sockets lie in it.
        let root = tempfile::Builder::new().prefix("husk-").tempdir().unwrap();
        Self { bin: environment::bin(), root, env: Vec::new(), has_network: false }
    }

    /// With the prepared images, for a test of networks: containers have the default one as they have it for users.
    ///
    /// # Panics
    /// When the root can't be made.
    pub fn with_network() -> Self {
        Self { has_network: true, ..Self::new() }
    }

    /// From now on, runs the `husk` in another directory.
    pub fn use_bin(&mut self, bin: PathBuf) {
        self.bin = bin;
    }

    /// Sets an environment variable for all commands.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl AsRef<Path>) -> Self {
        self.env.push((key.into(), value.as_ref().to_str().unwrap_or_default().into()));
        self
    }

    /// The binary.
    pub fn binary(&self) -> PathBuf {
        self.bin.join("husk")
    }

    /// The root.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Where images and disks are.
    pub fn data(&self) -> PathBuf {
        self.root().join("data")
    }

    /// Where the running sandboxes' directories are.
    pub fn run_dir(&self) -> PathBuf {
        self.root().join("run")
    }

    /// A `husk` command that has not been started.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(self.binary());
        let args: Vec<OsString> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
        let speaks_of_networks = |arg: &OsString| arg.as_encoded_bytes().starts_with(b"--network");
        let (verb, rest) = args.split_at(args.len().min(1));
        command.args(verb);
        if (verb == ["run"] || verb == ["create"])
            && !self.has_network
            && !rest.iter().any(speaks_of_networks)
        {
            command.args(["--network", "none"]);
        }
        self.prepare(command.args(rest));
        command
    }

    /// A shell script, run as root in a mount namespace of its own, in which `$HUSK` is the binary and `$ROOT` the root.
    pub fn script(&self, script: &str) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-ec", script]);
        command.env("HUSK", self.binary()).env("ROOT", self.root());
        self.prepare(&mut command);
        command
    }

    fn prepare(&self, command: &mut Command) {
        command.env("HUSK_ROOT", self.root()).env_remove("DOCKER_CONFIG");
        command.envs(self.env.iter().map(|(key, value)| (key, value)));
    }

    /// Starts `husk ARGS`.
    pub fn start<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Running {
        Running::start(&mut self.command(args))
    }

    /// Runs `husk ARGS` with nothing on standard input.
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        self.start(args).finish()
    }

    /// Runs `husk ARGS` with `input` on standard input.
    pub fn run_with_input<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
        input: Vec<u8>,
    ) -> Output {
        let mut running = self.start(args);
        running.feed(input);
        running.finish()
    }

    /// Starts a shell script in a busybox container.
    pub fn start_shell(&self, options: &[&str], script: &str) -> Running {
        self.start(shell_args(options, script))
    }

    /// Starts a busybox container that runs a shell script and then lives until its input ends; returns when it does.
    pub fn start_living(&self, options: &[&str], script: &str) -> Running {
        let options = [&["-i"], options].concat();
        let mut running = self.start_shell(&options, &format!("{script}\necho ready; cat >/dev/null"));
        running.wait_for_out("ready");
        running
    }

    /// Kills the supervisor of the only container with SIGKILL, and returns when all has ended that ran for it.
    ///
    /// # Panics
    /// When there is none, or something runs on.
    pub fn kill_supervisor(&self) {
        let all = leftovers::supervisors(self.root());
        let [supervisor] = &all[..] else { panic!("not one supervisor: {all:?}") };
        kill(supervisor.pid, Signal::SIGKILL).unwrap();
        wait_until("everything to end with it", PATIENCE, || leftovers::processes(self.root()).is_empty());
    }

    /// Runs a shell script in a busybox container.
    pub fn shell(&self, options: &[&str], script: &str) -> Output {
        self.start_shell(options, script).finish()
    }

    /// Nothing of what ran here is left, but records of containers that stay. A VM may still be taken apart when its client has ended.
    ///
    /// # Panics
    /// When something is.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        let gone = wait_within(PATIENCE, || leftovers::of(self.root()).is_empty().then_some(()));
        assert!(gone.is_some(), "left behind: {:#?}", leftovers::of(self.root()));
    }
}

impl Default for Husk {
    fn default() -> Self {
        Self::new()
    }
}

/// The arguments of `husk` that run a shell script in a busybox container.
pub fn shell_args(options: &[&str], script: &str) -> Vec<String> {
    let image = environment::image(BUSYBOX);
    let all = [&["run", "--rm"], options, &[image.as_str(), "sh", "-c", script]].concat();
    all.into_iter().map(str::to_owned).collect()
}
