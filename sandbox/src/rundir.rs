//! One directory per living pod, and the cleaning up after those that were killed.
//!
//! A pod's id begins with a number that no other one has, from which its VMM's user id comes.
//!
//! Its directory holds a `lock` file. Whoever lives for the pod (its supervisor or shim, the VMM, the file server) holds a shared
//! lock of it, each by an open file of its own, so that none can free another's. If the file can be locked alone, none of
//! them lives. Directories are made and swept under one lock of the whole run directory, so a directory whose lock is not
//! yet taken is never seen.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use husk_base::{
    dirs::{make_dir_inside, make_private_dir},
    id::is_id,
    lock::{is_shared, lock_file, lock_shared, try_lock_file},
};

use crate::{Error, Result, cgroup, paths::Dirs, pod_id, remove};

const LOCK: &str = "lock";
const NAMES: &str = "names";
/// What a new start of the same pod finds in its directory, and keeps.
const KEPT: [&str; 4] = [LOCK, SUPERVISOR_SOCKET, STREAMS_SOCKET, SUPERVISOR_LOG];

/// The socket of the supervisor's API.
pub const SUPERVISOR_SOCKET: &str = "pod.sock";
/// The socket to which a process's streams are connections.
pub const STREAMS_SOCKET: &str = "streams.sock";

/// The file with the supervisor's own messages.
pub const SUPERVISOR_LOG: &str = "supervisor.log";

/// The ids of pods that were found dead, whose directories are gone now.
pub type Dead = Vec<String>;

/// A living pod's directory. Dropping it removes everything the pod had there.
#[derive(Debug)]
pub struct RunDir {
    id: String,
    path: PathBuf,
    name_link: Option<PathBuf>,
    lock: Option<File>,
}

impl RunDir {
    /// Cleans up after dead pods, then makes a directory for a new one, with a new id.
    ///
    /// # Errors
    /// When the directories can't be made, or when `name` is in use.
    pub fn create(dirs: &Dirs, name: Option<&str>) -> Result<(Self, Dead)> {
        let (guard, dead) = begin(dirs)?;
        let id = pod_id::new(dirs)?;
        let name_link = name.map(|name| claim_name(dirs, name, &id)).transpose()?;
        let this = Self::make(dirs, id, name_link)?;
        drop(guard);
        Ok((this, dead))
    }

    /// Cleans up after dead pods, then makes a directory for the pod of the container `id`.
    ///
    /// # Errors
    /// When the directories can't be made, or that pod lives.
    pub fn of_container(dirs: &Dirs, id: &str) -> Result<(Self, Dead)> {
        let (_guard, dead) = begin(dirs)?;
        if is_alive(dirs, id) {
            return Err(Error::WrongState(format!("container {id} is running already")));
        }
        Ok((Self::make(dirs, id.to_owned(), None)?, dead))
    }

    /// Takes over a directory that another process has made and still holds.
    ///
    /// # Errors
    /// When it is not there, or its lock can't be taken.
    pub fn adopt(dirs: &Dirs, id: &str) -> Result<Self> {
        let path = dirs.run.join(id);
        if !path.is_dir() {
            return Err(Error::io("find", path)(io::ErrorKind::NotFound.into()));
        }
        let lock = Some(lock_shared(&path.join(LOCK))?);
        Ok(Self { id: id.to_owned(), path, name_link: None, lock })
    }

    fn make(dirs: &Dirs, id: String, name_link: Option<PathBuf>) -> Result<Self> {
        let path = dirs.run.join(&id);
        make_dir_inside(&path)?;
        let lock = Some(lock_shared(&path.join(LOCK))?);
        Ok(Self { id, path, name_link, lock })
    }

    /// Lets go of the directory without removing it: the process that has adopted it will.
    pub fn hand_over(mut self) {
        self.lock = None;
    }

    /// The pod's id: 64 hexadecimal digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// A user id that no other living pod of this husk has.
    pub fn uid(&self) -> u32 {
        pod_id::uid_of(&self.id)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path inside the directory.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Another lock that tells that the pod lives, for a process that lives for it.
    ///
    /// # Errors
    /// When the lock can't be taken.
    pub fn lock_for_another(&self) -> Result<File> {
        Ok(lock_shared(&self.path.join(LOCK))?)
    }

    /// Removes what an ended VM has left, so that another can start here.
    ///
    /// # Errors
    /// When something can't be removed.
    pub fn clear(&self) -> Result<()> {
        let entries = fs::read_dir(&self.path).map_err(Error::io("read", &self.path))?;
        for entry in entries.flatten() {
            if KEPT.iter().any(|kept| entry.file_name() == *kept) {
                continue;
            }
            let path = entry.path();
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let removed = if is_dir { remove::tree(&path) } else { fs::remove_file(&path) };
            removed.map_err(Error::io("remove", path))?;
        }
        Ok(())
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if self.lock.is_none() {
            return;
        }
        // What can't be removed now is found by the next sweep.
        if let Some(link) = &self.name_link {
            let _ = fs::remove_file(link);
        }
        let _ = remove::tree(&self.path);
    }
}

/// The directory of the living pod that is called `name`, by its whole name or id.
///
/// # Errors
/// When there is none.
pub fn find(dirs: &Dirs, name: &str) -> Result<(String, PathBuf)> {
    let unknown = || Error::NoContainer { name: name.into() };
    // A name may contain neither slash nor dots alone, so it can't lead out of the directory.
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return Err(unknown());
    }
    let id = match fs::read_link(dirs.run.join(NAMES).join(name)) {
        Ok(id) => id.display().to_string(),
        Err(_) => name.to_owned(),
    };
    if is_alive(dirs, &id) { Ok((id.clone(), dirs.run.join(id))) } else { Err(unknown()) }
}

/// Whether a process lives for the pod.
pub fn is_alive(dirs: &Dirs, id: &str) -> bool {
    // One whose lock can't be tried is not there.
    is_id(id) && is_shared(&dirs.run.join(id).join(LOCK)).unwrap_or(false)
}

/// Whether there is something of a pod that was killed.
pub fn is_dead(dirs: &Dirs, id: &str) -> bool {
    is_id(id) && dirs.run.join(id).is_dir() && !is_alive(dirs, id)
}

/// Whether there is anything of the pod called `name`, dead or alive.
pub fn is_left(dirs: &Dirs, name: &str) -> bool {
    dirs.run.join(NAMES).join(name).is_symlink()
}

/// Returns when no process lives for the pod called `name`.
///
/// # Errors
/// When its lock can't be taken.
pub fn wait_until_dead(dirs: &Dirs, name: &str) -> Result<()> {
    let Ok((_, path)) = find(dirs, name) else { return Ok(()) };
    wait_for_lock(&path)
}

/// Returns when no process lives for the pod with this id, whose directory may be gone.
///
/// # Errors
/// When its lock can't be taken.
pub fn wait_until_gone(dirs: &Dirs, id: &str) -> Result<()> {
    wait_for_lock(&dirs.run.join(id))
}

/// Returns when no process lives for the pod in this directory.
///
/// # Errors
/// When its lock can't be taken.
pub fn wait_for_lock(path: &Path) -> Result<()> {
    if !path.is_dir() {
        return Ok(());
    }
    match lock_file(&path.join(LOCK)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map(drop).map_err(Into::into),
    }
}

/// Removes what is left of pods that no process lives for.
///
/// # Errors
/// When the directories can't be made or read.
pub fn clean_up(dirs: &Dirs) -> Result<Dead> {
    begin(dirs).map(|(_, dead)| dead)
}

/// Makes the directories, takes the lock of them all, and cleans up.
fn begin(dirs: &Dirs) -> Result<(File, Dead)> {
    make_private_dir(&dirs.run)?;
    make_dir_inside(&dirs.run.join(NAMES))?;
    let guard = lock_file(&dirs.run.join(LOCK))?;
    let dead = sweep(dirs)?;
    Ok((guard, dead))
}

/// Removes what is left of pods that no process lives for, under the lock of the run directory. What can't be removed is tried
/// again next time: it keeps no other pod from starting.
fn sweep(dirs: &Dirs) -> Result<Dead> {
    let entries = fs::read_dir(&dirs.run).map_err(Error::io("read", &dirs.run))?;
    let mut dead = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(id) = entry.file_name().into_string() else { continue };
        if !is_id(&id) {
            continue;
        }
        if let Ok(Some(_alone)) = try_lock_file(&path.join(LOCK)) {
            if let Err(error) = cgroup::sweep(&id) {
                tracing::warn!("cannot remove the cgroup of {id}, a killed pod: {error}");
                continue;
            }
            if let Err(error) = remove::tree(&path) {
                tracing::warn!("cannot remove {}, which a killed pod left: {error}", path.display());
            }
            dead.push(id);
        }
    }
    let names = dirs.run.join(NAMES);
    for entry in fs::read_dir(&names).map_err(Error::io("read", &names))?.flatten() {
        let path = entry.path();
        if fs::read_link(&path).is_ok_and(|owner| !dirs.run.join(owner).exists()) {
            // It is in nothing's way: a name is claimed anew then.
            let _ = fs::remove_file(&path);
        }
    }
    Ok(dead)
}

/// Makes `names/NAME` point to `id`, unless a living pod has the name.
fn claim_name(dirs: &Dirs, name: &str, id: &str) -> Result<PathBuf> {
    let link = dirs.run.join(NAMES).join(name);
    if let Ok(owner) = fs::read_link(&link) {
        if dirs.run.join(&owner).exists() {
            return Err(Error::NameInUse { name: name.into(), id: owner.display().to_string() });
        }
        fs::remove_file(&link).map_err(Error::io("remove", &link))?;
    }
    std::os::unix::fs::symlink(id, &link).map_err(Error::io("create", &link))?;
    Ok(link)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dirs() -> (tempfile::TempDir, Dirs) {
        let root = tempfile::tempdir().unwrap();
        let dirs = Dirs::new(Some(root.path()));
        (root, dirs)
    }

    #[test]
    fn a_dropped_directory_leaves_nothing() {
        let (_root, dirs) = dirs();
        let dir = RunDir::create(&dirs, Some("one")).unwrap().0;
        let (id, path) = (dir.id().to_owned(), dir.path().to_owned());
        fs::write(dir.join("file"), "x").unwrap();
        assert_eq!(find(&dirs, "one").unwrap(), (id.clone(), path.clone()));
        drop(dir);
        assert!(!path.exists() && !is_left(&dirs, "one") && find(&dirs, &id).is_err());
    }

    #[test]
    fn what_a_dead_pod_left_is_swept_by_the_next_and_the_name_is_free() {
        let (_root, dirs) = dirs();
        let mut dead = RunDir::create(&dirs, Some("one")).unwrap().0;
        let path = dead.path().to_owned();
        dead.lock = None;
        drop(dead);
        assert!(path.exists());
        let next = RunDir::create(&dirs, Some("one")).unwrap().0;
        assert!(!path.exists());
        assert_eq!(find(&dirs, "one").unwrap().0, next.id());
    }

    #[test]
    fn a_name_is_one_pods() {
        let (_root, dirs) = dirs();
        let first = RunDir::create(&dirs, Some("one")).unwrap().0;
        let error = RunDir::create(&dirs, Some("one")).unwrap_err();
        assert!(matches!(&error, Error::NameInUse { id, .. } if id == first.id()), "{error}");
    }

    #[test]
    fn each_process_that_lives_for_a_pod_keeps_it_alive() {
        let (_root, dirs) = dirs();
        let made = RunDir::create(&dirs, None).unwrap().0;
        let id = made.id().to_owned();
        let adopted = RunDir::adopt(&dirs, &id).unwrap();
        let another = adopted.lock_for_another().unwrap();
        // One that frees its own lock frees no other.
        another.unlock().unwrap();
        made.hand_over();
        assert!(is_alive(&dirs, &id));
        clean_up(&dirs).unwrap();
        assert!(adopted.path().exists());
        let again = RunDir::of_container(&dirs, &id).unwrap_err();
        assert!(matches!(again, Error::WrongState(_)), "{again}");
        drop(adopted);
        assert!(!is_alive(&dirs, &id));
        wait_until_gone(&dirs, &id).unwrap();
    }

    #[test]
    fn a_new_start_keeps_the_supervisors_files() {
        let (_root, dirs) = dirs();
        let dir = RunDir::create(&dirs, None).unwrap().0;
        for name in [SUPERVISOR_SOCKET, SUPERVISOR_LOG] {
            fs::write(dir.join(name), "").unwrap();
        }
        fs::create_dir(dir.join("vsock")).unwrap();
        fs::write(dir.join("vsock/guest"), "").unwrap();
        fs::write(dir.join("vm.json"), "").unwrap();
        dir.clear().unwrap();
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [LOCK, SUPERVISOR_SOCKET, SUPERVISOR_LOG]);
    }

    #[test]
    fn what_is_not_husks_is_in_no_ones_way() {
        let (_root, dirs) = dirs();
        drop(RunDir::create(&dirs, None).unwrap());
        fs::create_dir(dirs.run.join("lost+found")).unwrap();
        fs::write(dirs.run.join("a-file"), "").unwrap();
        RunDir::create(&dirs, None).unwrap();
        assert!(dirs.run.join("lost+found").exists() && dirs.run.join("a-file").exists());
    }
}
