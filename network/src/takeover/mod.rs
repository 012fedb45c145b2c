//! Taking over a network namespace that somebody else prepared (CNI plugins, containerd, Docker): every interface in it
//! is connected to the VM.
//!
//! Beside each interface a tap is made, and tc redirects everything that comes in at one of the two out of the other.
//! Frames pass unchanged, since the guest's interface has the very MAC of the one it stands for. The interface keeps its
//! addresses, where whoever made it looks for them, but the namespace's own stack gets to see no frame any more, and so
//! answers none. A tap that nobody holds is given to the VM as it is.

mod address;
mod link;
pub mod loopback;
mod netlink;
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

use husk_protocol::agent::Interface;
use rtnetlink::{
    Handle, LinkMessageBuilder, LinkUnspec,
    packet_route::link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute},
};

use crate::{
    Nic,
    netns::{self, Netns},
};
use link::Link;
use netlink::{Changes, Task, errno};
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
    #[error("cannot {what} in the pod's network namespace")]
    Netlink {
        /// What was tried, as a verb.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
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
    /// The kernel does not tell of changes any more.
    #[error("the kernel's tidings about the pod's network namespace have ended")]
    Ended,
}

fn tun_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => ": there is no /dev/net/tun (load the kernel module tun)",
        io::ErrorKind::PermissionDenied => ": /dev/net/tun may not be used",
        _ => "",
    }
}

fn failed<E: std::error::Error + Send + Sync + 'static>(what: &'static str) -> impl Fn(E) -> Error {
    move |source| Error::Netlink { what, source: Box::new(source) }
}

/// What happened in the namespace later on.
#[derive(Debug)]
pub enum Update {
    /// An interface came (or an old one got another MAC).
    Added(Nic),
    /// Something of an interface changed: this is all of it.
    Changed(Interface),
    /// The interface with this MAC went, or was set down.
    Removed(String),
}

/// A namespace whose interfaces are connected to a VM. The taps in its [`Nic`]s keep it going; [`release`](Self::release)
/// gives the interfaces back.
#[derive(Debug)]
pub struct Takeover {
    netns: Netns,
    handle: Handle,
    _requests: Task,
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
    pub async fn begin(netns: Netns) -> Result<(Self, Vec<Nic>)> {
        // Before the first look, so that nothing is missed in between.
        let changes = Changes::subscribe(&netns)?;
        let (handle, requests) = netlink::requests(&netns)?;
        let mut this = Self {
            netns,
            handle,
            _requests: requests,
            changes,
            stale: false,
            connected: BTreeMap::new(),
            updates: VecDeque::new(),
            queries: None,
        };
        this.look().await?;
        let nics = this.updates.drain(..).filter_map(|update| match update {
            Update::Added(nic) => Some(nic),
            _ => None,
        });
        let nics = nics.collect();
        Ok((this, nics))
    }

    /// Sysctls below net that differ from a guest's, by name, for `agent::Network`: "net.ipv4.ip_forward".
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
                if !self.changes.wait().await {
                    return Err(Error::Ended);
                }
                self.stale = true;
            }
            self.look().await?;
            self.stale = false;
        }
    }

    /// Lets a name server inside the namespace ask others outside, by the interfaces that are there and those that come.
    ///
    /// # Errors
    /// When the namespace can't be entered, or the kernel refuses.
    pub async fn let_names_be_asked(&mut self) -> Result<()> {
        let before = queries::set_ports(&self.netns)?.map_err(failed("set the range of local ports"))?;
        self.queries = Some(before);
        for (index, one) in self.connected.iter().filter(|(index, one)| one.tap != **index) {
            queries::let_answers_in(&self.handle, *index, one.tap)
                .await
                .map_err(failed("let answers of name servers in"))?;
        }
        Ok(())
    }

    /// Looks at the namespace now: whatever was done there before this is called is among what [`pending`](Self::pending)
    /// gives afterwards.
    ///
    /// # Errors
    /// When the kernel refuses something; the caller may try again.
    pub async fn catch_up(&mut self) -> Result<()> {
        self.look().await
    }

    /// The next change that has been found, without looking for more.
    pub fn pending(&mut self) -> Option<Update> {
        self.updates.pop_front()
    }

    /// Gives the interfaces back: ends the redirection. Interfaces that are gone are no error.
    ///
    /// # Errors
    /// The first that the kernel reports; the others are given back all the same.
    pub async fn release(self) -> Result<()> {
        let mut result = Ok(());
        for index in self.connected.keys() {
            result = result.and(redirect::disconnect(&self.handle, *index).await);
        }
        if let Some(before) = &self.queries {
            queries::reset_ports(&self.netns, before)?.map_err(failed("set the range of local ports"))?;
        }
        result.map_err(failed("end the redirection"))
    }

    /// Reads the namespace, and brings what is connected, and the updates to tell, up to date.
    async fn look(&mut self) -> Result<()> {
        let connected = &self.connected;
        let is_tap =
            |index| connected.values().any(|one| one.tap == index) && !connected.contains_key(&index);
        let found = read::interfaces(&self.handle, is_tap).await?;

        let stays = |index: u32, mac: &str| {
            found.iter().any(|found| found.link.index == index && found.link.mac == mac)
        };
        let gone: Vec<u32> = self
            .connected
            .iter()
            .filter(|(index, one)| !stays(**index, &one.interface.mac))
            .map(|(index, _)| *index)
            .collect();
        for index in gone {
            redirect::disconnect(&self.handle, index).await.map_err(failed("end the redirection"))?;
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
                        set_up(&self.handle, tap, found.link.mtu).await.map_err(failed("set a tap's MTU"))?;
                    }
                    one.interface = found.interface.clone();
                    self.updates.push_back(Update::Changed(found.interface));
                }
                None => self.add(found).await?,
            }
        }
        Ok(())
    }

    async fn add(&mut self, found: read::Found) -> Result<()> {
        let read::Found { link, interface } = found;
        let Some(Tap { fd, index }) = self.connect(&link).await? else { return Ok(()) };
        self.connected.insert(link.index, Connected { tap: index, interface: interface.clone() });
        self.updates.push_back(Update::Added(Nic { tap: fd, interface }));
        Ok(())
    }

    /// Connects an interface to a tap. `None`: it is gone.
    async fn connect(&self, link: &Link) -> Result<Option<Tap>> {
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
        let result = tokio::try_join!(
            set_up(&self.handle, tap.index, link.mtu),
            redirect::connect(&self.handle, link.index, tap.index)
        );
        let result = match result {
            Ok(_) if self.queries.is_some() => {
                queries::let_answers_in(&self.handle, link.index, tap.index).await
            }
            result => result.map(drop),
        };
        match result {
            Ok(()) => Ok(Some(tap)),
            Err(error) if errno(&error) == libc::ENODEV => Ok(None),
            Err(error) => Err(failed("redirect an interface to a tap")(error)),
        }
    }
}

/// Sets a tap up, without an address by which the namespace's own stack would take part.
async fn set_up(handle: &Handle, tap: u32, mtu: u32) -> std::result::Result<(), rtnetlink::Error> {
    let request = || LinkMessageBuilder::<LinkUnspec>::default().index(tap).mtu(mtu).up();
    let silent = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
    let message = request().append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![silent])).build();
    match handle.link().set(message).execute().await {
        // No IPv6 here, or not with this MTU: nothing to keep silent.
        Err(error) if errno(&error) == libc::EAFNOSUPPORT => {
            handle.link().set(request().build()).execute().await
        }
        result => result,
    }
}

#[cfg(test)]
mod tests;
