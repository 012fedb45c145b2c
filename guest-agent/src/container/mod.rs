//! Containers and their processes.

mod cgroup;
mod create;
mod devices;
mod disk;
mod errors;
mod executor;
mod helper;
mod in_root;
pub(crate) mod init;
mod ipc;
mod limits;
mod listing;
mod pids;
mod process;
mod rootfs;
mod spec;
mod user;

use std::{
    collections::HashMap,
    fs,
    future::Future,
    io::{self, Write},
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use husk_protocol::{
    StreamToken,
    agent::{CreateContainerRequest, ExecRequest, ListProcessesResponse, Reason, StatsResponse, Stdio},
};

pub(crate) use self::{
    cgroup::Cgroup, disk::find as find_disk, ipc::set_all as set_sysctls, process::Process,
};
use self::{
    create::{NewContainer, NewProcess},
    helper::Made,
};
use crate::{
    failure::Failure,
    forward::Listen,
    paths,
    reaper::Reaper,
    stdio::{self, AgentEnds, ChildEnds, Console, Copying, Dial, Streams, Tty, WindowSize},
    timeline,
};

/// Longer ids would not fit into the paths of unix sockets. containerd's are no longer.
const MAX_ID: usize = 76;
/// Ended processes are forgotten when a container has had this many.
const MAX_EXECS: usize = 1024;

/// What making a process takes.
#[derive(Clone)]
pub(crate) struct Means {
    pub(crate) reaper: Reaper,
    pub(crate) dial: Dial,
    pub(crate) forward: Listen,
    /// Of the streams, when the sandbox is set up.
    pub(crate) token: Arc<OnceLock<StreamToken>>,
}

/// A container that was created.
#[derive(Debug)]
pub(crate) struct Container {
    id: String,
    /// The disks that its root is made of, until it is deleted.
    disks: Mutex<Vec<String>>,
    cgroup: Cgroup,
    /// As the host gave it. Only helpers parse it: PID 1 has better things to do.
    spec_json: Arc<[u8]>,
    init: Arc<Process>,
    execs: Mutex<HashMap<String, Arc<Process>>>,
    started: AtomicBool,
    marked_running: AtomicBool,
}

impl Container {
    /// Mounts the root and makes the container; its process waits for [`Container::start`].
    pub(crate) async fn create(means: &Means, request: CreateContainerRequest) -> Result<Self, Failure> {
        let id = request.container_id.clone();
        check_id("container", &id)?;
        let disks = rootfs::hold_disks(&request.rootfs);
        let result = Self::make(means, request, &disks).await;
        if result.is_err() {
            let _ = Cgroup::new(paths::cgroup(&id)).remove().await;
            if let Err(error) = rootfs::remove(&id, &disks) {
                crate::kmsg::error(&format!("cannot clean up after container {id}: {error}"));
            }
        }
        result
    }

    async fn make(means: &Means, request: CreateContainerRequest, disks: &[String]) -> Result<Self, Failure> {
        let id = request.container_id;
        let rootfs = request.rootfs.unwrap_or_default();
        let spec_json = Arc::<[u8]>::from(request.spec_json);
        let bundle = paths::bundle(&id);
        for dir in [bundle.as_path(), paths::STATE.as_ref()] {
            fs::create_dir_all(dir)
                .map_err(|e| Failure::io(format_args!("cannot make {}", dir.display()), &e))?;
        }
        let stdio = request.stdio.unwrap_or_default();
        let Prepared { agent, child, console } = Prepared::new(&stdio)?;
        let new = NewContainer {
            id: id.clone(),
            spec_json: Arc::clone(&spec_json),
            rootfs,
            user: request.user,
            volumes: request.volumes,
            block_devices: request.block_devices,
            shared_memory_bytes: request.shared_memory_bytes,
            init: request.init,
            ends: child,
            console: console.as_ref().map(|c| c.path().to_owned()),
            window: WindowSize::new(stdio.rows, stdio.columns),
        };
        let cgroup = Cgroup::new(paths::cgroup(&id));
        let make = helper::run(&means.reaper, new.ends.fds(), |reporter| create::container(new, reporter));
        let exited = || timeline::EXITED.record();
        let init = launch(means, &stdio, (&id, ""), make, (agent, console), &cgroup, exited).await?;
        timeline::CREATED.record();
        Ok(Self {
            id,
            disks: Mutex::new(disks.to_vec()),
            cgroup,
            spec_json,
            init: Arc::new(init),
            execs: Mutex::default(),
            started: AtomicBool::new(false),
            marked_running: AtomicBool::new(false),
        })
    }

    /// Lets the container's process run.
    pub(crate) fn start(&self) -> Result<(), Failure> {
        if self.started.swap(true, Ordering::Relaxed) {
            return Err(Failure::state("the container was started before"));
        }
        let path = paths::notify_socket(&self.id);
        UnixStream::connect(&path)
            .and_then(|mut socket| socket.write_all(b"start container"))
            .map_err(|e| Failure::io("cannot start the container", &e))?;
        timeline::STARTED.record();
        Ok(())
    }

    /// Runs a further process.
    pub(crate) async fn exec(&self, means: &Means, request: ExecRequest) -> Result<Arc<Process>, Failure> {
        let exec_id = request.exec_id;
        check_id("exec", &exec_id)?;
        if self.lock_execs().contains_key(&exec_id) {
            return Err(Failure::new(Reason::ALREADY_EXISTS, format!("exec {exec_id:?} exists already")));
        }
        if !self.started.load(Ordering::Relaxed) || self.init.has_ended() {
            return Err(Failure::state("the container is not running"));
        }
        if self.cgroup.is_frozen() {
            return Err(Failure::state("the container is paused"));
        }
        if !self.marked_running.load(Ordering::Relaxed) {
            create::mark_running(&self.id)?;
            self.marked_running.store(true, Ordering::Relaxed);
        }
        let stdio = request.stdio.unwrap_or_default();
        let Prepared { agent, child, console } = Prepared::new(&stdio)?;
        let new = NewProcess {
            container_id: self.id.clone(),
            exec_id: exec_id.clone(),
            process_json: request.process_json,
            user: request.user,
            init: self.init.pid(),
            spec_json: Arc::clone(&self.spec_json),
            ends: child,
            console: console.as_ref().map(|c| c.path().to_owned()),
            window: WindowSize::new(stdio.rows, stdio.columns),
        };
        let make = helper::run(&means.reaper, new.ends.fds(), |reporter| create::process(new, reporter));
        let ids = (self.id.as_str(), exec_id.as_str());
        let process = launch(means, &stdio, ids, make, (agent, console), &self.cgroup, || ()).await?;
        let process = Arc::new(process);
        let mut execs = self.lock_execs();
        if execs.len() >= MAX_EXECS {
            execs.retain(|_, process| !process.has_ended());
        }
        execs.insert(exec_id, Arc::clone(&process));
        Ok(process)
    }

    /// The first process, or the one with this exec id.
    pub(crate) fn process(&self, exec_id: &str) -> Result<Arc<Process>, Failure> {
        if exec_id.is_empty() {
            return Ok(Arc::clone(&self.init));
        }
        let process = self.lock_execs().get(exec_id).cloned();
        let message = || format!("no exec {exec_id:?} in container {:?}", self.id);
        process.ok_or_else(|| Failure::new(Reason::NO_SUCH_PROCESS, message()))
    }

    /// Forgets a further process that has ended.
    pub(crate) fn forget(&self, exec_id: &str) -> Result<(), Failure> {
        if exec_id.is_empty() {
            return Err(Failure::invalid("a container's first process is deleted with the container"));
        }
        if !self.process(exec_id)?.has_ended() {
            return Err(Failure::state(format!("exec {exec_id:?} runs")));
        }
        self.lock_execs().remove(exec_id);
        Ok(())
    }

    /// Its processes, with their descendants.
    pub(crate) async fn processes(&self, reaper: &Reaper) -> Result<ListProcessesResponse, Failure> {
        let pids =
            self.cgroup.processes().map_err(|e| Failure::io("cannot list the container's processes", &e))?;
        let execs = {
            let execs = self.lock_execs();
            let running = execs.iter().filter(|(_, process)| !process.has_ended());
            running.map(|(exec_id, process)| (process.pid(), exec_id.clone())).collect()
        };
        listing::list(reaper, self.init.pid(), pids, &execs).await
    }

    /// Has all its processes stand still.
    pub(crate) async fn pause(&self) -> Result<(), Failure> {
        self.cgroup.freeze().await.map_err(|e| Failure::io("cannot pause the container", &e))
    }

    /// Lets them go on.
    pub(crate) fn resume(&self) -> Result<(), Failure> {
        self.cgroup.thaw().map_err(|e| Failure::io("cannot resume the container", &e))
    }

    /// Changes its limits.
    pub(crate) fn update(&self, resources_json: &[u8]) -> Result<(), Failure> {
        limits::change(&self.id, resources_json)
    }

    /// Sends a signal to every process of the container.
    pub(crate) fn signal_all(&self, signal: u32) -> Result<(), Failure> {
        let failed = |e: io::Error| Failure::io("cannot signal the container's processes", &e);
        if signal == libc::SIGKILL.unsigned_abs() {
            return self.cgroup.kill().map_err(failed);
        }
        for pid in self.cgroup.processes().map_err(failed)? {
            process::send_signal(pid, signal)?;
        }
        Ok(())
    }

    pub(crate) fn stats(&self) -> Result<StatsResponse, Failure> {
        self.cgroup.stats().map_err(|e| Failure::io("cannot read the container's cgroup", &e))
    }

    pub(crate) fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Kills what is left and unmounts the root.
    pub(crate) async fn delete(&self) -> Result<(), Failure> {
        self.cgroup.remove().await.map_err(|e| Failure::io("cannot remove the container's cgroup", &e))?;
        let disks = std::mem::take(&mut *self.disks.lock().unwrap_or_else(PoisonError::into_inner));
        rootfs::remove(&self.id, &disks)
            .map_err(|e| Failure::io("cannot unmount the container's root file system", &e))
    }

    fn lock_execs(&self) -> MutexGuard<'_, HashMap<String, Arc<Process>>> {
        self.execs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is made before a process is: pipes, or the socket at which its terminal arrives.
struct Prepared {
    agent: AgentEnds,
    child: ChildEnds,
    console: Option<Console>,
}

impl Prepared {
    fn new(stdio: &Stdio) -> Result<Self, Failure> {
        let (agent, child) =
            stdio::pipes(stdio).map_err(|e| Failure::io("cannot make pipes for stdio", &e))?;
        let console = if stdio.terminal {
            static COUNT: AtomicU64 = AtomicU64::new(0);
            let console = Console::listen(paths::console(COUNT.fetch_add(1, Ordering::Relaxed)));
            Some(console.map_err(|e| Failure::io("cannot listen for the terminal", &e))?)
        } else {
            None
        };
        Ok(Self { agent, child, console })
    }
}

/// Makes a process and dials its streams at the same time, and connects the two.
async fn launch(
    means: &Means,
    stdio: &Stdio,
    (container_id, exec_id): (&str, &str),
    make: impl Future<Output = Result<Made, Failure>>,
    (agent, console): (AgentEnds, Option<Console>),
    cgroup: &Cgroup,
    on_exit: fn(),
) -> Result<Process, Failure> {
    let token = means.token.get().ok_or_else(|| Failure::state("the sandbox is not set up"))?;
    let dial = stdio::dial(&means.dial, stdio, token, container_id, exec_id);
    let (streams, made) = tokio::join!(dial, make);
    let made = made?;
    let connected = streams
        .map_err(|e| Failure::io("cannot dial the host for stdio", &e))
        .and_then(|streams| connect(made, streams, agent, console));
    match connected {
        Ok(ends) => Ok(Process::follow(made.pid(), ends, cgroup.clone(), &means.reaper, on_exit)),
        Err(failure) => {
            let _ = process::send_signal(made.pid(), libc::SIGKILL.unsigned_abs());
            Err(failure)
        }
    }
}

fn connect(
    made: Made,
    streams: Streams,
    agent: AgentEnds,
    console: Option<Console>,
) -> Result<(Option<Tty>, Copying), Failure> {
    let Some(console) = console else {
        let copying = Copying::of_pipes(agent, streams);
        return Ok((None, copying.map_err(|e| Failure::io("cannot use the stdio pipes", &e))?));
    };
    let tty = console.receive(made.uid).map_err(|e| Failure::io("cannot receive the terminal", &e))?;
    let copying = Copying::of_tty(&tty, streams);
    Ok((Some(tty), copying))
}

/// Ids are used as file names, in mount options and on stream hello lines.
fn check_id(what: &str, id: &str) -> Result<(), Failure> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if id.is_empty() || id.len() > MAX_ID || !id.bytes().all(plain) || id.starts_with('.') {
        return Err(Failure::invalid(format!("not a valid {what} id: {id:?}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_plain() {
        assert!(check_id("container", &"a".repeat(76)).is_ok());
        for bad in ["", ".", "..", "a/b", "a b", "a,b", "ü", &"a".repeat(77)] {
            assert_eq!(check_id("container", bad).unwrap_err().reason, Reason::INVALID_REQUEST, "{bad}");
        }
    }
}
