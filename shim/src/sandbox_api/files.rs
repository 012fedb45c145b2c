//! The files that all containers of a pod see alike. Where the pod has a pause container containerd writes them; else it is the
//! sandbox's to do.

use std::{fs, path::Path};

use husk_protocol::cri::{DNSConfig, PodSandboxConfig};
use oci_spec::runtime::{Mount, Spec};

use crate::error::Error;

const HOSTNAME: &str = "hostname";
const HOSTS: &str = "hosts";
const RESOLV_CONF: &str = "resolv.conf";
/// Names the VM's own shared memory (see `husk_sandbox`'s treatment of a sandbox's `shm`).
const SHARED_MEMORY: &str = "shm";
/// Each file, and where containers see it.
const PLACES: [(&str, &str); 4] = [
    (HOSTNAME, "/etc/hostname"),
    (HOSTS, "/etc/hosts"),
    (RESOLV_CONF, "/etc/resolv.conf"),
    (SHARED_MEMORY, "/dev/shm"),
];

/// Writes them into the sandbox's bundle, which containerd removes with the sandbox.
///
/// # Errors
/// When one can't be written.
pub(crate) fn write(bundle: &Path, config: &PodSandboxConfig) -> Result<(), Error> {
    let of_host = |name: &str| fs::read_to_string(Path::new("/etc").join(name)).unwrap_or_default();
    let resolv_conf = match config.dns_config.as_ref() {
        Some(dns) => resolv_conf(dns),
        None => of_host(RESOLV_CONF),
    };
    let files =
        [(HOSTNAME, format!("{}\n", config.hostname)), (HOSTS, of_host(HOSTS)), (RESOLV_CONF, resolv_conf)];
    for (name, text) in files {
        let path = bundle.join(name);
        fs::write(&path, text).map_err(Error::io("write", path))?;
    }
    Ok(())
}

/// resolv.conf(5)
fn resolv_conf(dns: &DNSConfig) -> String {
    let list = |key: &str, values: &[String]| {
        if values.is_empty() { String::new() } else { format!("{key} {}\n", values.join(" ")) }
    };
    let servers: String = dns.servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    list("search", &dns.searches) + &servers + &list("options", &dns.options)
}

/// Mounts those that there are in a container that has nothing else there; the pod's shared memory in the place of memory of its own.
pub(crate) fn mount(spec: &mut Spec, bundle: &Path) {
    let read_only = spec.root().as_ref().is_some_and(|root| root.readonly().unwrap_or(false));
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    for (name, place) in PLACES {
        if name == SHARED_MEMORY {
            mounts.retain(|mount| {
                mount.destination() != Path::new(place) || mount.typ().as_deref() != Some("tmpfs")
            });
        }
        let is_taken = mounts.iter().any(|mount| mount.destination() == Path::new(place));
        if is_taken || (name != SHARED_MEMORY && !bundle.join(name).exists()) {
            continue;
        }
        let writable = if read_only && name != SHARED_MEMORY { "ro" } else { "rw" };
        let mut mount = Mount::default();
        mount
            .set_destination(place.into())
            .set_typ(Some("bind".into()))
            .set_source(Some(bundle.join(name)))
            .set_options(Some(["rbind", "rprivate", writable].map(str::to_owned).to_vec()));
        mounts.push(mount);
    }
    spec.set_mounts(Some(mounts));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_pods_own_answers_are_written_and_the_hosts_where_it_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        let mut config = PodSandboxConfig { hostname: "web-0".into(), ..Default::default() };
        write(dir.path(), &config).unwrap();
        assert_eq!(read(HOSTNAME), "web-0\n");
        assert_eq!(read(HOSTS), fs::read_to_string("/etc/hosts").unwrap_or_default());
        assert_eq!(read(RESOLV_CONF), fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
        let dns = DNSConfig {
            servers: vec!["10.0.0.1".into(), "10.0.0.2".into()],
            searches: vec!["a.local".into(), "b.local".into()],
            options: vec!["ndots:5".into()],
            ..Default::default()
        };
        config.dns_config = Some(dns).into();
        write(dir.path(), &config).unwrap();
        assert_eq!(
            read(RESOLV_CONF),
            "search a.local b.local\nnameserver 10.0.0.1\nnameserver 10.0.0.2\noptions ndots:5\n"
        );
        assert!(write(Path::new("/nonexistent"), &config).is_err());
    }

    fn mounted(mounts: &serde_json::Value, bundle: &Path, read_only: bool) -> Vec<(String, String, bool)> {
        let spec = json!({ "ociVersion": "1.1.0", "root": { "path": "r", "readonly": read_only }, "mounts": mounts });
        let mut spec: Spec = serde_json::from_value(spec).unwrap();
        mount(&mut spec, bundle);
        let shown = |mount: &Mount| {
            let read_only = mount.options().iter().flatten().any(|option| option == "ro");
            (
                mount.destination().display().to_string(),
                mount.source().as_ref().map(|source| source.display().to_string()).unwrap_or_default(),
                read_only,
            )
        };
        spec.mounts().iter().flatten().map(shown).collect()
    }

    #[test]
    fn containers_get_what_they_have_not_got() {
        let dir = tempfile::tempdir().unwrap();
        let one = |place: &str, source: &str, read_only| {
            let source = dir.path().join(source).display().to_string();
            (place.to_owned(), source, read_only)
        };
        // Nothing but memory was made for a pod that says nothing of itself.
        assert_eq!(mounted(&json!([]), dir.path(), false), [one("/dev/shm", "shm", false)]);
        write(dir.path(), &PodSandboxConfig::default()).unwrap();
        let kubelets =
            json!({ "destination": "/etc/hosts", "type": "bind", "source": "/k", "options": ["rbind"] });
        let own = json!({ "destination": "/dev/shm", "type": "tmpfs", "source": "shm" });
        assert_eq!(
            mounted(&json!([kubelets, own]), dir.path(), true),
            [
                one("/etc/hosts", "/k", false),
                one("/etc/hostname", "hostname", true),
                one("/etc/resolv.conf", "resolv.conf", true),
                one("/dev/shm", "shm", false),
            ]
        );
        let volume =
            json!({ "destination": "/dev/shm", "type": "bind", "source": "/v", "options": ["rbind"] });
        let found = mounted(&json!([volume]), dir.path(), false);
        assert_eq!((&found[0], found.len()), (&one("/dev/shm", "/v", false), 4));
        assert!(found.iter().all(|(.., read_only)| !read_only));
    }
}
