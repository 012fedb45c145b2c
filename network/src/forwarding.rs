//! Lets the host forward packets, without losing what it has from routers itself.

use std::{fs, path::Path};

use crate::{Error, Result};

const IPV4_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
const IPV6_CONF: &str = "/proc/sys/net/ipv6/conf";

/// Switches IPv4 forwarding on.
pub(crate) fn enable4() -> Result<()> {
    set(Path::new(IPV4_FORWARD), "1", "0")
}

/// Switches IPv6 forwarding on. An interface that takes addresses and routes from routers' advertisements would stop to
/// do so, unless it is told to do it even when forwarding (`accept_ra` 2 in the kernel's ip-sysctl documentation).
pub(crate) fn enable6() -> Result<()> {
    let conf = Path::new(IPV6_CONF);
    let all = conf.join("all/forwarding");
    if read(&all)? != "0" {
        return Ok(());
    }
    for entry in fs::read_dir(conf).map_err(Error::io("read", conf))? {
        let interface = entry.map_err(Error::io("read", conf))?;
        // Interfaces to come are left to those who make them.
        if ["all", "default"].iter().any(|name| interface.file_name() == *name) {
            continue;
        }
        // One that is gone meanwhile needs nothing.
        if read(&interface.path().join("forwarding")).is_ok_and(|value| value == "0") {
            let _ = set(&interface.path().join("accept_ra"), "2", "1");
        }
    }
    set(&all, "1", "0")
}

/// Readies a new bridge for IPv6: addresses allowed, guests are no routers.
pub(crate) fn prepare_bridge6(bridge: &str) -> Result<()> {
    let conf = Path::new(IPV6_CONF).join(bridge);
    set(&conf.join("disable_ipv6"), "0", "1")?;
    set(&conf.join("accept_ra"), "0", "1")?;
    set(&conf.join("accept_ra"), "0", "2")
}

/// Keeps a tap's host side out of IPv6, and a bridge's of a network that has none: no address, no packet of its own.
pub(crate) fn disable6(interface: &str) -> Result<()> {
    let path = Path::new(IPV6_CONF).join(interface).join("disable_ipv6");
    if path.exists() { set(&path, "1", "0") } else { Ok(()) }
}

/// Changes a setting from one value to another.
fn set(path: &Path, value: &str, from: &str) -> Result<()> {
    if read(path)? == from {
        fs::write(path, value).map_err(Error::io("write", path))?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map(|value| value.trim().to_owned()).map_err(Error::io("read", path))
}
