//! The containers of this husk on disk: a directory each, which stays when the container ends.
//!
//! | path | what | who writes it |
//! |---|---|---|
//! | `<data>/containers/<id>/config.json` | [`Config`] | clients, under `lock` |
//! | `<data>/containers/<id>/state.json` | [`State`] | the supervisor while it lives, else clients under `lock` |
//! | `<data>/containers/<id>/scratch.img` | what the container has written | its VM |
//! | `<data>/containers/<id>/*.log*` | its output | the supervisor |
//! | `<data>/names/<name>` | symbolic link to the id | clients, under the lock of all records |
//!
//! Each file is replaced as a whole, so a crash leaves the old or the new one. Whether a container lives says the lock of its
//! pod's run directory (see [`crate::rundir`]); a record that says that it runs is not believed without that.

mod names;
mod record;
#[cfg(test)]
mod tests;

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use husk_base::{
    dirs::{make_dir_inside, make_private_dir},
    id, json_file,
    lock::lock_file,
};

pub use self::record::{
    Config, ImageInfo, LOST, RestartPolicy, State, Status, Timestamp, UnknownStatus, VERSION,
};
use tokio::time::timeout;

use crate::{Error, Result, paths::Dirs, remove, rundir, stalls, watch::Watch};

const CONFIG: &str = "config.json";
const STATE: &str = "state.json";
const SCRATCH: &str = "scratch.img";
const LOCK: &str = "lock";
/// Whoever waits for a container looks so often whether its supervisor lives.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Directories of containers that are being made begin so.
const NEW: &str = ".new-";
/// Directories of containers that are being removed begin so.
const REMOVED: &str = ".removed-";

/// All records.
#[derive(Debug, Clone)]
pub struct Store {
    dirs: Dirs,
    containers: PathBuf,
    names: PathBuf,
}

/// A container as its record has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// What it is.
    pub config: Config,
    /// How it is: that it runs is said only if its supervisor lives.
    pub state: State,
}

/// All containers.
#[derive(Debug, Default)]
pub struct List {
    /// Those whose records can be read, the newest first.
    pub records: Vec<Record>,
    /// The ids of the others, and why.
    pub broken: Vec<(String, Error)>,
}

/// Keeps other clients from changing a container. The lock ends when this is dropped.
#[derive(Debug)]
pub struct Locked {
    _file: File,
}

impl Store {
    /// The records below `dirs`, whose directories are made.
    ///
    /// # Errors
    /// When they can't be made.
    pub fn open(dirs: &Dirs) -> Result<Self> {
        let this = Self::made(dirs);
        // The directory above may be a file system's root, which all may write to.
        for dir in [&this.containers, &this.names] {
            make_private_dir(dir)?;
        }
        Ok(this)
    }

    /// The records below `dirs`, whose directories another process of husk's has made. In the user namespace of a pod without
    /// root nobody could tell whose they are.
    pub fn made(dirs: &Dirs) -> Self {
        Self { dirs: dirs.clone(), containers: dirs.data.join("containers"), names: dirs.data.join("names") }
    }

    /// A container's directory.
    pub fn dir(&self, id: &str) -> PathBuf {
        self.containers.join(id)
    }

    /// The disk with what a container has written.
    pub fn scratch(&self, id: &str) -> PathBuf {
        self.dir(id).join(SCRATCH)
    }

    /// The file of a container's log.
    pub fn log(&self, id: &str) -> PathBuf {
        self.dir(id).join(format!("{id}-json.log"))
    }

    /// Adds a container. Its id and its name must be new.
    ///
    /// # Errors
    /// When the name is in use, or the record can't be written. Nothing is left then.
    pub fn create(&self, config: &Config) -> Result<()> {
        if let Some(owner) = self.owner_of(&config.name) {
            remove_orphans(&self.dirs, &[owner]);
        }
        let _all = self.lock_all()?;
        self.sweep()?;
        let (dir, new) = (self.dir(&config.id), self.containers.join(format!("{NEW}{}", config.id)));
        // The name first: a link to nothing means nothing, and a record without its name could not be found by that.
        self.claim_name(&config.name, &config.id)?;
        let write = || {
            make_dir_inside(&new)?;
            write_config(&new, config)?;
            write_state(&new, &State { pod: config.id.clone(), ..State::default() })?;
            fs::rename(&new, &dir).map_err(Error::io("create", &dir))
        };
        write().inspect_err(|_| {
            // The reason counts.
            let _ = remove::tree(&new);
            self.release_name(&config.name, &config.id);
        })
    }

    /// The id of the container of this name, or id, or whose id begins so.
    ///
    /// # Errors
    /// When there is none, or several ids begin so.
    pub fn find(&self, name: &str) -> Result<String> {
        let unknown = || Error::NoContainer { name: name.into() };
        if name.is_empty() || name.contains('/') || name.starts_with('.') {
            return Err(unknown());
        }
        if id::is_id(name) && self.dir(name).is_dir() {
            return Ok(name.to_owned());
        }
        if let Some(id) = self.owner_of(name) {
            return Ok(id);
        }
        let mut found = self.ids()?.filter(|id| id.starts_with(name));
        match (found.next(), found.next()) {
            (None, _) => Err(unknown()),
            (Some(id), None) => Ok(id),
            _ => Err(Error::AmbiguousId { prefix: name.into() }),
        }
    }

    /// The record of a container.
    ///
    /// # Errors
    /// When there is none of this id, or it can't be read.
    pub fn get(&self, id: &str) -> Result<Record> {
        self.record(id, self.state(id)?)
    }

    fn record(&self, id: &str, mut state: State) -> Result<Record> {
        if state.status.needs_supervisor() && !rundir::is_alive(&self.dirs, &state.pod) {
            // It may have ended properly between the two looks.
            state = self.state(id)?;
            if state.status.needs_supervisor() {
                state.lost();
            }
        }
        if state.status.needs_supervisor() {
            state.stalled = stalls::of(&self.dirs, &state.pod);
        }
        Ok(Record { config: self.config(id)?, state })
    }

    /// All records.
    ///
    /// # Errors
    /// When the directory can't be read.
    pub fn list(&self) -> Result<List> {
        self.list_of(|_| true)
    }

    fn list_of(&self, is_wanted: impl Fn(&State) -> bool) -> Result<List> {
        let List { mut records, mut broken } = List::default();
        for id in self.ids()? {
            let record = match self.state(&id) {
                Ok(state) if !is_wanted(&state) => continue,
                Ok(state) => self.record(&id, state),
                Err(error) => Err(error),
            };
            match record {
                Ok(record) => records.push(record),
                // Removed meanwhile.
                Err(Error::NoContainer { .. }) => {}
                Err(error) => broken.push((id, error)),
            }
        }
        records.sort_by_key(|record| std::cmp::Reverse(record.config.created));
        Ok(List { records, broken })
    }

    /// The records of containers that run. Of others, what they are is not read.
    ///
    /// # Errors
    /// When the directory can't be read.
    pub fn running(&self) -> Result<List> {
        self.list_of(|state| state.status.needs_supervisor())
    }

    /// What a container is.
    ///
    /// # Errors
    /// When there is no record, or it can't be read: it is damaged, or a newer husk's.
    pub fn config(&self, id: &str) -> Result<Config> {
        let path = self.dir(id).join(CONFIG);
        let config: Config = json_file::read(&path)?.ok_or_else(|| Error::NoContainer { name: id.into() })?;
        if config.version > VERSION {
            return Err(Error::NewerRecord { path, version: config.version });
        }
        Ok(config)
    }

    /// How a container is, as its last supervisor said.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn state(&self, id: &str) -> Result<State> {
        let state = json_file::read(&self.dir(id).join(STATE))?;
        match state {
            Some(state) => Ok(state),
            None if self.dir(id).is_dir() => Ok(State { pod: id.into(), ..State::default() }),
            None => Err(Error::NoContainer { name: id.into() }),
        }
    }

    /// Replaces what a container is. What is to survive a power cut is on the disk when this returns.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write_config(&self, config: &Config) -> Result<()> {
        write_config(&self.dir(&config.id), config)
    }

    /// Replaces how a container is.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write_state(&self, id: &str, state: &State) -> Result<()> {
        write_state(&self.dir(id), state)
    }

    /// Keeps other clients from changing a container; waits for one that does.
    ///
    /// # Errors
    /// When there is no such container.
    pub fn lock(&self, id: &str) -> Result<Locked> {
        let dir = self.dir(id);
        if !dir.is_dir() {
            return Err(Error::NoContainer { name: id.into() });
        }
        match lock_file(&dir.join(LOCK)) {
            Ok(file) => Ok(Locked { _file: file }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(Error::NoContainer { name: id.into() })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Gives a container another name.
    ///
    /// # Errors
    /// When the name is in use, or there is no such container.
    pub fn rename(&self, id: &str, name: &str) -> Result<()> {
        let _all = self.lock_all()?;
        let mut config = self.config(id)?;
        if config.name == name {
            return Err(Error::InvalidOption(format!("the container is called {name:?} already")));
        }
        self.claim_name(name, id)?;
        let old = std::mem::replace(&mut config.name, name.to_owned());
        self.write_config(&config).inspect_err(|_| self.release_name(name, id))?;
        self.release_name(&old, id);
        Ok(())
    }

    /// Removes a container's record and all that is beside it. Its name is free when this begins.
    ///
    /// # Errors
    /// When something can't be removed; it is tried again when the next container is created.
    pub fn remove(&self, id: &str) -> Result<()> {
        let gone = self.containers.join(format!("{REMOVED}{id}"));
        {
            let _all = self.lock_all()?;
            self.release_names_of(id);
            let dir = self.dir(id);
            match fs::rename(&dir, &gone) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(Error::NoContainer { name: id.into() });
                }
                other => other.map_err(Error::io("remove", &dir))?,
            }
        }
        match remove::tree(&gone) {
            // Another client has swept it away.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(Error::io("remove", gone)),
        }
    }

    /// How a container is when it does not run, and is not to be started again. Needs a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// When there is no such container any more, or its directory can't be watched.
    pub async fn stopped(&self, id: &str) -> Result<State> {
        let dir = self.dir(id);
        let failed = || Error::io("watch", &dir);
        if !self.get(id)?.state.status.needs_supervisor() {
            return Ok(self.get(id)?.state);
        }
        let changes = Watch::begin(&dir).map_err(failed())?;
        loop {
            let state = self.get(id)?.state;
            if !state.status.needs_supervisor() {
                return Ok(state);
            }
            // A supervisor that is killed writes nothing.
            if let Ok(changed) = timeout(LOOK_AGAIN, changes.changed()).await {
                changed.map_err(failed())?;
            }
        }
    }

    /// Returns when there is no record of a container any more. Needs a tokio runtime with I/O.
    ///
    /// # Errors
    /// When the directory can't be watched.
    pub async fn removed(&self, id: &str) -> Result<()> {
        let failed = || Error::io("watch", &self.containers);
        let changes = Watch::begin(&self.containers).map_err(failed())?;
        while self.dir(id).exists() {
            changes.changed().await.map_err(failed())?;
        }
        Ok(())
    }

    /// Takes away half-made and half-removed records, which crashes left; under the lock of all records.
    fn sweep(&self) -> Result<()> {
        let entries = fs::read_dir(&self.containers).map_err(Error::io("read", &self.containers))?;
        for entry in entries.flatten() {
            let is_left = |name: &str| name.starts_with(NEW) || name.starts_with(REMOVED);
            if entry.file_name().to_str().is_some_and(is_left) {
                // Another client may be about to.
                let _ = remove::tree(&entry.path());
            }
        }
        Ok(())
    }

    fn ids(&self) -> Result<impl Iterator<Item = String>> {
        let entries = fs::read_dir(&self.containers).map_err(Error::io("read", &self.containers))?;
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        Ok(names.filter(|name| id::is_id(name)))
    }

    fn lock_all(&self) -> Result<Locked> {
        Ok(Locked { _file: lock_file(&self.names.join(".lock"))? })
    }
}

fn write_config(dir: &Path, config: &Config) -> Result<()> {
    let path = dir.join(CONFIG);
    if config.auto_remove {
        json_file::write_atomic(&path, config)?;
    } else {
        json_file::write_durable(&path, config)?;
    }
    Ok(())
}

fn write_state(dir: &Path, state: &State) -> Result<()> {
    Ok(json_file::write_atomic(&dir.join(STATE), state)?)
}

/// Removes the containers among these, whose pods are dead, that were to be removed at their end.
pub fn remove_orphans(dirs: &Dirs, ids: &[String]) {
    let store = Store::made(dirs);
    for id in ids {
        let Ok(record) = store.get(id) else { continue };
        if record.config.auto_remove && record.state.status == Status::Exited {
            // What can't be removed now stays in the list for the user to see.
            let _ = store.remove(id);
        }
    }
}
