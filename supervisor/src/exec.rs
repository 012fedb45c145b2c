//! Other processes in a container.

use std::sync::Arc;

use husk_protocol::pod::ExecRequest;
use husk_sandbox::{
    Error, Result,
    pod::{Exit, StdioFlags, state::Action, state::Status},
    spec,
};
use oci_spec::runtime::{BoxBuilder, Process};

use crate::{
    end::KILLED,
    entry::ProcessEntry,
    hub::Log,
    supervisor::{Supervisor, unknown},
};

/// Execs of a container that have ended and are remembered, for clients whose question how comes after the end.
const REMEMBERED: usize = 64;

impl Supervisor {
    /// Adds an exec, which does not run yet.
    ///
    /// # Errors
    /// When the container does not run, or the id is taken.
    pub(crate) fn add_exec(&self, request: ExecRequest) -> Result<()> {
        let (id, exec_id, action) =
            (request.container_id.clone(), request.exec_id.clone(), action("exec_create", &request));
        self.insert_exec(&id, &exec_id, request)?;
        self.event(&id, &action, &[("execID", exec_id)]);
        Ok(())
    }

    fn insert_exec(&self, id: &str, exec_id: &str, request: ExecRequest) -> Result<()> {
        let mut containers = self.containers();
        let status = containers.process(id, "").map_err(unknown)?.status;
        if status == Status::Paused {
            let text = format!("Container {id} is paused, unpause the container before exec");
            return Err(Error::WrongState(text));
        }
        if status != Status::Running {
            return Err(Error::WrongState(format!("container {id} is not running")));
        }
        let ended: Vec<String> = containers
            .get(id)
            .map_err(unknown)?
            .execs()
            .filter(|(_, exec)| matches!(exec.status, Status::Stopped(_)))
            .map(|(id, _)| id.to_owned())
            .collect();
        for forgotten in ended.iter().skip(REMEMBERED) {
            containers.remove_exec(id, forgotten);
        }
        let entry = ProcessEntry::new(true, Some(request));
        containers.add_exec(id, exec_id, entry).map_err(unknown)
    }

    /// Runs an exec. Returns its number in the VM.
    ///
    /// # Errors
    /// When it was started before, or its program can't be run.
    pub(crate) async fn start_exec(self: &Arc<Self>, id: &str, exec_id: &str) -> Result<u32> {
        let (request, hub, process) = {
            let mut containers = self.containers();
            containers.allow(id, exec_id, Action::Start).map_err(unknown)?;
            let spec = containers.get(id).map_err(unknown)?.own.spec.clone();
            let process = spec.and_then(|spec| spec.process().clone());
            let entry = containers.process_mut(id, exec_id).map_err(unknown)?;
            entry.status = Status::Running;
            (entry.own.exec.take().unwrap_or_default(), entry.own.hub.clone(), process)
        };
        let wanted = process.ok_or_else(|| Error::WrongState(format!("container {id} is not running")));
        let started = async {
            let process = process_of(&request, wanted?)?;
            let attached = !request.detached;
            let stdio = StdioFlags {
                stdin: request.stdin && attached,
                stdout: attached,
                stderr: attached && !request.terminal,
                terminal: request.terminal,
            };
            let created = self.pod()?.exec(id, exec_id, process, stdio, Some(&request.user)).await?;
            hub.connect(created.streams, &Log::default()).map_err(|source| Error::Io {
                what: "use",
                path: "the process's standard streams".into(),
                source,
            })?;
            Ok(created.pid)
        };
        let pid = match started.await {
            Ok(pid) => pid,
            Err(error) => {
                let code = if let Error::ExecutableNotFound(_) | Error::ExecutableNotPermitted(_) = &error {
                    error.exit_code()
                } else {
                    126
                };
                self.exec_ended(id, exec_id, code.into());
                return Err(error);
            }
        };
        if let Ok(process) = self.containers().process_mut(id, exec_id) {
            process.own.pid = pid;
        }
        self.event(id, &action("exec_start", &request), &[("execID", exec_id.to_owned())]);
        tokio::spawn(attend(self.clone(), id.to_owned(), exec_id.to_owned()));
        Ok(pid)
    }

    fn exec_ended(&self, id: &str, exec_id: &str, code: u32) {
        self.event(id, "exec_die", &[("execID", exec_id.to_owned()), ("exitCode", code.to_string())]);
        let exit = Exit { code, oom_killed: false, at: std::time::SystemTime::now() };
        if let Ok(process) = self.containers().process_mut(id, exec_id) {
            process.own.hub.end();
            process.exited(exit);
        }
    }
}

/// An action with the exec's command, as Docker names it.
fn action(name: &str, request: &ExecRequest) -> String {
    format!("{name}: {}", request.args.join(" "))
}

/// Waits for the end of an exec.
async fn attend(supervisor: Arc<Supervisor>, id: String, exec_id: String) {
    let Ok(pod) = supervisor.pod() else { return supervisor.exec_ended(&id, &exec_id, KILLED) };
    let code = pod.wait(&id, &exec_id).await.map_or(KILLED, |exit| exit.code);
    if let Ok(hub) = supervisor.hub(&id, &exec_id) {
        hub.finish(|| !supervisor.is_stopping(&id)).await;
    }
    supervisor.exec_ended(&id, &exec_id, code);
    // The guest needs to remember it no longer; its end may have come with the container's.
    let _ = pod.delete_exec(&id, &exec_id).await;
}

/// The process that is asked for, with what is not said from the container's first one.
fn process_of(request: &ExecRequest, mut process: Process) -> Result<Process> {
    if request.args.is_empty() {
        return Err(Error::InvalidOption("there is no command to run".into()));
    }
    process.set_args(Some(request.args.clone())).set_terminal(Some(request.terminal));
    let env = process.env().clone().unwrap_or_default();
    process.set_env(Some(spec::with_variables(env, &request.env, request.terminal)));
    if !request.workdir.is_empty() {
        process.set_cwd(request.workdir.clone().into());
    }
    if request.privileged {
        process.set_capabilities(Some(spec::all_capabilities()?));
    }
    if request.terminal && request.rows > 0 {
        let size = BoxBuilder::default().height(request.rows).width(request.columns).build();
        process.set_console_size(size.ok());
    }
    Ok(process)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_comes_from_the_container() {
        let mut container = Process::default();
        container.set_cwd("/srv".into()).set_env(Some(vec!["PATH=/bin".into(), "A=1".into()]));
        let request = ExecRequest {
            args: vec!["ls".into()],
            env: vec!["A=2".into(), "B=3".into()],
            ..Default::default()
        };
        let process = process_of(&request, container.clone()).unwrap();
        assert_eq!(process.args().as_deref(), Some(&["ls".to_owned()][..]));
        assert_eq!(process.env().as_deref().unwrap(), ["PATH=/bin", "A=2", "B=3"]);
        assert_eq!(process.cwd(), std::path::Path::new("/srv"));
        let request = ExecRequest { workdir: "/tmp".into(), privileged: true, ..request };
        let process = process_of(&request, container.clone()).unwrap();
        assert_eq!(process.cwd(), std::path::Path::new("/tmp"));
        let capabilities = process.capabilities().clone().unwrap();
        assert!(capabilities.effective().as_ref().unwrap().len() > 30);
        assert!(process_of(&ExecRequest::default(), container).is_err());
    }
}
