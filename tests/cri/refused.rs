//! What a virtual machine can't have is refused in words, before anything is touched.

use husk_tests::containerd::assert_nothing_left;
use k8s_cri::v1::{NamespaceMode, NamespaceOption};

use crate::fixture::{Pod, by_sandbox_api};

#[test]
fn the_hosts_own_namespaces_are_refused() {
    let node: i32 = NamespaceMode::Node.into();
    let container = NamespaceMode::Container.into();
    for (name, options, words) in [
        (
            "hostnet",
            NamespaceOption { network: node, pid: container, ..Default::default() },
            "host's own network",
        ),
        ("hostpid", NamespaceOption { pid: node, ..Default::default() }, "host's own processes"),
        ("hostipc", NamespaceOption { ipc: node, pid: container, ..Default::default() }, "host's own IPC"),
    ] {
        if name == "hostnet" && by_sandbox_api() {
            eprintln!(
                "SKIPPED: a pod with the host's network, at which containerd 2.1 itself crashes when it makes pods by the Sandbox API"
            );
            continue;
        }
        let refused = Pod::try_run(name, |config| {
            let context = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
            context.namespace_options = Some(options);
        });
        let refused = refused.err().unwrap_or_else(|| panic!("{name} was not refused"));
        assert!(refused.message().contains(words), "{name}: {refused}");
        assert_nothing_left();
    }
}
