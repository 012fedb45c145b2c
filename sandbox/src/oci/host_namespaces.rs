//! Namespaces of the host that a container wants to be in. In a virtual machine it can't, and what it would do there is the
//! reason for which somebody asked, so it is refused before anything is touched. See [`plan`](super::plan::plan) for its network.

use oci_spec::runtime::{LinuxNamespaceType, Spec};

use super::error::Error;

/// A spec without one of these means the host's (runtime-spec config-linux.md, "Namespaces").
const REFUSED: [(LinuxNamespaceType, &str, &str); 2] = [
    (LinuxNamespaceType::Pid, "the host's own processes", "hostPID, --pid host"),
    (LinuxNamespaceType::Ipc, "the host's own IPC", "hostIPC, --ipc host"),
];

/// Refuses a spec that asks for the host's.
///
/// # Errors
/// When it does.
pub fn refuse(spec: &Spec) -> Result<(), Error> {
    let given = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    for (kind, what, options) in REFUSED {
        if !given.iter().any(|namespace| namespace.typ() == kind) {
            return Err(Error::HostNamespace { what, options });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(namespaces: &str) -> Option<String> {
        let json = format!(r#"{{"ociVersion":"1.0.2","linux":{{"namespaces":[{namespaces}]}}}}"#);
        refuse(&serde_json::from_str(&json).unwrap()).err().map(|error| error.to_string())
    }

    #[test]
    fn what_is_not_named_is_the_hosts() {
        assert_eq!(refused(r#"{"type":"pid"},{"type":"ipc","path":"/proc/1/ns/ipc"}"#), None);
        assert!(refused(r#"{"type":"ipc"}"#).unwrap().contains("host's own processes"));
        assert!(refused(r#"{"type":"pid"}"#).unwrap().contains("host's own IPC"));
    }
}
