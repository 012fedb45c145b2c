//! What a shim knows of its containers and their processes, and what may be done with them when. Nothing here waits or does
//! anything: the rules and their words are those of runc's shim, and tested alone.

use std::collections::{BTreeMap, HashMap};

use husk_sandbox::pod::Exit;
use tokio::sync::watch;

use crate::error::Error;

/// How far a process has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// Made, or about to be; it does not run yet.
    Created,
    /// It runs.
    Running,
    /// It stands still.
    Paused,
    /// It has ended.
    Stopped(Exit),
}

/// What may be asked of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Start,
    Exec,
    Pause,
    Resume,
    Kill,
    Resize,
    Update,
    Delete,
}

/// Where a process's streams go: paths of FIFOs or URIs; empty: nowhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stdio {
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) terminal: bool,
}

/// A process: a container's first, or a further one.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) status: Status,
    /// What containerd is told; 0 while a further process does not run.
    pub(crate) pid: u32,
    pub(crate) stdio: Stdio,
    /// Its input was closed, maybe before it ran.
    pub(crate) stdin_closed: bool,
    /// A further process is described by this (OCI runtime spec, `process`).
    pub(crate) spec: Option<oci_spec::runtime::Process>,
    /// The window that its terminal shall have once it runs, rows and columns.
    pub(crate) window: Option<(u32, u32)>,
    exit: watch::Sender<Option<Exit>>,
}

impl Process {
    /// One that does not run yet.
    pub(crate) fn new(stdio: Stdio, spec: Option<oci_spec::runtime::Process>) -> Self {
        let exit = watch::Sender::new(None);
        Self { status: Status::Created, pid: 0, stdio, stdin_closed: false, spec, window: None, exit }
    }

    /// Is told how it ends, also when it has been forgotten here.
    pub(crate) fn watch_exit(&self) -> watch::Receiver<Option<Exit>> {
        self.exit.subscribe()
    }

    /// It has ended. The first word counts.
    pub(crate) fn exited(&mut self, exit: Exit) {
        if !matches!(self.status, Status::Stopped(_)) {
            self.status = Status::Stopped(exit);
            self.exit.send_replace(Some(exit));
        }
    }
}

/// What a container is to its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// One that runs programs in the guest.
    Member,
    /// It stands for its pod, and has no process in the guest: a pause container.
    Pause,
    /// The pod itself, as the Sandbox API has it: containerd knows no task of this id, and hears of none.
    Sandbox,
}

/// A container.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) bundle: String,
    pub(crate) role: Role,
    pub(crate) init: Process,
    execs: HashMap<String, Process>,
}

impl Container {
    /// One that is about to be made.
    pub(crate) fn new(bundle: String, role: Role, stdio: Stdio) -> Self {
        Self { bundle, role, init: Process::new(stdio, None), execs: HashMap::new() }
    }

    /// Whether it stands for its pod, or is it.
    pub(crate) fn is_sandbox(&self) -> bool {
        self.role != Role::Member
    }

    /// How its further processes that run will have ended.
    pub(crate) fn watch_running_execs(&self) -> Vec<watch::Receiver<Option<Exit>>> {
        let running = self.execs.values().filter(|exec| exec.status == Status::Running);
        running.map(Process::watch_exit).collect()
    }
}

/// A shim's containers, by id.
#[derive(Debug, Default)]
pub(crate) struct Containers(BTreeMap<String, Container>);

impl Containers {
    /// Adds a container.
    ///
    /// # Errors
    /// When its id is taken.
    pub(crate) fn add(&mut self, id: &str, container: Container) -> Result<(), Error> {
        if self.0.contains_key(id) {
            return Err(Error::AlreadyExists(format!("container {id} already exists")));
        }
        self.0.insert(id.to_owned(), container);
        Ok(())
    }

    /// Forgets a container.
    pub(crate) fn remove(&mut self, id: &str) {
        self.0.remove(id);
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ids of all.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// A container.
    ///
    /// # Errors
    /// When there is none of this id.
    pub(crate) fn get(&self, id: &str) -> Result<&Container, Error> {
        self.0.get(id).ok_or_else(|| unknown(id))
    }

    /// A container, to be changed.
    ///
    /// # Errors
    /// When there is none of this id.
    pub(crate) fn get_mut(&mut self, id: &str) -> Result<&mut Container, Error> {
        self.0.get_mut(id).ok_or_else(|| unknown(id))
    }

    /// A process; an empty `exec_id` means the container's first.
    ///
    /// # Errors
    /// When there is none of these ids.
    pub(crate) fn process(&self, id: &str, exec_id: &str) -> Result<&Process, Error> {
        let container = self.get(id)?;
        if exec_id.is_empty() {
            return Ok(&container.init);
        }
        container.execs.get(exec_id).ok_or_else(|| unknown_exec(exec_id))
    }

    /// A process, to be changed.
    ///
    /// # Errors
    /// When there is none of these ids.
    pub(crate) fn process_mut(&mut self, id: &str, exec_id: &str) -> Result<&mut Process, Error> {
        let container = self.get_mut(id)?;
        if exec_id.is_empty() {
            return Ok(&mut container.init);
        }
        container.execs.get_mut(exec_id).ok_or_else(|| unknown_exec(exec_id))
    }

    /// Adds a further process.
    ///
    /// # Errors
    /// When the container does not allow it, or the id is taken.
    pub(crate) fn add_exec(&mut self, id: &str, exec_id: &str, process: Process) -> Result<(), Error> {
        self.allow(id, "", Action::Exec)?;
        let container = self.get_mut(id)?;
        if exec_id.is_empty() {
            return Err(Error::invalid("a further process needs an exec id"));
        }
        if container.execs.contains_key(exec_id) {
            return Err(Error::AlreadyExists(format!("id {exec_id}: already exists")));
        }
        container.execs.insert(exec_id.to_owned(), process);
        Ok(())
    }

    /// Forgets a further process.
    pub(crate) fn remove_exec(&mut self, id: &str, exec_id: &str) {
        if let Some(container) = self.0.get_mut(id) {
            container.execs.remove(exec_id);
        }
    }

    /// Whether `action` may be done with a process now.
    ///
    /// # Errors
    /// When there is no such process, or it is not in a state for that.
    pub(crate) fn allow(&self, id: &str, exec_id: &str, action: Action) -> Result<(), Error> {
        let process = self.process(id, exec_id)?;
        let status = process.status;
        let stopped = matches!(status, Status::Stopped(_));
        let allowed = match action {
            Action::Start => status == Status::Created,
            Action::Exec => matches!(status, Status::Created | Status::Running),
            Action::Pause => status == Status::Running,
            Action::Resume => status == Status::Paused,
            Action::Resize | Action::Update => !stopped,
            Action::Delete => stopped || status == Status::Created,
            Action::Kill if stopped => return Err(Error::NotFound("process already finished".into())),
            // There is nothing yet that a signal could be sent to.
            Action::Kill => exec_id.is_empty() || status != Status::Created,
        };
        if allowed {
            return Ok(());
        }
        let state = match status {
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped(_) => "stopped",
        };
        let what = match action {
            Action::Start => "start a",
            Action::Exec => "exec in a",
            Action::Pause => "pause a",
            Action::Resume => "resume a",
            Action::Kill => "signal a",
            Action::Resize => "resize a",
            Action::Update => "update a",
            Action::Delete => "delete a",
        };
        let kind = if exec_id.is_empty() { "container" } else { "process" };
        Err(Error::State(format!("cannot {what} {state} {kind}")))
    }
}

fn unknown(id: &str) -> Error {
    Error::NotFound(format!("container {id} not created"))
}

fn unknown_exec(exec_id: &str) -> Error {
    Error::NotFound(format!("process does not exist {exec_id}"))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const EXIT: Exit = Exit { code: 3, oom_killed: false, at: UNIX_EPOCH };

    fn one(status: Status) -> Containers {
        let mut containers = Containers::default();
        let mut container = Container::new("/b".into(), Role::Member, Stdio::default());
        container.init.status = status;
        containers.add("c", container).unwrap();
        containers
    }

    #[test]
    fn each_state_allows_what_runcs_does() {
        use Action::{Delete, Exec, Kill, Pause, Resize, Resume, Start, Update};
        let all = [Start, Exec, Pause, Resume, Kill, Resize, Update, Delete];
        for (status, allowed) in [
            (Status::Created, vec![Start, Exec, Kill, Resize, Update, Delete]),
            (Status::Running, vec![Exec, Pause, Kill, Resize, Update]),
            (Status::Paused, vec![Resume, Kill, Resize, Update]),
            (Status::Stopped(EXIT), vec![Delete]),
        ] {
            let containers = one(status);
            let got: Vec<_> =
                all.into_iter().filter(|action| containers.allow("c", "", *action).is_ok()).collect();
            assert_eq!(got, allowed, "{status:?}");
        }
    }

    #[test]
    fn refusals_have_containerds_codes() {
        let containers = one(Status::Running);
        let refused = containers.allow("c", "", Action::Start).unwrap_err();
        assert!(matches!(&refused, Error::State(text) if text == "cannot start a running container"));
        assert!(matches!(containers.allow("x", "", Action::Start), Err(Error::NotFound(_))));
        assert!(matches!(containers.allow("c", "e", Action::Start), Err(Error::NotFound(_))));
        assert!(matches!(one(Status::Stopped(EXIT)).allow("c", "", Action::Kill), Err(Error::NotFound(_))));
    }

    #[test]
    fn an_exec_can_be_killed_only_once_it_runs() {
        let mut containers = one(Status::Running);
        containers.add_exec("c", "e", Process::new(Stdio::default(), None)).unwrap();
        assert!(matches!(containers.allow("c", "e", Action::Kill), Err(Error::State(_))));
        containers.process_mut("c", "e").unwrap().status = Status::Running;
        containers.allow("c", "e", Action::Kill).unwrap();
        assert_eq!(containers.get("c").unwrap().watch_running_execs().len(), 1);
    }

    #[test]
    fn ids_are_taken_once() {
        let mut containers = one(Status::Running);
        let again = Container::new("/b".into(), Role::Member, Stdio::default());
        assert!(matches!(containers.add("c", again), Err(Error::AlreadyExists(_))));
        containers.add_exec("c", "e", Process::new(Stdio::default(), None)).unwrap();
        let twice = containers.add_exec("c", "e", Process::new(Stdio::default(), None));
        assert!(matches!(twice, Err(Error::AlreadyExists(_))));
        containers.remove_exec("c", "e");
        containers.add_exec("c", "e", Process::new(Stdio::default(), None)).unwrap();
        containers.remove("c");
        assert!(containers.is_empty());
    }

    #[test]
    fn an_exit_is_told_once_and_also_to_those_who_ask_for_what_is_gone() {
        let mut containers = one(Status::Running);
        let watch = containers.process("c", "").unwrap().watch_exit();
        containers.process_mut("c", "").unwrap().exited(EXIT);
        containers.process_mut("c", "").unwrap().exited(Exit { code: 4, ..EXIT });
        containers.remove("c");
        assert_eq!(*watch.borrow(), Some(EXIT));
    }
}
