//! `delete`: what containerd calls when a shim is gone, and after each container that it has deleted.

use std::{
    env,
    sync::mpsc,
    thread,
    time::{Duration, SystemTime},
};

use containerd_shim_protos::{api::DeleteResponse, protobuf::Message};
use husk_sandbox::{
    clean_up,
    oci::{bundle, cgroup, hooks::HostHooks},
    paths::Dirs,
    pod, rundir,
};
use tokio::runtime;

use crate::{address, error::Error, flags::Flags, log, message, pod_id::pod_id, socket};

/// Exit code of what was killed.
const KILLED: u32 = 128 + libc::SIGKILL.unsigned_abs();
/// How long the VM of a dead shim may take to end, which it does by itself. containerd waits for 5 s.
const END_WITHIN: Duration = Duration::from_secs(3);

/// Removes what a dead shim left, and returns what containerd wants to read. A shim that lives is left alone: its own
/// requests have removed the container.
///
/// # Errors
/// When the answer can't be encoded.
pub(crate) fn delete(flags: &Flags) -> Result<Vec<u8>, Error> {
    log::to_stderr();
    let bundle = if flags.bundle.as_os_str().is_empty() {
        env::current_dir().unwrap_or_default()
    } else {
        flags.bundle.clone()
    };
    if address::read(&bundle).is_none_or(|address| socket::remove_dead(&address)) {
        let annotations = bundle::annotations(&bundle).unwrap_or_default();
        let pod = bundle::sandbox_id(&annotations).unwrap_or(&flags.id);
        clean_up(&pod_id(&flags.namespace, pod));
        if let Ok(spec) = bundle::spec(&bundle) {
            cgroup::remove(cgroup::of(&spec).as_deref().map(cgroup::absolute).as_deref());
            if let Some(hooks) = HostHooks::of(&flags.id, &bundle, &spec) {
                block_on(hooks.stopped());
            }
        }
    }
    let response = DeleteResponse {
        exit_status: KILLED,
        exited_at: Some(message::timestamp(SystemTime::now())).into(),
        ..DeleteResponse::default()
    };
    response.write_to_bytes().map_err(|error| Error::invalid(error.to_string()))
}

/// Removes what is left of the pod, and of others. What can't be removed now is found by the next start.
fn clean_up(pod: &str) {
    let dirs = Dirs::new(None);
    let name = format!("{}{pod}", pod::NAME_PREFIX);
    if !rundir::is_left(&dirs, &name) {
        // The shim has ended its pod in order.
        return;
    }
    let (ended, end) = mpsc::channel();
    let theirs = dirs.clone();
    thread::spawn(move || ended.send(rundir::wait_until_dead(&theirs, &name).is_ok()));
    let _ = end.recv_timeout(END_WITHIN);
    if let Some(Err(error)) = block_on(clean_up::after_kills(&dirs)) {
        tracing::warn!("{}", Error::from(error).text());
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> Option<T> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().ok()?;
    Some(runtime.block_on(future))
}
