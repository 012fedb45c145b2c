//! What happens to containers, written down by all clients and supervisors in one file: `<run>/events.log`, a line of JSON an
//! event. The file is renamed to `events.log.1` when it has 1 MiB, so at most about 2 MiB are kept, and none after a reboot.
//!
//! An event costs one `open` and one `write`. One that can't be written is lost: no container waits for it.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use husk_base::{dirs::make_private_dir, lock::try_lock_file};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    paths::Dirs,
    store::{Config, Timestamp},
    watch::Watch,
};

const CURRENT: &str = "events.log";
const ROTATED: &str = "events.log.1";
const LOCK: &str = "events.lock";
/// Bytes from which on the file is renamed.
const MAX_LEN: u64 = 1 << 20;

/// Something that has happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Nanoseconds since 1970-01-01 UTC.
    pub time_ns: u64,
    /// What it has happened to: `container`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Docker's word for it: `start`, `die`, ...
    pub action: String,
    /// The container's id.
    pub id: String,
    /// Docker's attributes: `image`, `name`, labels, and what belongs to the action.
    pub attributes: BTreeMap<String, String>,
}

impl Event {
    /// An event of a container, which happens now.
    pub fn of_container(config: &Config, action: impl Into<String>) -> Self {
        let mut attributes = config.labels();
        attributes.insert("image".into(), config.image.name.clone());
        attributes.insert("name".into(), config.name.clone());
        Self {
            time_ns: Timestamp::now().0,
            kind: "container".into(),
            action: action.into(),
            id: config.id.clone(),
            attributes,
        }
    }

    /// The event with another attribute.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.attributes.insert(key.into(), value.into());
        self
    }
}

/// Writes an event down.
pub fn record(dirs: &Dirs, event: &Event) {
    if let Err(error) = append(&dirs.run, event) {
        tracing::warn!("cannot write an event to {}: {error}", dirs.run.join(CURRENT).display());
    }
}

fn append(dir: &Path, event: &Event) -> io::Result<()> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    let path = dir.join(CURRENT);
    let open = || OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
    let mut file = match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_private_dir(dir).map_err(io::Error::other)?;
            open()?
        }
        other => other?,
    };
    // With O_APPEND, lines that are written at the same time follow each other.
    file.write_all(&line)?;
    let written = file.metadata()?;
    if written.len() >= MAX_LEN { rotate(dir, written.ino()) } else { Ok(()) }
}

/// Renames the file, if it is still this one and no other process is about to.
fn rotate(dir: &Path, inode: u64) -> io::Result<()> {
    let Some(_lock) = try_lock_file(&dir.join(LOCK)).map_err(io::Error::other)? else { return Ok(()) };
    let path = dir.join(CURRENT);
    if path.metadata()?.ino() == inode { fs::rename(path, dir.join(ROTATED)) } else { Ok(()) }
}

/// Reads the events that are written down, and those that follow.
#[derive(Debug)]
pub struct Events {
    dir: PathBuf,
    changes: Watch,
    /// The oldest first. A file that was renamed is read on: a writer may have opened it before.
    files: VecDeque<Tail>,
}

#[derive(Debug)]
struct Tail {
    file: File,
    inode: u64,
    /// The begin of a line.
    rest: Vec<u8>,
}

impl Events {
    /// Opens the log, which need not exist yet. Needs a tokio runtime with I/O.
    ///
    /// # Errors
    /// When its directory can't be made or watched.
    pub fn open(dirs: &Dirs) -> Result<Self> {
        make_private_dir(&dirs.run)?;
        let changes = Watch::begin(&dirs.run).map_err(Error::io("watch", &dirs.run))?;
        Ok(Self { dir: dirs.run.clone(), changes, files: VecDeque::new() })
    }

    /// The events that were written since the last call, or since ever at the first. After more than one rotation in
    /// between, the oldest are missing.
    ///
    /// # Errors
    /// When a file can't be read.
    pub fn read(&mut self) -> Result<Vec<Event>> {
        self.read_files().map_err(Error::io("read", self.dir.join(CURRENT)))
    }

    fn read_files(&mut self) -> io::Result<Vec<Event>> {
        for name in [ROTATED, CURRENT] {
            let file = match File::open(self.dir.join(name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            let inode = file.metadata()?.ino();
            if self.files.iter().all(|known| known.inode != inode) {
                self.files.push_back(Tail { file, inode, rest: Vec::new() });
            }
        }
        let mut events = Vec::new();
        for file in &mut self.files {
            file.read(&mut events)?;
        }
        while self.files.len() > 2 {
            self.files.pop_front();
        }
        Ok(events)
    }

    /// Returns when there may be more to read. The future may be dropped, and nothing is lost.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub async fn changed(&self) -> Result<()> {
        self.changes.changed().await.map_err(Error::io("watch", &self.dir))
    }
}

impl Tail {
    /// Adds the events of the lines that are complete. Lines that are not events are skipped.
    fn read(&mut self, events: &mut Vec<Event>) -> io::Result<()> {
        (&self.file).read_to_end(&mut self.rest)?;
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else { return Ok(()) };
        let lines = self.rest.drain(..=end).collect::<Vec<_>>();
        events
            .extend(lines.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn dirs(root: &Path) -> Dirs {
        Dirs::new(Some(root))
    }

    fn event(number: u64, size: usize) -> Event {
        Event {
            time_ns: number,
            kind: "container".into(),
            action: "start".into(),
            id: "x".into(),
            attributes: [("name".to_owned(), "y".repeat(size))].into(),
        }
    }

    fn numbers(events: &[Event]) -> Vec<u64> {
        events.iter().map(|event| event.time_ns).collect()
    }

    #[tokio::test]
    async fn what_is_recorded_is_read_once() {
        let root = tempfile::tempdir().unwrap();
        let dirs = dirs(root.path());
        record(&dirs, &event(1, 1));
        let mut events = Events::open(&dirs).unwrap();
        assert_eq!(events.read().unwrap(), [event(1, 1)]);
        assert_eq!(events.read().unwrap(), []);
        record(&dirs, &event(2, 1));
        events.changed().await.unwrap();
        assert_eq!(numbers(&events.read().unwrap()), [2]);
        let mode = dirs.run.join(CURRENT).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_reader_follows_rotations_and_the_log_is_bounded() {
        let root = tempfile::tempdir().unwrap();
        let dirs = dirs(root.path());
        let mut events = Events::open(&dirs).unwrap();
        let mut read = Vec::new();
        for number in 0..100 {
            record(&dirs, &event(number, 60_000));
            read.extend(numbers(&events.read().unwrap()));
        }
        assert_eq!(read, (0..100).collect::<Vec<_>>());
        let size = |name| dirs.run.join(name).metadata().map_or(0, |file| file.len());
        assert!(
            size(CURRENT) < MAX_LEN && size(ROTATED) < 2 * MAX_LEN,
            "{} {}",
            size(CURRENT),
            size(ROTATED)
        );
        assert!(size(ROTATED) >= MAX_LEN);
    }

    #[tokio::test]
    async fn damaged_and_unfinished_lines_are_no_events() {
        let root = tempfile::tempdir().unwrap();
        let dirs = dirs(root.path());
        record(&dirs, &event(1, 1));
        let whole = serde_json::to_string(&event(2, 1)).unwrap();
        let mut file = OpenOptions::new().append(true).open(dirs.run.join(CURRENT)).unwrap();
        write!(file, "{{\n\n{}", &whole[..20]).unwrap();
        let mut events = Events::open(&dirs).unwrap();
        assert_eq!(numbers(&events.read().unwrap()), [1]);
        writeln!(file, "{}", &whole[20..]).unwrap();
        assert_eq!(numbers(&events.read().unwrap()), [2]);
    }

    #[test]
    fn a_file_that_was_renamed_meanwhile_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let dirs = dirs(root.path());
        record(&dirs, &event(1, 1));
        rotate(&dirs.run, 0).unwrap();
        assert!(dirs.run.join(CURRENT).exists() && !dirs.run.join(ROTATED).exists());
    }
}
