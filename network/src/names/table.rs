//! The names of the containers on a user's networks, kept up to date from the networks' lease files.
//!
//! There is no daemon that knows all containers: each `husk run` watches the lease directories of its own networks
//! (inotify(7)) and reads them anew when something happens there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Read},
    net::IpAddr,
    os::fd::{AsFd, AsRawFd, RawFd},
    path::{Path, PathBuf},
};

use husk_protocol::agent::{Name, Names};
use ipnet::IpNet;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde::Deserialize;
use tokio::io::{Interest, unix::AsyncFd};

use super::is_host_name;

const MAX_LEASE: u64 = 64 * 1024;
const MAX_LEASES: usize = 8192;
/// Per container, its aliases included.
const MAX_NAMES: usize = 64;
/// Docker's: containers can be called by so much of their id.
const SHORT_ID: usize = 12;

/// What is of interest in a lease file.
#[derive(Debug, Deserialize)]
struct Lease {
    sandbox: String,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    aliases: Vec<String>,
    /// "10.1.2.3" or "10.1.2.3/24".
    addresses: Vec<String>,
}

/// Addresses by name, in lower case.
type Table = BTreeMap<String, BTreeSet<IpAddr>>;

/// The names on some networks.
#[derive(Debug)]
pub struct NameTable {
    directories: Vec<PathBuf>,
    events: AsyncFd<Events>,
    last: Table,
}

#[derive(Debug)]
struct Events(Inotify);

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Why names can't be kept up to date.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// inotify itself is refused.
    #[error(
        "cannot watch for other containers' names: too many inotify instances? Raise sysctl fs.inotify.max_user_instances"
    )]
    Inotify(#[source] io::Error),
    /// A directory can't be watched.
    #[error("cannot watch {} for other containers' names", path.display())]
    Watch {
        /// Which directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A directory can't be read.
    #[error("cannot read the leases in {}", path.display())]
    Read {
        /// Which directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl NameTable {
    /// Begins to watch lease directories (`<run>/networks/<network>/leases`), which exist, and reads them. Nothing that
    /// happens from then on is missed.
    ///
    /// # Errors
    /// When a directory can't be watched or read.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn watch(directories: Vec<PathBuf>) -> Result<(Self, Names), TableError> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
            .map_err(|errno| TableError::Inotify(errno.into()))?;
        for path in &directories {
            add_watch(&inotify, path)
                .map_err(|errno| TableError::Watch { path: path.clone(), source: errno.into() })?;
        }
        // SAFETY: `Events` owns its descriptor, always gives the same one, and nobody takes it out of the `AsyncFd`.
        let events = unsafe { AsyncFd::register_with_interest(Events(inotify), Interest::READABLE) }
            .map_err(|error| TableError::Inotify(error.into()))?;
        let last = read_all(&directories)?;
        let names = to_names(&last);
        Ok((Self { directories, events, last }, names))
    }

    /// Waits until the names have changed, and returns all of them. Can be cancelled: no change is lost.
    ///
    /// # Errors
    /// When the directories can't be read any more.
    pub async fn changed(&mut self) -> Result<Names, TableError> {
        loop {
            let emptied =
                self.events.async_io(Interest::READABLE, |events| Ok(events.0.read_events()?)).await;
            // Which file it was does not matter: all are read. If more happened, this is called again soon.
            emptied.map_err(TableError::Inotify)?;
            let table = read_all(&self.directories)?;
            if table != self.last {
                self.last = table;
                return Ok(to_names(&self.last));
            }
        }
    }
}

fn add_watch(inotify: &Inotify, path: &Path) -> nix::Result<()> {
    // Leases come and change by rename; a plain write is there for editors.
    let flags = AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_ONLYDIR;
    inotify.add_watch(path, flags).map(drop)
}

fn read_all(directories: &[PathBuf]) -> Result<Table, TableError> {
    let mut table = Table::new();
    for path in directories {
        let failed = |source| TableError::Read { path: path.clone(), source };
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            // The network was removed by force: it has no names any more.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        };
        for entry in entries.take(MAX_LEASES) {
            let file = entry.map_err(failed)?.path();
            // One that vanished since, or is none, has no names.
            if let Some(lease) = is_lease(&file).then(|| read_lease(&file)).flatten() {
                add(&mut table, &lease);
            }
        }
    }
    Ok(table)
}

fn is_lease(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden && path.extension().is_some_and(|extension| extension == "json")
}

fn read_lease(path: &Path) -> Option<Lease> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MAX_LEASE).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn add(table: &mut Table, lease: &Lease) {
    let addresses: Vec<IpAddr> = lease.addresses.iter().filter_map(|text| parse_address(text)).collect();
    let id = lease.sandbox.get(..SHORT_ID).unwrap_or(&lease.sandbox);
    let names = lease.name.iter().chain(&lease.aliases).map(String::as_str).take(MAX_NAMES);
    for name in names.chain([id]).filter(|name| is_host_name(name)) {
        if !addresses.is_empty() {
            table.entry(name.to_ascii_lowercase()).or_default().extend(&addresses);
        }
    }
}

fn parse_address(text: &str) -> Option<IpAddr> {
    text.parse().ok().or_else(|| text.parse().ok().map(|net: IpNet| net.addr()))
}

fn to_names(table: &Table) -> Names {
    let names = table.iter().map(|(name, addresses)| Name {
        name: name.clone(),
        addresses: addresses.iter().map(ToString::to_string).collect(),
        ..Name::default()
    });
    Names { names: names.collect(), ..Names::default() }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::*;

    const WEB: &str = r#"{"sandbox":"0123456789abcdef0123","name":"Web","aliases":["www"],"addresses":["10.0.0.2/24","fd00::2"],"mac":"x"}"#;
    const DB: &str =
        r#"{"sandbox":"fedcba9876543210fedc","name":"db","aliases":["www"],"addresses":["10.0.0.3"]}"#;

    /// As leases are written: under a name that is none, and then renamed.
    fn write(directory: &Path, name: &str, text: &str) {
        let temporary = directory.join(format!(".{name}.tmp"));
        fs::write(&temporary, text).unwrap();
        fs::rename(temporary, directory.join(name)).unwrap();
    }

    fn flat(names: &Names) -> Vec<String> {
        names.names.iter().map(|name| format!("{} {}", name.name, name.addresses.join(" "))).collect()
    }

    #[tokio::test]
    async fn names_come_change_and_go() {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [one, two] = dirs.each_ref().map(tempfile::TempDir::path);
        write(one, "a.json", WEB);
        let (mut table, names) = NameTable::watch(vec![one.into(), two.into()]).unwrap();
        let web = ["0123456789ab 10.0.0.2 fd00::2", "web 10.0.0.2 fd00::2", "www 10.0.0.2 fd00::2"];
        assert_eq!(flat(&names), web);
        assert!(table.changed().now_or_never().is_none());

        write(two, "b.json", DB);
        let both = [web[0], "db 10.0.0.3", "fedcba987654 10.0.0.3", web[1], "www 10.0.0.2 10.0.0.3 fd00::2"];
        assert_eq!(flat(&table.changed().await.unwrap()), both);

        // The same anew is no change, and neither is what is no lease.
        write(one, "a.json", WEB);
        write(one, "c.json", "rubbish");
        write(one, "lock", DB);
        fs::write(one.join(".d.json"), DB).unwrap();
        write(two, "b.json", &DB.replace("\"db\"", "\"db2\""));
        let names = table.changed().await.unwrap();
        assert_eq!(flat(&names)[1], "db2 10.0.0.3");

        fs::remove_file(two.join("b.json")).unwrap();
        assert_eq!(flat(&table.changed().await.unwrap()), web);
        fs::remove_dir_all(one).unwrap();
        assert!(table.changed().await.unwrap().names.is_empty());
    }

    #[tokio::test]
    async fn a_directory_that_is_missing_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let error = NameTable::watch(vec![dir.path().join("leases")]).unwrap_err();
        assert!(
            matches!(error, TableError::Watch { source, .. } if source.kind() == io::ErrorKind::NotFound)
        );
    }

    #[test]
    fn strange_leases_have_no_names() {
        let mut table = Table::new();
        for text in [
            r#"{"sandbox":"","addresses":["10.0.0.1"]}"#,
            r#"{"sandbox":"ab","name":"x","addresses":[]}"#,
            r#"{"sandbox":"ab","name":"x","addresses":["10.0.0.300","10.0.0.1/33"]}"#,
            r#"{"sandbox":"a b","name":"x\ny","aliases":["","."],"addresses":["10.0.0.1"]}"#,
        ] {
            add(&mut table, &serde_json::from_str(text).unwrap());
        }
        assert_eq!(table, Table::new());
    }

    proptest! {
        #[test]
        fn any_text_is_a_lease_or_not(sandbox in ".{0,20}", name in ".{0,20}", address in "[0-9a-f.:/]{0,20}") {
            let lease = Lease { sandbox, name: Some(name), aliases: Vec::new(), addresses: vec![address] };
            let mut table = Table::new();
            add(&mut table, &lease);
            for (name, addresses) in table {
                prop_assert!(is_host_name(&name) && addresses.len() == 1);
            }
        }
    }
}
