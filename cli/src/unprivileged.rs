//! Networks for who is not root: `husk run` runs itself again under `pasta`, where the package passt is installed.

use std::{collections::BTreeSet, env, os::unix::process::CommandExt};

use anyhow::{Context, bail};
use husk_network::{
    definition::DEFAULT_NETWORK,
    publish::{self, PortMapping, PortProtocol},
    unprivileged,
};
use husk_sandbox::{
    network::{NetworkMode, NetworkOptions},
    privilege,
};

use crate::output;

/// Makes of the options what this user can have. May run husk anew in this one's place, and then does not return.
///
/// # Errors
/// When a network is asked for that takes root, or pasta can't be run.
pub(crate) fn adapt(options: &mut NetworkOptions, is_default: bool) -> anyhow::Result<()> {
    let NetworkMode::Networks(wishes) = &options.mode else {
        return match options.mode {
            NetworkMode::Cni(_) | NetworkMode::Namespace(_) if !privilege::is_root() => {
                bail!("CNI's networks and network namespaces take root: run husk as root")
            }
            _ => Ok(()),
        };
    };
    if unprivileged::is_under_pasta() {
        unprivileged::end_with_pasta().context("cannot watch pasta")?;
        // It has published the ports, and its namespace is the network.
        let tcp = std::mem::take(&mut options.publish).into_iter();
        let tcp = tcp.filter(|port| port.protocol == PortProtocol::Tcp).map(|port| port.container_port);
        // Several ports of the host may lead to one.
        let tcp: BTreeSet<u16> = tcp.collect();
        options.mode = NetworkMode::Pasta(tcp.into_iter().collect());
        return Ok(());
    }
    if privilege::is_root() {
        return Ok(());
    }
    let plain = matches!(wishes.as_slice(), [only] if only.network == DEFAULT_NETWORK
        && only.ip.is_none() && only.ip6.is_none() && only.mac.is_none() && only.aliases.is_empty());
    if !plain || options.publish_all {
        bail!("networks of husk's own, chosen addresses and --publish-all take root: run husk as root");
    }
    // Claimed and given back: what is in use is found before anything starts.
    let bound = publish::bind::bind(&options.publish)?;
    let ports: Vec<PortMapping> = bound.iter().map(|port| port.mapping.clone()).collect();
    drop(bound);
    let husk = env::current_exe().context("cannot find the running program")?;
    match unprivileged::command(&husk, env::args_os().skip(1), &ports) {
        Ok(mut command) => Err(command.exec()).context("cannot run pasta"),
        Err(missing) if is_default => {
            output::print_note(&format!("husk: note: the container has no network: {missing}\n"));
            options.mode = NetworkMode::None;
            Ok(())
        }
        Err(missing) => Err(missing.into()),
    }
}
