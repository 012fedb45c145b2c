//! The hooks of an OCI spec (runtime-spec, config.md, "POSIX-platform Hooks") that run on the host: programs of whoever made the
//! container, which are told its state on their standard input, and may for instance fill its network namespace.
//!
//! | hook | where | when |
//! |---|---|---|
//! | `prestart`, `createRuntime` | host | when the network namespace is there, before the VM is |
//! | `createContainer` | host, in the container's network namespace and a mount namespace in which its root is mounted | when the VM is there, before the container is |
//! | `startContainer` | guest, in the container: the agent's affair | before the container's program |
//! | `poststart` | host | when the program runs |
//! | `poststop` | host | when the container is deleted |

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use husk_base::chain;
use oci_spec::runtime::{Hook, Hooks, Spec};
use serde::Serialize;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::Command,
    time::timeout,
};

use super::{
    bundle::Annotations,
    error::{Error, HookFailure},
};
use crate::pod::{RootView, RootfsSource};

/// Most bytes that are kept of what a hook says.
const MAX_SAID: u64 = 4096;
/// In the bundle: its `poststop` hooks have run.
const STOPPED: &str = "poststop-done";

/// What a hook is told (runtime-spec, runtime.md, "State").
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct State<'a> {
    oci_version: &'a str,
    id: &'a str,
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    bundle: &'a Path,
    #[serde(skip_serializing_if = "Annotations::is_empty")]
    annotations: &'a Annotations,
}

/// How far a container has come, in a hook's words.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Creating,
    Running,
    Stopped,
}

/// The host's hooks of a container, if it has any.
#[derive(Debug, Clone)]
pub struct HostHooks {
    hooks: Hooks,
    id: String,
    bundle: PathBuf,
    oci_version: String,
    annotations: Annotations,
}

impl HostHooks {
    /// Reads them from a spec.
    pub fn of(id: &str, bundle: &Path, spec: &Spec) -> Option<Self> {
        let hooks = spec.hooks().clone()?;
        let annotations = spec.annotations().clone().unwrap_or_default();
        let (id, bundle, oci_version) = (id.to_owned(), bundle.to_owned(), spec.version().clone());
        Some(Self { hooks, id, bundle, oci_version, annotations })
    }

    /// Runs `prestart` and `createRuntime` hooks; `pid` is in the container's network namespace.
    ///
    /// # Errors
    /// The first failure.
    pub async fn created(&self, pid: u32) -> Result<(), Error> {
        let prestart = self.hooks.prestart().as_deref();
        self.run_all("prestart", prestart, Status::Creating, Some(pid), None).await?;
        let create = self.hooks.create_runtime().as_deref();
        self.run_all("createRuntime", create, Status::Creating, Some(pid), None).await
    }

    /// Runs `createContainer` hooks, where the root is seen at `at`; `pid` is in the container's network namespace.
    ///
    /// # Errors
    /// When the root can't be seen by the host's programs, or the first failure.
    pub async fn creating(&self, root: &RootfsSource, at: &Path, pid: u32) -> Result<(), Error> {
        let hooks = self.hooks.create_container().as_deref().filter(|hooks| !hooks.is_empty());
        let Some(hooks) = hooks else { return Ok(()) };
        let netns = PathBuf::from(format!("/proc/{pid}/ns/net"));
        let view = RootView::open(root, at, &netns).await;
        let view = view.map_err(|error| failed("createContainer", &hooks[0], error.into()))?;
        self.run_all("createContainer", Some(hooks), Status::Creating, Some(pid), Some(&view)).await
    }

    /// Runs `poststart` hooks.
    ///
    /// # Errors
    /// The first failure.
    pub async fn started(&self, pid: u32) -> Result<(), Error> {
        self.run_all("poststart", self.hooks.poststart().as_deref(), Status::Running, Some(pid), None).await
    }

    /// Runs `poststop` hooks, unless that was done before. A failure is a warning, and the others run all the same.
    pub async fn stopped(&self) {
        let Some(hooks) = self.hooks.poststop().as_deref().filter(|hooks| !hooks.is_empty()) else { return };
        if fs::File::create_new(self.bundle.join(STOPPED)).is_err() {
            return;
        }
        for one in hooks.chunks(1) {
            if let Err(error) = self.run_all("poststop", Some(one), Status::Stopped, None, None).await {
                tracing::warn!("{}", chain::text(&error));
            }
        }
    }

    async fn run_all(
        &self,
        kind: &'static str,
        hooks: Option<&[Hook]>,
        status: Status,
        pid: Option<u32>,
        view: Option<&RootView>,
    ) -> Result<(), Error> {
        let (oci_version, id, annotations) = (self.oci_version.as_str(), self.id.as_str(), &self.annotations);
        let state = State { oci_version, id, status, pid, bundle: &self.bundle, annotations };
        for hook in hooks.into_iter().flatten() {
            self.run(hook, &state, view).await.map_err(|failure| failed(kind, hook, failure))?;
        }
        Ok(())
    }

    async fn run(&self, hook: &Hook, state: &State<'_>, view: Option<&RootView>) -> Result<(), HookFailure> {
        if !hook.path().is_absolute() {
            return Err(HookFailure::RelativePath);
        }
        let state = serde_json::to_vec(state).map_err(HookFailure::State)?;
        let args = hook.args().as_deref().unwrap_or_default();
        let mut command = Command::new(hook.path());
        if let Some(name) = args.first() {
            command.arg0(name);
        }
        let env = hook.env().iter().flatten().filter_map(|entry| entry.split_once('='));
        command.args(args.iter().skip(1)).env_clear().envs(env).current_dir(&self.bundle);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = match view {
            Some(view) => view.spawn(command).await?,
            None => command.spawn()?,
        };
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let told = async {
            // One that does not want to know closes it.
            if let Some(mut stdin) = stdin {
                let _ = stdin.write_all(&state).await;
            }
        };
        let done = async { tokio::join!(child.wait(), told, heard(stdout), heard(stderr)) };
        let seconds = hook.timeout().and_then(|seconds| u64::try_from(seconds).ok());
        let (ended, (), out, err) = match seconds.filter(|seconds| *seconds > 0) {
            Some(seconds) => timeout(Duration::from_secs(seconds), done)
                .await
                .map_err(|_| HookFailure::Timeout { seconds })?,
            None => done.await,
        };
        let status = ended?;
        if status.success() {
            return Ok(());
        }
        let said = [err.trim(), out.trim()].into_iter().find(|said| !said.is_empty());
        Err(HookFailure::Exit { status, said: said.unwrap_or_default().to_owned() })
    }
}

fn failed(kind: &'static str, hook: &Hook, source: HookFailure) -> Error {
    Error::Hook { kind, path: hook.path().clone(), source }
}

/// The beginning of what a hook says. The rest is read, too, so that nobody waits.
async fn heard(stream: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut stream) = stream else { return String::new() };
    let mut said = Vec::new();
    let _ = (&mut stream).take(MAX_SAID).read_to_end(&mut said).await;
    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&said).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::pod::DiskSource;

    fn hooks(dir: &Path, hooks: Value) -> Option<HostHooks> {
        let spec = json!({ "ociVersion": "1.0.2", "annotations": { "a": "b" }, "hooks": hooks });
        HostHooks::of("c1", dir, &serde_json::from_value(spec).unwrap())
    }

    fn sh(script: &str) -> Value {
        json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["A=1"] })
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn a_hook_is_told_the_state_and_has_its_own_environment() {
        let dir = tempfile::tempdir().unwrap();
        let all = json!({
            "prestart": [sh("cat > first; echo \"$A:$HOME\" > env")],
            "createRuntime": [sh("cp first second")],
            "poststart": [sh("cat > running")],
            "poststop": [sh("exit 3"), sh("cat >> stopped")],
        });
        let hooks = hooks(dir.path(), all).unwrap();
        block_on(async {
            hooks.created(7).await.unwrap();
            hooks.started(7).await.unwrap();
            hooks.stopped().await;
            hooks.stopped().await;
        });
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        let state = |name: &str| serde_json::from_str::<Value>(&read(name)).unwrap();
        let created = json!({
            "ociVersion": "1.0.2", "id": "c1", "status": "creating", "pid": 7,
            "bundle": dir.path(), "annotations": { "a": "b" },
        });
        assert_eq!(state("second"), created);
        assert_eq!(read("env"), "1:\n");
        assert_eq!(state("running")["status"], "running");
        assert_eq!((&state("stopped")["status"], state("stopped").get("pid")), (&json!("stopped"), None));
    }

    #[test]
    fn failures_and_hooks_that_take_too_long_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let said = |hook: Value| {
            let hooks = hooks(dir.path(), json!({ "createRuntime": [hook] })).unwrap();
            chain::text(&block_on(hooks.created(7)).unwrap_err())
        };
        let failed = said(sh("echo no network >&2; exit 4"));
        assert!(
            failed.contains("createRuntime hook /bin/sh failed") && failed.contains("no network"),
            "{failed}"
        );
        let slow = said(json!({ "path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1 }));
        assert!(slow.contains("did not end within its 1 s"), "{slow}");
        assert!(said(json!({ "path": "bin/true" })).contains("not absolute"));
        assert!(said(json!({ "path": "/nonexistent" })).contains("No such file"));
    }

    #[test]
    fn programs_of_the_host_see_no_root_that_is_a_disk() {
        let dir = tempfile::tempdir().unwrap();
        let hooks = hooks(dir.path(), json!({ "createContainer": [sh("true")] })).unwrap();
        let disk = RootfsSource::Disk(DiskSource { path: "/dev/x".into(), ..DiskSource::default() });
        let refused = chain::text(&block_on(hooks.creating(&disk, dir.path(), 7)).unwrap_err());
        let all = "the createContainer hook /bin/sh failed: the host does not mount the disk /dev/x";
        assert!(refused.starts_with(all), "{refused}");
    }
}
