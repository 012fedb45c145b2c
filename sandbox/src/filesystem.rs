//! The server of a shared directory, `husk-fs`, as a process.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::{Child, Command};

use crate::{
    Error, Result,
    rundir::RunDir,
    vm::{inherit, tail},
};

/// A running server. It ends when its VMM hangs up, when this is dropped, and when this process ends.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    _lifeline: io::PipeWriter,
    log: PathBuf,
}

/// How to start a server.
#[derive(Debug)]
pub(crate) struct ServerPlan {
    command: std::process::Command,
    inherited: Vec<OwnedFd>,
    lifeline: io::PipeWriter,
    log: PathBuf,
    binary: PathBuf,
}

impl ServerPlan {
    /// A server of the directory `root`, for the sandbox in `dir`; and the connection with it that its VMM gets. `cgroup` is the
    /// directory of a cgroup to put it in.
    pub(crate) fn new(
        binary: &Path,
        root: &Path,
        dir: &RunDir,
        cgroup: Option<&Path>,
    ) -> Result<(Self, OwnedFd)> {
        let socket = dir.join("fs");
        let listener = husk_base::socket::bind(&socket)?;
        let connection = husk_base::socket::connect(&socket)?;
        // Nobody else is to come this way.
        std::fs::remove_file(&socket).map_err(Error::io("remove", &socket))?;
        let (lifeline_end, lifeline) = io::pipe().map_err(Error::io("create", "a lifeline"))?;
        let inherited = vec![listener.into(), OwnedFd::from(lifeline_end), dir.lock_for_another()?.into()];
        let log = dir.join("fs.log");
        let log_file = File::create(&log).map_err(Error::io("create", &log))?;
        let mut command = std::process::Command::new(binary);
        command.arg("--root").arg(root);
        command.arg("--listen").arg(inherited[0].as_raw_fd().to_string());
        command.arg("--lifeline").arg(inherited[1].as_raw_fd().to_string());
        command.arg("--lock").arg(inherited[2].as_raw_fd().to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log_file);
        if let Some(cgroup) = cgroup {
            command.arg("--cgroup").arg(cgroup);
        }
        let this = Self { command, inherited, lifeline, log, binary: binary.into() };
        Ok((this, connection.into()))
    }

    /// Starts it, in the mount namespace of this thread.
    pub(crate) fn spawn(self) -> Result<Server> {
        let Self { command, inherited, lifeline, log, binary } = self;
        let mut command = Command::from(command);
        // A terminal's signals are not for it.
        command.kill_on_drop(true).process_group(0);
        inherit(&mut command, inherited);
        let child = command.spawn().map_err(|source| Error::Spawn {
            program: binary.display().to_string(),
            hint: "install husk completely",
            source,
        })?;
        Ok(Server { child, _lifeline: lifeline, log })
    }
}

impl Server {
    /// Its process id, while it lives.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Returns when it has ended, and why it did.
    pub(crate) async fn ended(&mut self) -> String {
        // One that can't be waited for is not there.
        let _ = self.child.wait().await;
        let said = tail(&self.log).unwrap_or_else(|| "it said nothing".into());
        format!("the file system server ended: {said}")
    }

    /// Ends it at once.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        self.child.kill().await.map_err(Error::io("end", "the file system server"))
    }
}
