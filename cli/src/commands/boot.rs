//! `husk boot`: what has to be done once after the machine's boot.

use husk_sandbox::{
    paths::Dirs,
    rundir,
    store::{self, Config, List, RestartPolicy, State, Status, Store},
};

use super::container::start_one;
use crate::output;

/// What becomes of a container whose pod does not live.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Left,
    Started,
    Removed,
}

pub(crate) async fn run(dirs: &Dirs) -> anyhow::Result<u8> {
    store::remove_orphans(dirs, &rundir::clean_up(dirs)?);
    let store = Store::open(dirs)?;
    let List { records, broken } = store.list()?;
    for (id, error) in broken {
        output::print_note(&format!("husk: warning: container {id}: {}\n", husk_base::chain::text(&error)));
    }
    let (mut starts, mut failed) = (Vec::<Config>::new(), false);
    for record in records {
        let id = &record.config.id;
        // As it was written: that it ran is what counts.
        let Ok(state) = store.state(id) else { continue };
        if rundir::is_alive(dirs, &state.pod) {
            continue;
        }
        match fate(&record.config, &state) {
            Fate::Left => {}
            Fate::Removed => {
                if let Err(error) = store.remove(id) {
                    output::print_error(
                        &anyhow::Error::from(error).context(format!("cannot remove container {id}")),
                    );
                    failed = true;
                }
            }
            Fate::Started => starts.push(record.config),
        }
    }
    // One that joins another's machine comes after it; all in the order in which they were made.
    starts.sort_by_key(|config| (config.joins().is_some(), config.created));
    for config in starts {
        match start_one(dirs, &store, &config.id).await {
            Ok(()) => output::print_line(&config.name)?,
            Err(error) => {
                output::print_error(&error.context(format!("cannot start container {}", config.name)));
                failed = true;
            }
        }
    }
    Ok(u8::from(failed))
}

/// By its restart policy, and how it was when the machine went down.
fn fate(config: &Config, state: &State) -> Fate {
    let ran = state.status.needs_supervisor();
    if config.auto_remove && (ran || matches!(state.status, Status::Exited | Status::Dead)) {
        return Fate::Removed;
    }
    let again = state.started.is_set()
        && match config.restart {
            RestartPolicy::No => false,
            RestartPolicy::OnFailure(_) => ran,
            RestartPolicy::Always => true,
            RestartPolicy::UnlessStopped => !state.stopped_by_user,
        };
    if again { Fate::Started } else { Fate::Left }
}

#[cfg(test)]
mod tests {
    use husk_sandbox::store::Timestamp;

    use super::*;

    #[test]
    fn policies_decide() {
        use Fate::{Left, Removed, Started};
        let stopped = State { status: Status::Exited, stopped_by_user: true, ..Default::default() };
        let ended = State { status: Status::Exited, ..Default::default() };
        let ran = State { status: Status::Running, ..Default::default() };
        for (policy, auto_remove, fates) in [
            (RestartPolicy::No, false, [Left, Left, Left]),
            (RestartPolicy::No, true, [Removed, Removed, Removed]),
            (RestartPolicy::OnFailure(Some(1)), false, [Left, Left, Started]),
            (RestartPolicy::Always, false, [Started, Started, Started]),
            (RestartPolicy::UnlessStopped, false, [Left, Started, Started]),
        ] {
            let mut config = crate::facts::tests::record().config;
            (config.restart, config.auto_remove) = (policy, auto_remove);
            for (state, expected) in [&stopped, &ended, &ran].into_iter().zip(fates) {
                let state = State { started: Timestamp(1), ..state.clone() };
                assert_eq!(fate(&config, &state), expected, "{policy:?} {state:?}");
            }
            let created = State::default();
            assert_eq!(fate(&config, &created), Left, "{policy:?}: it was never started");
        }
    }
}
