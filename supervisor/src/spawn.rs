//! Starting a supervisor.

use std::{
    env,
    fs::File,
    io,
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::Path,
    process::{Command, Stdio},
};

use husk_base::socket;
use husk_network::{
    publish::{self, PortMapping},
    unprivileged,
};
use husk_sandbox::{
    Error, Result,
    network::NetworkMode,
    paths::{Assets, Dirs},
    rundir::{RunDir, STREAMS_SOCKET, SUPERVISOR_LOG, SUPERVISOR_SOCKET},
    store::{self, Config},
};

use crate::client::Pod;

impl Pod {
    /// Starts the supervisor of a container's own pod. It outlives this process, and whatever it is a child of.
    ///
    /// # Errors
    /// When the pod lives already, or the supervisor can't be started.
    pub fn spawn(dirs: &Dirs, config: &Config) -> Result<Self> {
        let (dir, dead) = RunDir::of_container(dirs, &config.id)?;
        store::remove_orphans(dirs, &dead);
        // It can be reached as soon as it exists.
        let api = socket::bind(&dir.join(SUPERVISOR_SOCKET))?;
        let streams = socket::bind(&dir.join(STREAMS_SOCKET))?;
        let log = dir.join(SUPERVISOR_LOG);
        let log_file =
            File::create(&log).map_err(|source| Error::Io { what: "create", path: log, source })?;
        let program = Assets::find_supervisor()?;
        let mut command = command(&program, dirs, config)?;
        command
            .env_clear()
            .envs(["PATH", "HOME"].into_iter().filter_map(|name| Some((name, env::var_os(name)?))))
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(api)))
            .stdout(Stdio::from(OwnedFd::from(streams)))
            .stderr(log_file);
        let leave = || {
            // SAFETY: takes no pointers; it is async-signal-safe.
            if unsafe { libc::setsid() } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
        };
        // SAFETY: between fork and exec the closure makes one call, which is async-signal-safe.
        unsafe { command.pre_exec(leave) };
        let child = command.spawn().map_err(|source| Error::Spawn {
            program: program.display().to_string(),
            hint: "install husk completely",
            source,
        })?;
        let mut pod = Self::connect(dir.path())?;
        pod.hold(dir, child);
        Ok(pod)
    }
}

/// Under pasta, where an ordinary user's container has a network.
fn command(program: &Path, dirs: &Dirs, config: &Config) -> Result<Command> {
    let args = [dirs.data.as_os_str(), dirs.run.as_os_str(), config.id.as_ref()];
    let options = &config.network.options;
    if !matches!(options.mode, NetworkMode::Pasta(_)) {
        let mut command = Command::new(program);
        command.args(args);
        return Ok(command);
    }
    // Claimed and given back: what is in use is found before anything starts.
    let bound = publish::bind::bind(&options.publish)?;
    let ports: Vec<PortMapping> = bound.iter().map(|port| port.mapping.clone()).collect();
    drop(bound);
    unprivileged::command(program, args, &ports).map_err(|missing| Error::InvalidOption(missing.to_string()))
}
