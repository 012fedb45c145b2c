//! A sandbox's network: what was asked for, made on the host, told to the guest, and taken away again.

use std::{fs::File, io::Read, sync::Arc};

use husk_protocol::agent::SetupSandboxRequest;

use crate::{Result, guest::Guest, paths::Dirs, run::RunRequest, rundir::RunDir, vm::NetPlan};

mod options;

pub use options::{NetworkMode, NetworkOptions};

const MAX_RESOLV_CONF: u64 = 64 * 1024;

/// A sandbox's network on the host.
#[derive(Debug)]
pub(crate) struct Connection {
    hostname: String,
}

impl Connection {
    /// Makes what the guest's interfaces need.
    pub(crate) async fn make(
        _dirs: &Dirs,
        _dir: &RunDir,
        hostname: &str,
        _request: &RunRequest,
    ) -> Result<Self> {
        Ok(Self { hostname: hostname.into() })
    }

    /// The interfaces for the VM; once.
    pub(crate) fn take_nets(&mut self) -> Result<Vec<NetPlan>> {
        Ok(vec![])
    }

    /// What the agent is to be told.
    pub(crate) fn set_up(&self) -> SetupSandboxRequest {
        let hostname = &self.hostname;
        SetupSandboxRequest {
            hosts: format!(
                "127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback {hostname}\n"
            ),
            resolv_conf: resolv_conf(),
            ..Default::default()
        }
    }

    /// Begins with all that has to go on while the guest runs.
    pub(crate) fn serve(&mut self, _guest: Arc<Guest>) -> Result<()> {
        Ok(())
    }

    /// Takes everything away.
    pub(crate) async fn close(self) -> Result<()> {
        Ok(())
    }
}

fn resolv_conf() -> String {
    let mut text = String::new();
    if let Ok(file) = File::open("/etc/resolv.conf") {
        // A host without name resolution gives a container without it.
        let _ = file.take(MAX_RESOLV_CONF).read_to_string(&mut text);
    }
    text
}
