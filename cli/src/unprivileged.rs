//! Networks for users who are not root: their supervisor runs under `pasta`, where the package passt is installed.

use std::collections::BTreeSet;

use anyhow::bail;
use husk_network::{definition::DEFAULT_NETWORK, publish::PortProtocol, unprivileged};
use husk_sandbox::{
    network::{NetworkMode, NetworkOptions},
    privilege,
};

/// Makes of the options what this user can have.
///
/// # Errors
/// When a network is asked for that takes root, or pasta is missing.
pub(crate) fn adapt(options: &mut NetworkOptions, is_default: bool) -> anyhow::Result<()> {
    let NetworkMode::Networks(wishes) = &options.mode else {
        return match options.mode {
            NetworkMode::Cni(_) | NetworkMode::Namespace(_) if !privilege::is_root() => {
                bail!("CNI's networks and network namespaces take root: run husk as root")
            }
            _ => Ok(()),
        };
    };
    if privilege::is_root() {
        return Ok(());
    }
    let plain = matches!(wishes.as_slice(), [only] if only.network == DEFAULT_NETWORK
        && only.ip.is_none() && only.ip6.is_none() && only.mac.is_none() && only.aliases.is_empty());
    if !plain || options.publish_all {
        bail!("networks of husk's own, chosen addresses and --publish-all take root: run husk as root");
    }
    match unprivileged::check() {
        Ok(()) => {
            let tcp = options.publish.iter().filter(|port| port.protocol == PortProtocol::Tcp);
            // Several ports of the host may lead to one.
            let tcp: BTreeSet<u16> = tcp.map(|port| port.container_port).collect();
            options.mode = NetworkMode::Pasta(tcp.into_iter().collect());
            Ok(())
        }
        Err(missing) if is_default => {
            tracing::warn!("the container has no network: {missing}");
            options.mode = NetworkMode::None;
            Ok(())
        }
        Err(missing) => Err(missing.into()),
    }
}
