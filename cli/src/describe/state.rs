//! The part `State`.

use husk_sandbox::store::{State, Status};
use serde_json::{Value, json};

use super::time;

/// How a container is. Docker's `Pid` is the container's process, which is in the VM here: it is the supervisor's.
pub(super) fn state(state: &State) -> Value {
    let status = state.status;
    json!({
        "Status": status.name(),
        "Running": status.needs_supervisor(),
        "Paused": status == Status::Paused,
        "Restarting": status == Status::Restarting,
        "OOMKilled": state.oom_killed,
        "Dead": status == Status::Dead,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.stalled.as_ref().unwrap_or(&state.error),
        "StartedAt": time(state.started),
        "FinishedAt": time(state.finished),
    })
}
