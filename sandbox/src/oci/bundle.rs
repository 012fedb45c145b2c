//! What an engine says in a bundle, the directory that it makes for a container.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
};

use husk_base::IoError;
use oci_spec::runtime::Spec;
use serde::Deserialize;

use super::error::Error;

const SPEC: &str = "config.json";

/// Annotations that name the pod that a container belongs to, of containerd and of CRI-O.
const SANDBOX_ID: [&str; 2] = ["io.kubernetes.cri.sandbox-id", "io.kubernetes.cri-o.SandboxID"];
/// Annotations that say what a container is in its pod.
const CONTAINER_TYPE: [&str; 2] = ["io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"];
/// What they say of the sandbox container.
const SANDBOX: &str = "sandbox";

/// A spec's annotations.
pub type Annotations = HashMap<String, String>;

/// Reads the annotations alone, which is all that `delete` needs.
///
/// # Errors
/// When there is no spec, or it can't be read as one.
pub fn annotations(bundle: &Path) -> Result<Annotations, Error> {
    #[derive(Deserialize)]
    struct Shallow {
        #[serde(default)]
        annotations: Option<Annotations>,
    }
    Ok(read_json::<Shallow>(&bundle.join(SPEC))?.annotations.unwrap_or_default())
}

/// Whether there is a spec: a sandbox of the Sandbox API has none.
pub fn has_spec(bundle: &Path) -> bool {
    bundle.join(SPEC).exists()
}

/// Reads the spec.
///
/// # Errors
/// When there is none, or it can't be read as one.
pub fn spec(bundle: &Path) -> Result<Spec, Error> {
    read_json(&bundle.join(SPEC))
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let text = fs::read(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::NoSpec { path: path.into() },
        _ => IoError::of("read", path)(error).into(),
    })?;
    serde_json::from_slice(&text).map_err(|source| Error::NotASpec { path: path.into(), source })
}

/// The root directory that a spec names.
pub fn root(bundle: &Path, spec: &Spec) -> PathBuf {
    let path = spec.root().as_ref().map_or(Path::new("rootfs"), |root| root.path());
    bundle.join(path)
}

/// The file that becomes a container's /etc/resolv.conf.
pub fn resolv_conf(spec: &Spec) -> Option<PathBuf> {
    let mut mounts = spec.mounts().iter().flatten();
    mounts.find(|mount| mount.destination() == Path::new("/etc/resolv.conf"))?.source().clone()
}

/// The pod that a container belongs to, if it is one of several.
pub fn sandbox_id(annotations: &Annotations) -> Option<&str> {
    first(annotations, &SANDBOX_ID)
}

/// Whether this is the container that stands for its pod, and does nothing.
pub fn is_sandbox(annotations: &Annotations) -> bool {
    first(annotations, &CONTAINER_TYPE) == Some(SANDBOX)
}

fn first<'a>(annotations: &'a Annotations, names: &[&str]) -> Option<&'a str> {
    names.iter().find_map(|name| annotations.get(*name)).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_engines_annotations_are_understood() {
        let dir = tempfile::tempdir().unwrap();
        for (engine, kind, id) in [
            ("containerd", "io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id"),
            ("CRI-O", "io.kubernetes.cri-o.ContainerType", "io.kubernetes.cri-o.SandboxID"),
        ] {
            let json = format!(r#"{{"annotations": {{"{kind}": "sandbox", "{id}": "p1"}}, "unknown": 1}}"#);
            fs::write(dir.path().join(SPEC), json).unwrap();
            let annotations = annotations(dir.path()).unwrap();
            assert_eq!((is_sandbox(&annotations), sandbox_id(&annotations)), (true, Some("p1")), "{engine}");
        }
    }

    #[test]
    fn a_container_alone_has_no_pod() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(SPEC), "{}").unwrap();
        let annotations = annotations(dir.path()).unwrap();
        assert_eq!((is_sandbox(&annotations), sandbox_id(&annotations)), (false, None));
        assert!(super::annotations(Path::new("/nonexistent")).is_err());
    }
}
