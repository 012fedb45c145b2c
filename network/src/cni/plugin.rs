//! Runs one plugin: configuration on its standard input, parameters in its environment, result on its standard output.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
};

use super::{Error, Result, result};

/// More of an answer than this is no answer.
const MAX_OUTPUT_BYTES: u64 = 1 << 20;
/// How much of what a plugin printed an error shows.
const SHOWN_BYTES: usize = 400;
/// Where plugins find iptables and the like.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// One run of a plugin.
#[derive(Debug)]
pub(super) struct Call<'a> {
    /// ADD, CHECK or DEL.
    pub(super) command: &'static str,
    pub(super) plugin: &'a str,
    /// `CNI_*` besides command and path.
    pub(super) env: Vec<(&'static str, OsString)>,
    pub(super) stdin: Vec<u8>,
    pub(super) dirs: &'a [PathBuf],
    pub(super) timeout: Duration,
}

impl Call<'_> {
    /// Runs it to its end, and gives what it printed. It, and what it started, is killed when it takes too long, prints
    /// too much, or this future is dropped.
    ///
    /// # Errors
    /// When the plugin is missing, fails, or takes too long.
    pub(super) async fn run(self) -> Result<Vec<u8>> {
        let program = self.find()?;
        let failed = |source| Error::Run { program: program.clone(), source };
        let mut child = self.command(&program).spawn().map_err(failed)?;
        let group = Group(child.id());
        let (status, stdout, stderr) =
            match tokio::time::timeout(self.timeout, talk(&mut child, &self.stdin)).await {
                Ok(result) => result.map_err(failed)?,
                Err(_) => {
                    drop(group);
                    return Err(self.timed_out());
                }
            };
        drop(group);
        if status.success() {
            return Ok(stdout);
        }
        let plugin = self.plugin.to_owned();
        match result::read_error(&stdout) {
            Some(error) => Err(Error::Plugin { plugin, command: self.command, error }),
            None => {
                let output = shown(if stdout.is_empty() { &stderr } else { &stdout });
                Err(Error::Failed { plugin, command: self.command, status, output })
            }
        }
    }

    fn timed_out(&self) -> Error {
        let seconds = self.timeout.as_secs();
        Error::Timeout { plugin: self.plugin.into(), command: self.command, seconds }
    }

    fn find(&self) -> Result<PathBuf> {
        let found = self.dirs.iter().map(|dir| dir.join(self.plugin)).find(|path| path.is_file());
        found.ok_or_else(|| Error::NoPlugin { plugin: self.plugin.into(), dirs: self.dirs.into() })
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        // Plugins look for others (IPAM) there.
        let path = std::env::join_paths(self.dirs).unwrap_or_default();
        command
            .env_clear()
            .env("PATH", PATH)
            .env("CNI_COMMAND", self.command)
            .env("CNI_PATH", path)
            .envs(self.env.iter().map(|(key, value)| (key, value)))
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        command
    }
}

/// Kills a plugin's process group when dropped: nothing that a plugin started outlives it.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.0.and_then(|id| i32::try_from(id).ok()) {
            // Nobody left is fine.
            let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
        }
    }
}

async fn talk(child: &mut Child, input: &[u8]) -> io::Result<(std::process::ExitStatus, Vec<u8>, Vec<u8>)> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let write = async {
        let Some(mut stdin) = stdin else { return Ok(()) };
        match stdin.write_all(input).await {
            // It has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => result,
        }
    };
    let ((), stdout, stderr) = tokio::try_join!(write, read(stdout), read(stderr))?;
    Ok((child.wait().await?, stdout, stderr))
}

async fn read(pipe: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let Some(pipe) = pipe else { return Ok(bytes) };
    pipe.take(MAX_OUTPUT_BYTES + 1).read_to_end(&mut bytes).await?;
    if bytes.len() as u64 > MAX_OUTPUT_BYTES {
        return Err(io::Error::other(format!("it printed more than {MAX_OUTPUT_BYTES} bytes")));
    }
    Ok(bytes)
}

/// The beginning of what a plugin printed, for an error.
pub(super) fn shown(output: &[u8]) -> String {
    let cut = &output[..output.len().min(SHOWN_BYTES)];
    String::from_utf8_lossy(cut).trim().to_owned()
}
