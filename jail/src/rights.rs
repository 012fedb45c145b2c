//! Limits, users and capabilities.

pub use rustix::{process::Resource, thread::CapabilitySet};
use rustix::{
    process::{Gid, Rlimit, Signal, Uid, set_parent_process_death_signal, setrlimit},
    thread::{
        CapabilitySets, set_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid,
        set_thread_res_uid,
    },
};

use crate::JailError;

/// Highest number that a capability may have.
const MAX_CAPABILITY: libc::c_ulong = 63;

/// Sets both the soft and the hard limit of a resource.
///
/// # Errors
/// When it is higher than this process may set.
pub fn limit(resource: Resource, max: u64) -> Result<(), JailError> {
    let limit = Rlimit { current: Some(max), maximum: Some(max) };
    let what = match resource {
        Resource::Nofile => "limit its open files",
        Resource::Core => "forbid core dumps",
        _ => "set a limit",
    };
    setrlimit(resource, limit).map_err(JailError::os(what))
}

/// Becomes `user`, and a group of the same number, without other groups; with `None`, which is for user
/// namespaces, the user stays the same. Then gives up for good all capabilities but these, core dumps, and a
/// life longer than the parent's; no program that is started can have more rights (no_new_privs). This
/// process must have no other thread.
///
/// # Errors
/// Says which step failed. The process must not go on then.
pub fn give_up(user: Option<u32>, kept: CapabilitySet) -> Result<(), JailError> {
    limit(Resource::Core, 0)?;
    empty_bounding_set()?;
    if let Some(id) = user {
        let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
        set_thread_groups(&[]).map_err(JailError::os("leave its groups"))?;
        set_thread_res_gid(gid, gid, gid).map_err(JailError::os("change its group"))?;
        set_thread_res_uid(uid, uid, uid).map_err(JailError::os("change its user"))?;
    }
    // Without inheritable ones there are no ambient ones either.
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).map_err(JailError::os("drop its capabilities"))?;
    // Not earlier: a change of user or rights would clear it.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(JailError::os("watch its parent"))?;
    set_no_new_privs(true).map_err(JailError::os("refuse new rights"))
}

/// No program that this process starts can get a capability.
fn empty_bounding_set() -> Result<(), JailError> {
    for capability in 0..=MAX_CAPABILITY {
        // SAFETY: touches no memory.
        let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        let error = std::io::Error::last_os_error();
        match result {
            0 => {}
            // The first number that this kernel does not know: there are no more.
            _ if error.raw_os_error() == Some(libc::EINVAL) => return Ok(()),
            _ => return Err(JailError::os("empty its bounding set")(error)),
        }
    }
    Ok(())
}
