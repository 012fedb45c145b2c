//! One directory per running sandbox, and the cleaning up after those that were killed.
//!
//! A sandbox's id begins with a number that no other living one has, from which its VMM's user id comes.
//!
//! A sandbox's directory holds a `lock` file, flocked for as long as husk or its VMM lives: the VMM inherits the
//! descriptor, so a free lock means that neither is left. Directories are made and swept under one lock of the whole
//! run directory, so nobody sees a directory whose lock is not yet taken.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use crate::{
    Error, Result, cgroup,
    paths::{Dirs, make_private_dir},
    remove,
};

const LOCK: &str = "lock";
const NAMES: &str = "names";
/// Hexadecimal digits of an id that are a number of their own.
const NUMBER_LEN: usize = 6;
/// User ids from here on, 16 million of them, are husk's: above those that systems give to users, services and containers.
const FIRST_UID: u32 = 2_000_000_000;

/// A running sandbox's directory. Dropping it removes everything the sandbox had on disk.
#[derive(Debug)]
pub struct RunDir {
    id: String,
    path: PathBuf,
    scratch: PathBuf,
    name_link: Option<PathBuf>,
    lock: File,
}

impl RunDir {
    /// Sweeps what dead sandboxes left, then makes a directory for a new one, with a fresh id.
    ///
    /// # Errors
    /// When the directories can't be made, or when `name` is in use.
    pub fn create(dirs: &Dirs, name: Option<&str>) -> Result<Self> {
        for dir in [&dirs.run, &dirs.run.join(NAMES), &dirs.scratch(), &dirs.disks()] {
            make_private_dir(dir)?;
        }
        let _guard = lock_file(&dirs.run.join(LOCK), Wait::Yes)?;
        sweep(dirs)?;

        let id = new_id(&dirs.run)?;
        let path = dirs.run.join(&id);
        let name_link = name.map(|name| claim_name(dirs, name, &id)).transpose()?;
        make_private_dir(&path)?;
        let lock = lock_file(&path.join(LOCK), Wait::Yes)?
            .ok_or_else(|| Error::io("lock", &path)(io::ErrorKind::WouldBlock.into()))?;
        let scratch = dirs.scratch().join(format!("{id}.img"));
        Ok(Self { id, path, scratch, name_link, lock })
    }

    /// The sandbox's id: 32 hexadecimal digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// A user id that no other living sandbox of this husk has.
    pub fn uid(&self) -> u32 {
        uid_of(&self.id)
    }

    /// A path inside the directory.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Where this sandbox's scratch disk goes: on the data file system, since it may grow large.
    pub fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// The descriptor whose lock tells that the sandbox lives.
    pub fn lock(&self) -> &File {
        &self.lock
    }
}

/// The directory of the living sandbox that is called `name`, or whose id begins so.
///
/// # Errors
/// When there is none, or several ids begin so.
pub fn find(dirs: &Dirs, name: &str) -> Result<(String, PathBuf)> {
    let unknown = || Error::NoContainer { name: name.into() };
    // A name may contain neither slash nor dots alone, so it can't lead out of the directory.
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return Err(unknown());
    }
    let mut found = match fs::read_link(dirs.run.join(NAMES).join(name)) {
        Ok(id) => vec![id.display().to_string()],
        Err(_) => ids(&dirs.run)?.filter(|id| id.starts_with(name)).collect(),
    };
    found.retain(|id| is_alive(dirs, id));
    match found.as_slice() {
        [] => Err(unknown()),
        [id] => Ok((id.clone(), dirs.run.join(id))),
        _ => {
            Err(Error::InvalidOption(format!("several containers' ids begin with {name:?}: give more of it")))
        }
    }
}

/// Whether the sandbox's husk or VMM lives.
pub fn is_alive(dirs: &Dirs, id: &str) -> bool {
    let lock = dirs.run.join(id).join(LOCK);
    // Opened, not made: a directory that is gone stays gone.
    is_id(id)
        && File::open(lock).is_ok_and(|file| matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)))
}

/// Whether there is anything of the sandbox called `name`, dead or alive.
pub fn is_left(dirs: &Dirs, name: &str) -> bool {
    dirs.run.join(NAMES).join(name).is_symlink()
}

/// Returns when neither husk nor VMM of the sandbox called `name` live.
///
/// # Errors
/// When its lock can't be taken.
pub fn wait_until_dead(dirs: &Dirs, name: &str) -> Result<()> {
    let Ok((_, path)) = find(dirs, name) else { return Ok(()) };
    lock_file(&path.join(LOCK), Wait::Yes).map(drop)
}

fn ids(run: &Path) -> Result<impl Iterator<Item = String>> {
    let entries = fs::read_dir(run).map_err(Error::io("read", run))?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names.filter(|name| is_id(name)))
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // What can't be removed now is found by the next sweep.
        let _ = fs::remove_file(&self.scratch);
        if let Some(link) = &self.name_link {
            let _ = fs::remove_file(link);
        }
        let _ = remove::tree(&self.path);
    }
}

/// Whether to wait for a lock that somebody has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Until it is free.
    Yes,
    /// Not at all.
    No,
}

/// Takes an exclusive lock on a file, which is made when missing. `None`: somebody has it and `wait` is [`Wait::No`].
///
/// A holder may remove the file before it lets go: whoever waited then starts over with a new one.
///
/// # Errors
/// When the file can't be opened or locked.
pub fn lock_file(path: &Path, wait: Wait) -> Result<Option<File>> {
    loop {
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path)
            .map_err(Error::io("open", path))?;
        if wait == Wait::Yes {
            file.lock().map_err(Error::io("lock", path))?;
        } else {
            match file.try_lock() {
                Ok(()) => {}
                Err(fs::TryLockError::WouldBlock) => return Ok(None),
                Err(fs::TryLockError::Error(error)) => return Err(Error::io("lock", path)(error)),
            }
        }
        let locked = file.metadata().map_err(Error::io("read", path))?;
        if fs::metadata(path).is_ok_and(|now| now.ino() == locked.ino() && now.dev() == locked.dev()) {
            return Ok(Some(file));
        }
    }
}

/// Removes what is left of sandboxes that nobody holds the lock of.
///
/// # Errors
/// When something can't be removed.
pub fn clean_up(dirs: &Dirs) -> Result<()> {
    for dir in [&dirs.run, &dirs.run.join(NAMES), &dirs.scratch()] {
        make_private_dir(dir)?;
    }
    let _guard = lock_file(&dirs.run.join(LOCK), Wait::Yes)?;
    sweep(dirs)
}

/// Removes what is left of sandboxes that nobody holds the lock of, under the lock of the run directory.
fn sweep(dirs: &Dirs) -> Result<()> {
    let entries = fs::read_dir(&dirs.run).map_err(Error::io("read", &dirs.run))?;
    for entry in entries.flatten() {
        let path = entry.path();
        if !entry.file_name().to_str().is_some_and(is_id) {
            continue;
        }
        if lock_file(&path.join(LOCK), Wait::No)?.is_some() {
            if let Some(id) = entry.file_name().to_str() {
                cgroup::sweep(id);
            }
            remove::tree(&path).map_err(Error::io("remove", &path))?;
        }
    }
    let names = dirs.run.join(NAMES);
    for entry in fs::read_dir(&names).map_err(Error::io("read", &names))?.flatten() {
        let path = entry.path();
        if fs::read_link(&path).is_ok_and(|owner| !dirs.run.join(owner).exists()) {
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
    }
    let scratch = dirs.scratch();
    for entry in fs::read_dir(&scratch).map_err(Error::io("read", &scratch))?.flatten() {
        let path = entry.path();
        let alive = path.file_stem().is_some_and(|id| dirs.run.join(id).exists());
        if !alive {
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
    }
    Ok(())
}

/// Makes `names/NAME` point to `id`, unless a living sandbox has the name.
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

fn is_id(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The user id of a sandbox's VMM.
pub(crate) fn uid_of(id: &str) -> u32 {
    FIRST_UID + number(id)
}

/// The number that an id begins with.
pub(crate) fn number(id: &str) -> u32 {
    id.get(..NUMBER_LEN).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or(0)
}

/// An id whose number no other in `run` has.
fn new_id(run: &Path) -> Result<String> {
    let taken: Vec<u32> = ids(run)?.map(|id| number(&id)).collect();
    loop {
        let id = random_id()?;
        if !taken.contains(&number(&id)) {
            return Ok(id);
        }
    }
}

fn random_id() -> Result<String> {
    use std::fmt::Write;
    let mut random = [0_u8; 16];
    // SAFETY: the pointer and length describe `random`, which getrandom fills.
    let n = unsafe { libc::getrandom(random.as_mut_ptr().cast(), random.len(), 0) };
    if n != 16 {
        return Err(Error::io("read", "the system's random numbers")(io::Error::last_os_error()));
    }
    Ok(random.iter().fold(String::with_capacity(32), |mut id, byte| {
        let _ = write!(id, "{byte:02x}");
        id
    }))
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
    fn dropping_leaves_nothing() {
        let (_root, dirs) = dirs();
        let run = RunDir::create(&dirs, Some("web")).unwrap();
        fs::write(run.scratch(), "x").unwrap();
        fs::write(run.join("file"), "x").unwrap();
        let path = run.join("");
        drop(run);
        assert!(!path.exists());
        assert_eq!(fs::read_dir(dirs.scratch()).unwrap().count(), 0);
        assert_eq!(fs::read_dir(dirs.run.join(NAMES)).unwrap().count(), 0);
    }

    #[test]
    fn a_dead_sandbox_is_swept_and_a_living_one_is_not() {
        let (_root, dirs) = dirs();
        let alive = RunDir::create(&dirs, None).unwrap();
        fs::write(alive.scratch(), "x").unwrap();
        // What kill -9 leaves: a directory whose lock nobody holds, a scratch disk, a name.
        let dead_id = "0123456789abcdef0123456789abcdef";
        fs::create_dir(dirs.run.join(dead_id)).unwrap();
        fs::write(dirs.run.join(dead_id).join(LOCK), "").unwrap();
        fs::write(dirs.scratch().join(format!("{dead_id}.img")), "x").unwrap();
        std::os::unix::fs::symlink(dead_id, dirs.run.join(NAMES).join("web")).unwrap();

        let next = RunDir::create(&dirs, Some("web")).unwrap();
        assert!(!dirs.run.join(dead_id).exists());
        assert_eq!(fs::read_dir(dirs.run.join(NAMES)).unwrap().count(), 1);
        assert!(!dirs.scratch().join(format!("{dead_id}.img")).exists());
        assert!(alive.join(LOCK).exists() && alive.scratch().exists());
        assert!(next.join(LOCK).exists());
    }

    #[test]
    fn a_name_has_one_living_owner() {
        let (_root, dirs) = dirs();
        let first = RunDir::create(&dirs, Some("web")).unwrap();
        let error = RunDir::create(&dirs, Some("web")).unwrap_err();
        assert!(matches!(error, Error::NameInUse { ref id, .. } if id == first.id()), "{error}");
        drop(first);
        assert!(!is_left(&dirs, "web"));
        let second = RunDir::create(&dirs, Some("web")).unwrap();
        assert!(is_left(&dirs, "web"));
        // As kill -9 does.
        std::mem::forget(second);
        assert!(is_left(&dirs, "web"));
    }
}
