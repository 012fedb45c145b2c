//! What all containers of the machine share: its name, its network, and the files about names.

use std::{fs, io, path::Path};

use husk_protocol::agent::SetupSandboxRequest;
use nix::unistd::sethostname;

use crate::{failure::Failure, forward::Listen, network, paths, resolver::Resolver, stdio::Dial};

/// The kernel's limit on a host name, in bytes.
const MAX_HOSTNAME: usize = 64;

/// Sets the host name, brings the network up, writes the files that containers get in their /etc, and starts what serves
/// them: the resolver, which is returned, if there is to be one, and by `listen` the way from the host to loopback.
pub(crate) fn set_up(
    request: &SetupSandboxRequest,
    listen: Listen,
    dial: &Dial,
) -> Result<Option<Resolver>, Failure> {
    let hostname = &request.hostname;
    if hostname.is_empty() || hostname.len() > MAX_HOSTNAME || hostname.contains(['\n', '\0', '/']) {
        return Err(Failure::invalid(format!("not a host name: {hostname:?}")));
    }
    sethostname(hostname).map_err(|e| Failure::io("cannot set the host name", &e.into()))?;
    if let Some(network) = request.network.as_ref() {
        network::apply(network)?;
    }
    let etc = Path::new(paths::ETC);
    let write = || -> io::Result<()> {
        fs::create_dir_all(etc)?;
        fs::write(etc.join("hostname"), format!("{hostname}\n"))?;
        fs::write(etc.join("hosts"), &request.hosts)?;
        fs::write(etc.join("resolv.conf"), &request.resolv_conf)
    };
    write().map_err(|e| Failure::io(format_args!("cannot write the files in {}", paths::ETC), &e))?;
    listen().map_err(|e| Failure::io("cannot listen for the host's connections to loopback", &e))?;
    request.resolver.as_ref().map(|resolver| Resolver::start(resolver, dial)).transpose()
}
