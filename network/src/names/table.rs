//! The names of the containers on a user's networks, kept up to date from the networks' lease files.
//!
//! There is no daemon that knows all containers: each `husk run` watches the lease directories of its own networks
//! (inotify(7)) and reads them anew when something happens there.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd, RawFd},
    path::{Path, PathBuf},
};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::{Interest, unix::AsyncFd};

use super::is_host_name;
use crate::{Definition, Error, Lease, Networks};

/// Per container, its aliases included.
const MAX_NAMES: usize = 64;

/// Addresses by name, in lower case.
pub type Names = BTreeMap<String, BTreeSet<IpAddr>>;

/// The names on some networks.
#[derive(Debug)]
pub struct NameTable {
    networks: Networks,
    watched: Vec<Definition>,
    events: AsyncFd<Events>,
    last: Names,
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
    /// The leases can't be read.
    #[error(transparent)]
    Leases(#[from] Error),
}

impl NameTable {
    /// Begins to watch the leases of networks that are in use, and reads them. Nothing that happens from then on is missed.
    ///
    /// # Errors
    /// When a network's leases can't be watched or read.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn watch(networks: Networks, watched: Vec<Definition>) -> Result<(Self, Names), TableError> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
            .map_err(|errno| TableError::Inotify(errno.into()))?;
        for network in &watched {
            let path = networks.run_dir(network);
            add_watch(&inotify, &path).map_err(|errno| TableError::Watch { path, source: errno.into() })?;
        }
        // SAFETY: `Events` owns its descriptor, always gives the same one, and nobody takes it out of the `AsyncFd`.
        let events = unsafe { AsyncFd::register_with_interest(Events(inotify), Interest::READABLE) }
            .map_err(|error| TableError::Inotify(error.into()))?;
        let last = read_all(&networks, &watched)?;
        let names = last.clone();
        Ok((Self { networks, watched, events, last }, names))
    }

    /// Waits until the names have changed, and returns all of them. Can be cancelled: no change is lost.
    ///
    /// # Errors
    /// When leases can't be read any more.
    pub async fn changed(&mut self) -> Result<Names, TableError> {
        loop {
            let emptied =
                self.events.async_io(Interest::READABLE, |events| Ok(events.0.read_events()?)).await;
            // Which file it was does not matter: all are read. If more happened, this is called again soon.
            emptied.map_err(TableError::Inotify)?;
            let table = read_all(&self.networks, &self.watched)?;
            if table != self.last {
                self.last.clone_from(&table);
                return Ok(table);
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

/// A network that was removed has no leases, and no names.
fn read_all(networks: &Networks, watched: &[Definition]) -> Result<Names, TableError> {
    let mut table = Names::new();
    for network in watched {
        networks.leases(network)?.iter().for_each(|lease| add(&mut table, lease));
    }
    Ok(table)
}

fn add(table: &mut Names, lease: &Lease) {
    let addresses = [Some(IpAddr::V4(lease.ipv4)), lease.ipv6.map(IpAddr::V6)];
    let id = husk_base::id::short(&lease.sandbox);
    let names = [&lease.name].into_iter().chain(&lease.aliases).map(String::as_str).take(MAX_NAMES);
    for name in names.chain([id]).filter(|name| is_host_name(name)) {
        table.entry(name.to_ascii_lowercase()).or_default().extend(addresses.into_iter().flatten());
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use futures_util::FutureExt;

    use super::*;
    use crate::{NewNetwork, lease::Leases};

    fn lease(sandbox: &str, name: &str, ipv4: [u8; 4]) -> Lease {
        Lease {
            sandbox: sandbox.into(),
            name: name.into(),
            aliases: vec!["www".into()],
            ipv4: ipv4.into(),
            ipv6: Some("fd00::2".parse().unwrap()),
            mac: "02:00:00:00:00:01".parse().unwrap(),
            interface: "eth0".into(),
            tap: "hkt0".into(),
            ports: vec![],
        }
    }

    fn flat(names: &Names) -> Vec<String> {
        let texts = |addresses: &BTreeSet<IpAddr>| -> Vec<String> {
            addresses.iter().map(ToString::to_string).collect()
        };
        names.iter().map(|(name, addresses)| format!("{name} {}", texts(addresses).join(" "))).collect()
    }

    #[tokio::test]
    async fn names_come_change_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let networks = Networks::open(&dir.path().join("state"), &dir.path().join("run")).unwrap();
        let new = |name: &str, subnet: &str| NewNetwork {
            name: name.into(),
            subnet: Some(subnet.parse().unwrap()),
            no_ipv6: true,
            mtu: Some(1500),
            ..Default::default()
        };
        let watched = [new("one", "203.0.113.0/28"), new("two", "203.0.113.16/28")]
            .map(|new| networks.create(&new).unwrap());
        let write = |network: &Definition, all: &[Lease]| {
            fs::create_dir_all(networks.run_dir(network)).unwrap();
            let mut leases = Leases::default();
            leases.leases.extend_from_slice(all);
            leases.write(&networks.lease_file(network)).unwrap();
        };
        let web = lease("0123456789abcdef", "Web", [10, 0, 0, 2]);
        let db = Lease { ipv6: None, ..lease("fedcba9876543210", "db", [10, 0, 0, 3]) };
        write(&watched[0], std::slice::from_ref(&web));
        write(&watched[1], &[]);
        let (mut table, names) = NameTable::watch(networks.clone(), watched.to_vec()).unwrap();
        let first = ["0123456789ab 10.0.0.2 fd00::2", "web 10.0.0.2 fd00::2", "www 10.0.0.2 fd00::2"];
        assert_eq!(flat(&names), first);
        assert!(table.changed().now_or_never().is_none());

        write(&watched[1], std::slice::from_ref(&db));
        let both =
            [first[0], "db 10.0.0.3", "fedcba987654 10.0.0.3", first[1], "www 10.0.0.2 10.0.0.3 fd00::2"];
        assert_eq!(flat(&table.changed().await.unwrap()), both);

        // The same anew is no change.
        write(&watched[0], std::slice::from_ref(&web));
        write(&watched[1], &[Lease { name: "db2".into(), ..db }]);
        assert_eq!(flat(&table.changed().await.unwrap())[1], "db2 10.0.0.3");
        write(&watched[1], &[]);
        assert_eq!(flat(&table.changed().await.unwrap()), first);
        fs::remove_file(networks.lease_file(&watched[0])).unwrap();
        assert!(table.changed().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_network_that_is_not_in_use_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let networks = Networks::open(&dir.path().join("state"), &dir.path().join("run")).unwrap();
        let new = NewNetwork {
            name: "one".into(),
            subnet: Some("203.0.113.0/28".parse().unwrap()),
            no_ipv6: true,
            mtu: Some(1500),
            ..Default::default()
        };
        let network = networks.create(&new).unwrap();
        let error = NameTable::watch(networks, vec![network]).unwrap_err();
        assert!(
            matches!(error, TableError::Watch { source, .. } if source.kind() == io::ErrorKind::NotFound)
        );
    }

    #[test]
    fn what_is_no_host_name_is_left_out() {
        let mut table = Names::new();
        let strange =
            Lease { aliases: vec![String::new(), ".".into()], ..lease("a b", "x\ny", [10, 0, 0, 1]) };
        add(&mut table, &strange);
        assert_eq!(table, Names::new());
    }
}
