//! The containers of a pod and their processes: how far each has come, and what may be done with it when. Nothing here waits or
//! does anything. The rules are those of runc, whose words front ends use for a refusal.
//!
//! A front end keeps what it has of a container and of a process in the same entries: `C` and `P`.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use tokio::sync::watch;

use super::Exit;

/// How far a process has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It is made, or about to be; it does not run yet.
    Created,
    /// It runs.
    Running,
    /// It stands still.
    Paused,
    /// It has ended.
    Stopped(Exit),
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped(_) => "stopped",
        })
    }
}

/// What may be asked of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "their names say it")]
pub enum Action {
    Start,
    Exec,
    Pause,
    Resume,
    Kill,
    Resize,
    Update,
    Delete,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "start a",
            Self::Exec => "exec in a",
            Self::Pause => "pause a",
            Self::Resume => "resume a",
            Self::Kill => "signal a",
            Self::Resize => "resize a",
            Self::Update => "update a",
            Self::Delete => "delete a",
        })
    }
}

/// Why something can't be done with a container or a process. The texts are runc's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// There is no such container.
    #[error("container {0} not created")]
    NoContainer(String),
    /// There is no such exec.
    #[error("process does not exist {0}")]
    NoProcess(String),
    /// The process has ended.
    #[error("process already finished")]
    Finished,
    /// The container's id is taken.
    #[error("container {0} already exists")]
    ContainerExists(String),
    /// The exec's id is taken.
    #[error("id {0}: already exists")]
    ProcessExists(String),
    /// An exec needs an id.
    #[error("an exec needs an id")]
    NoExecId,
    /// It is in a state that does not allow it.
    #[error("cannot {action} {status} {}", if *.is_exec { "process" } else { "container" })]
    NotAllowed {
        /// What was asked.
        action: Action,
        /// The state.
        status: Status,
        /// It is an exec, not a container's first process.
        is_exec: bool,
    },
}

/// A process: a container's first, or an exec.
#[derive(Debug)]
pub struct Process<P> {
    /// How far it has come.
    pub status: Status,
    /// What the front end has of it.
    pub own: P,
    exit: watch::Sender<Option<Exit>>,
}

impl<P> Process<P> {
    /// One that does not run yet.
    pub fn new(own: P) -> Self {
        Self { status: Status::Created, own, exit: watch::Sender::new(None) }
    }

    /// Receives how it ends, also when it has been forgotten here.
    pub fn watch_exit(&self) -> watch::Receiver<Option<Exit>> {
        self.exit.subscribe()
    }

    /// It has ended. Only the first end counts.
    pub fn exited(&mut self, exit: Exit) {
        if !matches!(self.status, Status::Stopped(_)) {
            self.status = Status::Stopped(exit);
            self.exit.send_replace(Some(exit));
        }
    }

    /// It is about to be made again.
    pub fn renew(&mut self) {
        self.status = Status::Created;
        self.exit.send_replace(None);
    }
}

/// A container.
#[derive(Debug)]
pub struct Container<C, P> {
    /// What the front end has of it.
    pub own: C,
    /// Its first process.
    pub init: Process<P>,
    execs: HashMap<String, Process<P>>,
}

impl<C, P> Container<C, P> {
    /// One that is about to be made.
    pub fn new(own: C, init: P) -> Self {
        Self { own, init: Process::new(init), execs: HashMap::new() }
    }

    /// How its execs that run will have ended.
    pub fn watch_running_execs(&self) -> Vec<watch::Receiver<Option<Exit>>> {
        let running = self.execs.values().filter(|exec| exec.status == Status::Running);
        running.map(Process::watch_exit).collect()
    }

    /// Its execs.
    pub fn execs(&self) -> impl Iterator<Item = (&str, &Process<P>)> {
        self.execs.iter().map(|(id, exec)| (id.as_str(), exec))
    }
}

/// A pod's containers, by id.
#[derive(Debug)]
pub struct Containers<C, P>(BTreeMap<String, Container<C, P>>);

impl<C, P> Default for Containers<C, P> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<C, P> Containers<C, P> {
    /// Adds a container.
    ///
    /// # Errors
    /// When its id is taken.
    pub fn add(&mut self, id: &str, container: Container<C, P>) -> Result<(), StateError> {
        if self.0.contains_key(id) {
            return Err(StateError::ContainerExists(id.to_owned()));
        }
        self.0.insert(id.to_owned(), container);
        Ok(())
    }

    /// Forgets a container.
    pub fn remove(&mut self, id: &str) -> Option<Container<C, P>> {
        self.0.remove(id)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ids of all.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// A container.
    ///
    /// # Errors
    /// When there is none of this id.
    pub fn get(&self, id: &str) -> Result<&Container<C, P>, StateError> {
        self.0.get(id).ok_or_else(|| StateError::NoContainer(id.to_owned()))
    }

    /// A container, to be changed.
    ///
    /// # Errors
    /// When there is none of this id.
    pub fn get_mut(&mut self, id: &str) -> Result<&mut Container<C, P>, StateError> {
        self.0.get_mut(id).ok_or_else(|| StateError::NoContainer(id.to_owned()))
    }

    /// A process; an empty `exec_id` means the container's first.
    ///
    /// # Errors
    /// When there is none of these ids.
    pub fn process(&self, id: &str, exec_id: &str) -> Result<&Process<P>, StateError> {
        let container = self.get(id)?;
        if exec_id.is_empty() {
            return Ok(&container.init);
        }
        container.execs.get(exec_id).ok_or_else(|| StateError::NoProcess(exec_id.to_owned()))
    }

    /// A process, to be changed.
    ///
    /// # Errors
    /// When there is none of these ids.
    pub fn process_mut(&mut self, id: &str, exec_id: &str) -> Result<&mut Process<P>, StateError> {
        let container = self.get_mut(id)?;
        if exec_id.is_empty() {
            return Ok(&mut container.init);
        }
        container.execs.get_mut(exec_id).ok_or_else(|| StateError::NoProcess(exec_id.to_owned()))
    }

    /// Adds an exec.
    ///
    /// # Errors
    /// When the container does not allow it, or the id is taken.
    pub fn add_exec(&mut self, id: &str, exec_id: &str, exec: P) -> Result<(), StateError> {
        self.allow(id, "", Action::Exec)?;
        let container = self.get_mut(id)?;
        if exec_id.is_empty() {
            return Err(StateError::NoExecId);
        }
        if container.execs.contains_key(exec_id) {
            return Err(StateError::ProcessExists(exec_id.to_owned()));
        }
        container.execs.insert(exec_id.to_owned(), Process::new(exec));
        Ok(())
    }

    /// Forgets an exec.
    pub fn remove_exec(&mut self, id: &str, exec_id: &str) {
        if let Some(container) = self.0.get_mut(id) {
            container.execs.remove(exec_id);
        }
    }

    /// Whether `action` may be done with a process now.
    ///
    /// # Errors
    /// When there is no such process, or it is not in a state for that.
    pub fn allow(&self, id: &str, exec_id: &str, action: Action) -> Result<(), StateError> {
        let status = self.process(id, exec_id)?.status;
        let stopped = matches!(status, Status::Stopped(_));
        let allowed = match action {
            Action::Start => status == Status::Created,
            Action::Exec => matches!(status, Status::Created | Status::Running),
            Action::Pause => status == Status::Running,
            Action::Resume => status == Status::Paused,
            Action::Resize | Action::Update => !stopped,
            Action::Delete => stopped || status == Status::Created,
            Action::Kill if stopped => return Err(StateError::Finished),
            // There is nothing yet that a signal could be sent to.
            Action::Kill => exec_id.is_empty() || status != Status::Created,
        };
        if allowed {
            return Ok(());
        }
        Err(StateError::NotAllowed { action, status, is_exec: !exec_id.is_empty() })
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const EXIT: Exit = Exit { code: 3, oom_killed: false, at: UNIX_EPOCH };

    fn one(status: Status) -> Containers<(), ()> {
        let mut containers = Containers::default();
        let mut container = Container::new((), ());
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
    fn refusals_are_in_runcs_words() {
        let containers = one(Status::Running);
        let text = |id, exec_id, action| containers.allow(id, exec_id, action).unwrap_err().to_string();
        assert_eq!(text("c", "", Action::Start), "cannot start a running container");
        assert_eq!(text("x", "", Action::Start), "container x not created");
        assert_eq!(text("c", "e", Action::Start), "process does not exist e");
        let ended = one(Status::Stopped(EXIT)).allow("c", "", Action::Kill);
        assert_eq!(ended, Err(StateError::Finished));
    }

    #[test]
    fn an_exec_can_be_killed_only_once_it_runs() {
        let mut containers = one(Status::Running);
        containers.add_exec("c", "e", ()).unwrap();
        let refused = containers.allow("c", "e", Action::Kill).unwrap_err();
        assert_eq!(refused.to_string(), "cannot signal a created process");
        containers.process_mut("c", "e").unwrap().status = Status::Running;
        containers.allow("c", "e", Action::Kill).unwrap();
        assert_eq!(containers.get("c").unwrap().watch_running_execs().len(), 1);
    }

    #[test]
    fn ids_are_taken_once() {
        let mut containers = one(Status::Running);
        let again = containers.add("c", Container::new((), ()));
        assert_eq!(again, Err(StateError::ContainerExists("c".into())));
        containers.add_exec("c", "e", ()).unwrap();
        assert_eq!(containers.add_exec("c", "e", ()), Err(StateError::ProcessExists("e".into())));
        assert_eq!(containers.add_exec("c", "", ()), Err(StateError::NoExecId));
        containers.remove_exec("c", "e");
        containers.add_exec("c", "e", ()).unwrap();
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
