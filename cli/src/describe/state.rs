//! The part `State`.

use husk_sandbox::store::{State, Status};
use serde_json::{Value, json};

use super::time;

const UNWRITTEN: &str = "the guest did not write to the disk all that the container has written";

/// How a container is. Docker's `Pid` is the container's process, which is in the VM here: it is the supervisor's.
pub(super) fn state(state: &State) -> Value {
    let status = state.status;
    let error = match &state.stalled {
        Some(waits) => waits,
        None if state.error.is_empty() && state.unwritten => UNWRITTEN,
        None => &state.error,
    };
    json!({
        "Status": status.name(),
        "Running": status.needs_supervisor(),
        "Paused": status == Status::Paused,
        "Restarting": status == Status::Restarting,
        "OOMKilled": state.oom_killed,
        "Dead": status == Status::Dead,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": error,
        "StartedAt": time(state.started),
        "FinishedAt": time(state.finished),
    })
}
