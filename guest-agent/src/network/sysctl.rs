//! Settings below /proc/sys/net.

use std::{collections::HashMap, fs, io};

use husk_protocol::agent::Reason;
use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType, Spec};

use crate::failure::Failure;

const ROOT: &str = "/proc/sys/net";

/// What every interface gets before it comes up: no router may configure it, and its link-local address is good at once.
const INTERFACE: [&str; 2] = ["accept_ra", "accept_dad"];

/// Checks settings by name, and returns paths below [`ROOT`] and values in an order in which none undoes another: what is
/// about all interfaces comes before what is about one.
pub(super) fn checked(settings: &HashMap<String, String>) -> Result<Vec<(String, &str)>, Failure> {
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
    let mut checked = Vec::with_capacity(settings.len());
    for (name, value) in settings {
        let path = path_of(name).filter(|path| path.split('/').all(plain));
        let path = path.ok_or_else(|| Failure::invalid(format!("not a sysctl below net: {name:?}")))?;
        checked.push((path, value.as_str()));
    }
    checked.sort_by_cached_key(|(path, _)| {
        let parts = path.split('/').count();
        let general = path.contains("/all/") || path.contains("/default/");
        (parts, !general, path.clone())
    });
    Ok(checked)
}

/// Applies what [`checked`] returned.
pub(super) fn apply(settings: &[(String, &str)]) -> Result<(), Failure> {
    for (path, value) in settings {
        write(path, value).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                let message = format!("the guest's kernel has no setting {ROOT}/{path}");
                Failure::new(Reason::NO_SUCH_SETTING, message)
            }
            io::ErrorKind::InvalidInput => {
                Failure::invalid(format!("sysctls: {ROOT}/{path} can't be {value:?}: {error}"))
            }
            _ => Failure::io(format_args!("cannot set {ROOT}/{path} to {value:?}"), &error),
        })?;
    }
    Ok(())
}

/// Applies the settings below `net` in a container's OCI spec, and takes them out of it. libcontainer refuses them for a
/// container without a network namespace of its own, since elsewhere they would be the host's. Here they are the pod's.
pub(crate) fn apply_of_container(spec: &mut Spec) -> Result<(), Failure> {
    let Some(linux) = spec.linux_mut() else { return Ok(()) };
    let own = |namespace: &LinuxNamespace| namespace.typ() == LinuxNamespaceType::Network;
    if linux.namespaces().iter().flatten().any(own) {
        return Ok(());
    }
    let Some(mut others) = linux.sysctl().clone() else { return Ok(()) };
    let mut ours = HashMap::new();
    others.retain(|name, value| {
        let is_ours = path_of(name).is_some();
        if is_ours {
            ours.insert(name.clone(), std::mem::take(value));
        }
        !is_ours
    });
    apply(&checked(&ours)?)?;
    linux.set_sysctl(Some(others));
    Ok(())
}

/// The path of a setting below `net`. Its parts are separated by dots or, as sysctl(8) has it, by slashes, and then dots
/// stand for themselves.
fn path_of(name: &str) -> Option<String> {
    let rest = name.strip_prefix("net")?;
    match rest.as_bytes().first()? {
        b'.' => Some(
            rest[1..]
                .chars()
                .map(|c| {
                    if c == '.' {
                        '/'
                    } else if c == '/' {
                        '.'
                    } else {
                        c
                    }
                })
                .collect(),
        ),
        b'/' => Some(rest[1..].to_owned()),
        _ => None,
    }
}

/// Makes an interface what the host says and nobody else.
pub(super) fn prepare(interface: &str) -> Result<(), Failure> {
    for setting in INTERFACE {
        let path = format!("ipv6/conf/{interface}/{setting}");
        match write(&path, "0") {
            // A kernel without IPv6, or an interface whose MTU is too small for it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            result => result.map_err(|e| Failure::io(format_args!("cannot set {ROOT}/{path}"), &e))?,
        }
    }
    Ok(())
}

/// Never makes a file.
fn write(path: &str, value: &str) -> io::Result<()> {
    let file = fs::OpenOptions::new().write(true).open(format!("{ROOT}/{path}"))?;
    io::Write::write_all(&mut &file, value.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(names: &[&str]) -> HashMap<String, String> {
        names.iter().map(|name| ((*name).to_owned(), "1".to_owned())).collect()
    }

    #[test]
    fn nothing_leaves_the_networks_settings() {
        for name in [
            "",
            "net",
            "net.",
            "net..",
            "net/",
            "net//etc/passwd",
            "net/../kernel/hostname",
            "net/ipv4/../../x",
            "net.ipv4..x",
            "net.ipv4.",
            "net/./x",
            "net.a\0b",
            "kernel.hostname",
            "ipv4/ip_forward",
        ] {
            let settings = settings(&[name]);
            let failure = checked(&settings).unwrap_err();
            assert_eq!(failure.reason, Reason::INVALID_REQUEST);
            assert_eq!(failure.message, format!("not a sysctl below net: {name:?}"));
        }
    }

    #[test]
    fn names_are_paths() {
        for (name, path) in [
            ("net.ipv4.ip_forward", Some("ipv4/ip_forward")),
            ("net.ipv4.conf.eth0/1.rp_filter", Some("ipv4/conf/eth0.1/rp_filter")),
            ("net/ipv4/conf/eth0.1/rp_filter", Some("ipv4/conf/eth0.1/rp_filter")),
            ("kernel.shmmax", None),
            ("network.x", None),
            ("net", None),
        ] {
            assert_eq!(path_of(name).as_deref(), path, "{name}");
        }
    }

    #[test]
    fn what_is_general_comes_first() {
        let settings = settings(&[
            "net.ipv4.conf.a0.forwarding",
            "net.ipv4.conf.all.forwarding",
            "net.ipv4.ip_forward",
            "net.ipv4.conf.eth0/1.x",
        ]);
        let order: Vec<String> = checked(&settings).unwrap().into_iter().map(|(path, _)| path).collect();
        assert_eq!(
            order,
            ["ipv4/ip_forward", "ipv4/conf/all/forwarding", "ipv4/conf/a0/forwarding", "ipv4/conf/eth0.1/x"]
        );
    }
}
