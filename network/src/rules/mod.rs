//! Rules of nftables, by netlink. One batch is one transaction: all of it holds from one moment to the next, or nothing.
//!
//! Each network has a table of the family `inet` and one of the family `netdev`, both named like its bridge. Nothing else
//! is touched.

mod expr;
mod guard;
mod network;
mod published;

use husk_base::netlink::{Attributes, Request, Socket};

use crate::{Error, Result, definition::Definition, lease::Lease, link};
use expr::Expressions;

/// `NFNL_SUBSYS_NFTABLES`, as the upper byte of a message's type.
pub(crate) const SUBSYSTEM: u16 = 10 << 8;
const NFNL_MSG_BATCH_BEGIN: u16 = 16;
const NFNL_MSG_BATCH_END: u16 = 17;
const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_DELTABLE: u16 = 2;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_DELCHAIN: u16 = 5;
const NFT_MSG_NEWRULE: u16 = 6;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_HOOK_DEV: u16 = 3;

/// Families of tables.
const INET: u8 = 1;
const NETDEV: u8 = 5;

/// The rules of the calling thread's network namespace.
#[derive(Debug)]
pub(crate) struct Rules {
    socket: Socket,
}

impl Rules {
    pub(crate) fn open() -> Result<Self> {
        Ok(Self { socket: Socket::netfilter().map_err(Error::io("open", "a netlink socket"))? })
    }

    /// Makes a network's tables anew, as they are without any container.
    pub(crate) fn set_up(&self, network: &Definition) -> Result<()> {
        let mut batch = Batch::new();
        batch.remove_tables(&network.bridge());
        network::write(&mut batch, network);
        batch.send(&self.socket, network)
    }

    /// Lets in what a lease publishes, and guards its tap, which has to be there. `all` of the network's leases serve to
    /// make good what somebody else removed.
    pub(crate) fn admit(&self, network: &Definition, lease: &Lease, all: &[Lease]) -> Result<()> {
        let mut batch = Batch::new();
        guard::write(&mut batch, network, lease);
        published::add(&mut batch, network, std::slice::from_ref(lease));
        self.send_or_restore(batch, network, all)
    }

    /// Removes what `gone` had, and leaves of ports what `left` publish. It doesn't matter what of it was there.
    pub(crate) fn expel(&self, network: &Definition, gone: &[Lease], left: &[Lease]) -> Result<()> {
        let mut batch = Batch::new();
        let bridge = network.bridge();
        for lease in gone {
            guard::remove(&mut batch, &bridge, lease);
        }
        if gone.iter().any(|lease| !lease.ports.is_empty()) {
            published::clear(&mut batch, network);
            published::add(&mut batch, network, left);
        }
        self.send_or_restore(batch, network, left)
    }

    /// Sends a batch. If a table is missing (the host's own firewall was loaded anew after `flush ruleset`), then the
    /// network's rules are made again, with all that these leases need.
    fn send_or_restore(&self, batch: Batch, network: &Definition, leases: &[Lease]) -> Result<()> {
        match batch.send(&self.socket, network) {
            Err(Error::Kernel { source, .. }) if source.raw_os_error() == Some(libc::ENOENT) => {}
            result => return result,
        }
        let mut batch = Batch::new();
        let bridge = network.bridge();
        batch.remove_tables(&bridge);
        network::write(&mut batch, network);
        // A lease whose tap is gone needs no guard.
        for lease in leases.iter().filter(|lease| link::index(&lease.tap).is_ok()) {
            guard::write(&mut batch, network, lease);
        }
        published::add(&mut batch, network, leases);
        batch.send(&self.socket, network)
    }

    /// Removes a network's tables, if they are there.
    pub(crate) fn take_down(&self, network: &Definition) -> Result<()> {
        let mut batch = Batch::new();
        batch.remove_tables(&network.bridge());
        batch.send(&self.socket, network)
    }
}

/// Where a chain is hooked in.
#[derive(Debug, Clone, Copy)]
struct Hook<'a> {
    kind: &'a str,
    number: u32,
    priority: i32,
    policy: expr::Verdict,
    device: Option<&'a str>,
}

/// A transaction being written.
#[derive(Debug)]
struct Batch {
    request: Request,
}

impl Batch {
    fn new() -> Self {
        let mut request = Request::default();
        let [high, low] = (SUBSYSTEM >> 8).to_be_bytes();
        request.silent("begin transaction", NFNL_MSG_BATCH_BEGIN, 0, &[0, 0, high, low], |_| {});
        Self { request }
    }

    fn send(mut self, socket: &Socket, network: &Definition) -> Result<()> {
        self.request.answer();
        let [high, low] = (SUBSYSTEM >> 8).to_be_bytes();
        self.request.silent("commit rules", NFNL_MSG_BATCH_END, 0, &[0, 0, high, low], |_| {});
        socket.send(&self.request).map_err(Error::kernel(&network.name))
    }

    fn message(
        &mut self,
        what: &'static str,
        kind: u16,
        flags: u16,
        family: u8,
        body: impl FnOnce(&mut Attributes<'_>),
    ) {
        self.request.silent(what, SUBSYSTEM | kind, flags, &[family, 0, 0, 0], body);
    }

    fn add_table(&mut self, family: u8, table: &str) {
        self.message("add table", NFT_MSG_NEWTABLE, NLM_F_CREATE, family, |attrs| attrs.text(1, table));
    }

    /// Removes both tables. They are added first, so that it is no error if they are missing.
    fn remove_tables(&mut self, table: &str) {
        for family in [INET, NETDEV] {
            self.add_table(family, table);
            self.message("remove table", NFT_MSG_DELTABLE, 0, family, |attrs| attrs.text(1, table));
        }
    }

    fn add_chain(&mut self, family: u8, table: &str, chain: &str, hook: Option<Hook<'_>>) {
        self.message("add chain", NFT_MSG_NEWCHAIN, NLM_F_CREATE, family, |attrs| {
            attrs.text(1, table);
            attrs.text(3, chain);
            let Some(hook) = hook else { return };
            attrs.nest(4, |attrs| {
                attrs.be32(NFTA_HOOK_HOOKNUM, hook.number);
                attrs.be32(NFTA_HOOK_PRIORITY, hook.priority.cast_unsigned());
                if let Some(device) = hook.device {
                    attrs.text(NFTA_HOOK_DEV, device);
                }
            });
            attrs.be32(5, hook.policy as u32);
            attrs.text(7, hook.kind);
        });
    }

    /// Removes a chain with its rules. It is added first, so that it is no error if it is missing.
    fn remove_chain(&mut self, family: u8, table: &str, chain: &str) {
        self.add_chain(family, table, chain, None);
        self.message("remove chain", NFT_MSG_DELCHAIN, 0, family, |attrs| {
            attrs.text(1, table);
            attrs.text(3, chain);
        });
    }

    fn rule(&mut self, family: u8, table: &str, chain: &str, body: impl FnOnce(&mut Expressions<'_, '_>)) {
        self.message("add rule", NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, family, |attrs| {
            attrs.text(1, table);
            attrs.text(2, chain);
            attrs.nest(4, |attrs| body(&mut Expressions(attrs)));
        });
    }
}
