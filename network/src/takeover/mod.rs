//! Taking over a network namespace that somebody else prepared (CNI plugins, containerd, Docker): every interface in it
//! is connected to the VM.
//!
//! Beside each interface a tap is made, and tc redirects everything that comes in at one of the two out of the other.
//! Frames pass unchanged, since the guest's interface has the very MAC of the one it stands for. The interface keeps its
//! addresses, where whoever made it looks for them, but the namespace's own stack gets to see no frame any more, and so
//! answers none. A tap that nobody holds is given to the VM as it is.

mod address;
mod changes;
mod filter;
mod link;
pub mod loopback;
mod queries;
mod read;
mod redirect;
mod route;
mod steer;
mod sysctl;
mod tap;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    io,
    path::PathBuf,
};

use husk_base::{
    Mac,
    netlink::{Failed, Socket},
};

use crate::{
    Nic,
    netns::{self, Netns},
    nic::Interface,
};
use changes::Changes;
use link::Link;
use tap::Tap;

/// Result of this module's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a namespace could not be taken over.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The namespace itself.
    #[error(transparent)]
    Netns(#[from] netns::Error),
    /// The kernel refused something.
    #[error("cannot {what} in the pod's network namespace{words}")]
    Kernel {
        /// What was tried, as a verb.
        what: &'static str,
        /// The kernel's own words, after a colon; or empty.
        words: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A tap could not be made.
    #[error("cannot make a tap for interface {name} in {}{}", netns.display(), tun_hint(source))]
    Tap {
        /// The interface that it is for.
        name: String,
        /// The namespace.
        netns: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An endless list.
    #[error("cannot {what} in the pod's network namespace: more than {limit}")]
    TooMany {
        /// What was tried, as a verb.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
}

fn tun_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => ": there is no /dev/net/tun (load the kernel module tun)",
        io::ErrorKind::PermissionDenied => ": /dev/net/tun may not be used",
        _ => "",
    }
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Kernel { what, words: String::new(), source }
}

impl From<Failed> for Error {
    fn from(Failed { what, source, words, .. }: Failed) -> Self {
        let words = if words.is_empty() { words } else { format!(": {words}") };
        Self::Kernel { what, words, source }
    }
}

/// What happened in the namespace later on.
#[derive(Debug)]
pub enum Update {
    /// An interface came (or an old one got another MAC).
    Added(Nic),
    /// Something of an interface changed: this is all of it.
    Changed(Interface),
    /// The interface with this MAC went, or was set down.
    Removed(Mac),
}

/// A namespace whose interfaces are connected to a VM. The taps in its [`Nic`]s keep it going; [`release`](Self::release)
/// gives the interfaces back.
#[derive(Debug)]
pub struct Takeover {
    netns: Netns,
    socket: Socket,
    changes: Changes,
    /// Something changed, and has not been read yet.
    stale: bool,
    connected: BTreeMap<u32, Connected>,
    updates: VecDeque<Update>,
    /// The namespace's own stack may ask name servers; the ports that it had before.
    queries: Option<String>,
}

/// An interface that is connected to a tap.
#[derive(Debug)]
struct Connected {
    /// Of the tap; of the interface itself if it is the VM's tap.
    tap: u32,
    interface: Interface,
}

impl Takeover {
    /// Takes over all interfaces of a namespace that are there now. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the namespace can't be entered, or the kernel refuses taps, tc, or to tell what is there.
    pub fn begin(netns: Netns) -> Result<(Self, Vec<Nic>)> {
        // Before the first look, so that nothing is missed in between.
        let (events, socket) = netns.run(|| (Changes::subscribe(), Socket::route()))?;
        let changes = events.and_then(Changes::of).map_err(failed("listen for changes"))?;
        let socket = socket.map_err(failed("open a netlink socket"))?;
        let mut this = Self {
            netns,
            socket,
            changes,
            stale: false,
            connected: BTreeMap::new(),
            updates: VecDeque::new(),
            queries: None,
        };
        if let Err(error) = this.look() {
            // The reason counts.
            let _ = this.release_now();
            return Err(error);
        }
        let nics = this.updates.drain(..).filter_map(|update| match update {
            Update::Added(nic) => Some(nic),
            _ => None,
        });
        let nics = nics.collect();
        Ok((this, nics))
    }

    /// Sysctls below net that differ from a guest's, by name: "net.ipv4.ip_forward".
    ///
    /// # Errors
    /// When the namespace can't be entered.
    pub fn sysctls(&self) -> Result<HashMap<String, String>> {
        let names: Vec<String> = self.connected.values().map(|one| one.interface.name.clone()).collect();
        let mut changed = self.netns.run(|| sysctl::changed(&names))?;
        if self.queries.is_some() {
            changed.remove(&sysctl::name_of(queries::RANGE));
        }
        Ok(changed)
    }

    /// Returns the next change in the namespace, when there is one. Can be cancelled at any time, and called again.
    ///
    /// # Errors
    /// When the kernel refuses something; the caller may try again.
    pub async fn next(&mut self) -> Result<Update> {
        loop {
            if let Some(update) = self.updates.pop_front() {
                return Ok(update);
            }
            if !self.stale {
                self.changes.wait().await.map_err(failed("read changes"))?;
                self.stale = true;
            }
            self.look()?;
            self.stale = false;
        }
    }

    /// Lets a name server inside the namespace ask others outside, by the interfaces that are there and those that come.
    ///
    /// # Errors
    /// When the namespace can't be entered, or the kernel refuses.
    pub fn let_names_be_asked(&mut self) -> Result<()> {
        let before = queries::set_ports(&self.netns)?.map_err(failed("set the range of local ports"))?;
        self.queries = Some(before);
        for (index, one) in self.connected.iter().filter(|(index, one)| one.tap != **index) {
            queries::let_answers_in(&self.socket, *index, one.tap)?;
        }
        Ok(())
    }

    /// Looks at the namespace now: whatever was done there before this is called is among what [`pending`](Self::pending)
    /// gives afterwards.
    ///
    /// # Errors
    /// When the kernel refuses something; the caller may try again.
    pub fn catch_up(&mut self) -> Result<()> {
        self.look()
    }

    /// The next change that has been found, without looking for more.
    pub fn pending(&mut self) -> Option<Update> {
        self.updates.pop_front()
    }

    /// Gives the interfaces back: ends the redirection, on a thread of its own, since the kernel may take its time.
    /// Interfaces that are gone are not an error.
    ///
    /// # Errors
    /// The first that the kernel reports; the others are given back all the same.
    pub async fn release(self) -> Result<()> {
        match tokio::task::spawn_blocking(move || self.release_now()).await {
            Ok(result) => result,
            Err(error) => Err(failed("end the redirection")(error.into())),
        }
    }

    fn release_now(&self) -> Result<()> {
        let mut result = Ok(());
        for index in self.connected.keys() {
            result = result.and(redirect::disconnect(&self.socket, *index));
        }
        if let Some(before) = &self.queries {
            queries::reset_ports(&self.netns, before)?.map_err(failed("set the range of local ports"))?;
        }
        Ok(result?)
    }

    /// Reads the namespace, and brings what is connected, and the updates to tell, up to date.
    fn look(&mut self) -> Result<()> {
        let connected = &self.connected;
        let is_tap =
            |index| connected.values().any(|one| one.tap == index) && !connected.contains_key(&index);
        let found = read::interfaces(&self.socket, is_tap)?;

        let stays = |index: u32, mac: Mac| {
            found.iter().any(|found| found.link.index == index && found.link.mac == mac)
        };
        let gone: Vec<u32> = self
            .connected
            .iter()
            .filter(|(index, one)| !stays(**index, one.interface.mac))
            .map(|(index, _)| *index)
            .collect();
        for index in gone {
            redirect::disconnect(&self.socket, index)?;
            if let Some(one) = self.connected.remove(&index) {
                self.updates.push_back(Update::Removed(one.interface.mac));
            }
        }
        for found in found {
            match self.connected.get_mut(&found.link.index) {
                Some(one) if one.interface == found.interface => {}
                Some(one) => {
                    let tap = one.tap;
                    if one.interface.mtu != found.link.mtu && tap != found.link.index {
                        link::set_up(&self.socket, tap, found.link.mtu)?;
                    }
                    one.interface = found.interface.clone();
                    self.updates.push_back(Update::Changed(found.interface));
                }
                None => self.add(found)?,
            }
        }
        Ok(())
    }

    fn add(&mut self, found: read::Found) -> Result<()> {
        let read::Found { link, interface } = found;
        let Some(Tap { fd, index }) = self.connect(&link)? else { return Ok(()) };
        self.connected.insert(link.index, Connected { tap: index, interface: interface.clone() });
        self.updates.push_back(Update::Added(Nic { tap: fd, interface }));
        Ok(())
    }

    /// Connects an interface to a tap. `None`: it is gone.
    fn connect(&self, link: &Link) -> Result<Option<Tap>> {
        let open = || {
            // Somebody may take it before we do; then it is an interface like others.
            let free = link.free_tap.then(|| tap::attach(&link.name).ok()).flatten();
            free.filter(|tap| tap.index == link.index).map_or_else(tap::create, Ok)
        };
        let name = || link.name.clone();
        let tap = self.netns.run(open)?.map_err(|source| Error::Tap {
            name: name(),
            netns: self.netns.path().into(),
            source,
        })?;
        if tap.index == link.index {
            return Ok(Some(tap));
        }
        match self.join(link, tap.index) {
            Ok(()) => Ok(Some(tap)),
            Err(failed) if failed.errno() == libc::ENODEV => Ok(None),
            Err(failed) => {
                // Half-connected, it would speak with nobody.
                let _ = redirect::disconnect(&self.socket, link.index);
                Err(failed.into())
            }
        }
    }

    /// Connects an interface and its tap.
    fn join(&self, link: &Link, tap: u32) -> std::result::Result<(), Failed> {
        link::set_up(&self.socket, tap, link.mtu)?;
        redirect::connect(&self.socket, link.index, tap)?;
        if self.queries.is_some() { queries::let_answers_in(&self.socket, link.index, tap) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
