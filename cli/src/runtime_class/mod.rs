//! husk's entry in the configurations of containerd and Docker. Texts in, texts out: what is not ours stays as it is.

pub(crate) mod containerd;
pub(crate) mod docker;

/// The name by which pods ask for husk, ...
pub(crate) const NAME: &str = "husk";
/// ... and the runtime that it stands for.
pub(crate) const RUNTIME: &str = "io.containerd.husk.v2";

/// What Kubernetes needs to know. The overhead is that of an idle pod beside its containers: guest, VMM, file server, shim.
pub(crate) const MANIFEST: &str = "\
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata:
  name: husk
handler: husk
overhead:
  podFixed:
    cpu: 50m
    memory: 128Mi
";

/// A configuration that husk's entry can't be added to.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct EditError(String);

impl EditError {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}
