//! The names of pods.

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// A name for the pod that is the same whenever it is asked for, and no other's: containerd's ids are unique only in their
/// namespace.
pub(crate) fn pod_id(namespace: &str, id: &str) -> String {
    let digest = Sha256::digest(format!("{namespace}/{id}"));
    let mut name = String::from("containerd-");
    for byte in &digest[..12] {
        let _ = write!(name, "{byte:02x}");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_of_different_namespaces_have_different_names() {
        assert_eq!(pod_id("a", "b"), pod_id("a", "b"));
        assert_ne!(pod_id("a", "b"), pod_id("b", "b"));
        assert_eq!(pod_id("k8s.io", "x").len(), "containerd-".len() + 24);
    }
}
