//! Changes of a running container's limits.

use std::path::PathBuf;

use libcgroups::{
    common::{CgroupManager, ControllerOpt},
    v2::manager::Manager,
};
use oci_spec::runtime::LinuxResources;

use crate::{failure::Failure, paths};

/// Puts what `resources_json` says into force, and leaves the rest as it is.
pub(super) fn change(container_id: &str, resources_json: &[u8]) -> Result<(), Failure> {
    let resources: LinuxResources = serde_json::from_slice(resources_json)
        .map_err(|e| Failure::invalid(format!("not an OCI resources object: {e}")))?;
    let path = PathBuf::from(format!("{}/{container_id}", paths::CONTAINERS_CGROUP_SPEC));
    let failed =
        |e: &dyn std::error::Error| Failure::internal(format!("cannot change the container's limits: {e}"));
    let manager = Manager::new(paths::CGROUP.into(), path).map_err(|e| failed(&e))?;
    let options = ControllerOpt {
        resources: &resources,
        disable_oom_killer: false,
        oom_score_adj: None,
        freezer_state: None,
    };
    manager.apply(&options).map_err(|e| failed(&e))
}
