//! `husk update`

use anyhow::{bail, ensure};
use husk_sandbox::{
    events::{self, Event},
    paths::Dirs,
    sizing,
    store::{Config, RestartPolicy, Store},
};
use husk_supervisor::Pod;
use serde_json::{Value, json};

use super::container::for_each;
use crate::{args::UpdateArgs, human};

pub(crate) async fn run(dirs: &Dirs, args: &UpdateArgs) -> anyhow::Result<u8> {
    if let Some(reason) = args.refused.reason() {
        bail!("{reason}");
    }
    ensure!(
        args.memory.is_some() || args.cpus.is_some() || args.restart.is_some(),
        "you must provide one or more flags when using this command"
    );
    let store = Store::open(dirs)?;
    for_each(&args.containers, async |name| update(dirs, &store, &name, args).await).await
}

async fn update(dirs: &Dirs, store: &Store, name: &str, args: &UpdateArgs) -> anyhow::Result<()> {
    let id = store.find(name)?;
    let _lock = store.lock(&id)?;
    let old = store.get(&id)?;
    let runs = old.state.status.needs_supervisor();
    let config = changed(&old.config, args, runs)?;
    let pod = if runs { Pod::of(dirs, store, &id)? } else { None };
    // A limit that the guest refuses is not in the record then.
    store.write_config(&config)?;
    if let Some(pod) = pod
        && let Err(error) = pod.update(&id, resources(args)).await
    {
        store.write_config(&old.config)?;
        return Err(error.into());
    }
    events::record(dirs, &Event::of_container(&config, "update"));
    Ok(())
}

/// What the container is then. A machine that runs can be given less than it has, and not more.
fn changed(old: &Config, args: &UpdateArgs, runs: bool) -> anyhow::Result<Config> {
    let mut config = old.clone();
    if let Some(policy) = args.restart {
        ensure!(
            !old.auto_remove || policy.0 == RestartPolicy::No,
            "Restart policy cannot be updated because AutoRemove is enabled for the container"
        );
        config.restart = policy.0;
    }
    if let Some(bytes) = args.memory.filter(|bytes| *bytes > 0) {
        let most = sizing::usable_bytes(old.options.memory_bytes);
        ensure!(
            !runs || bytes <= most,
            "the virtual machine of the running container {} has memory for a limit of {} at most: stop it first",
            old.name,
            human::bytes_size(most)
        );
        sizing::mem_size_mib(Some(bytes))?;
        config.options.memory_bytes = Some(bytes);
    }
    if let Some(milli) = args.cpus.filter(|milli| *milli > 0) {
        let most = sizing::vcpus(old.options.milli_cpus)?;
        ensure!(
            !runs || milli <= u64::from(most) * 1000,
            "the virtual machine of the running container {} has {most} CPUs: stop it first",
            old.name
        );
        sizing::vcpus(Some(milli))?;
        config.options.milli_cpus = Some(milli);
    }
    Ok(config)
}

/// The changed limits, as an OCI spec's `linux.resources`; empty: no limit changes.
fn resources(args: &UpdateArgs) -> Vec<u8> {
    let mut resources = serde_json::Map::new();
    if let Some(bytes) = args.memory.filter(|bytes| *bytes > 0) {
        resources.insert("memory".into(), json!({ "limit": bytes, "swap": bytes }));
    }
    if let Some(milli) = args.cpus.filter(|milli| *milli > 0) {
        let quota = sizing::cpu_quota_us(milli);
        resources.insert("cpu".into(), json!({ "period": sizing::CPU_PERIOD_US, "quota": quota }));
    }
    if resources.is_empty() { Vec::new() } else { Value::Object(resources).to_string().into_bytes() }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::{
        args::{Cli, Command, ContainerVerb},
        facts::tests::record,
    };

    fn args(options: &[&str]) -> UpdateArgs {
        let line = [&["husk", "update"], options, &["web"]].concat();
        match Cli::try_parse_from(line).unwrap().command {
            Command::Verb(ContainerVerb::Update(args)) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_running_machine_grows_not() {
        // 64 MiB and 1.5 CPUs.
        let config = record().config;
        for (options, runs, allowed) in [
            (&["-m", "32m"][..], true, true),
            (&["-m", "65m"], true, false),
            (&["-m", "65m"], false, true),
            (&["--cpus", "2"], true, true),
            (&["--cpus", "2.5"], true, false),
            (&["--cpus", "2.5"], false, true),
            (&["--restart", "always"], true, true),
        ] {
            assert_eq!(changed(&config, &args(options), runs).is_ok(), allowed, "{options:?} {runs}");
        }
        let mut unlimited = config.clone();
        unlimited.options.memory_bytes = None;
        assert!(changed(&unlimited, &args(&["-m", "416m"]), true).is_ok());
        assert!(changed(&unlimited, &args(&["-m", "417m"]), true).is_err());
    }

    #[test]
    fn a_container_that_is_removed_at_its_end_is_not_restarted() {
        let mut config = record().config;
        config.auto_remove = true;
        assert!(changed(&config, &args(&["--restart", "always"]), false).is_err());
        assert!(changed(&config, &args(&["--restart", "no"]), false).is_ok());
    }

    #[test]
    fn limits_are_a_specs() {
        let limits: Value =
            serde_json::from_slice(&resources(&args(&["-m", "64m", "--cpus", "1.5"]))).unwrap();
        assert_eq!(limits["memory"]["limit"], 64 << 20);
        assert_eq!(limits["cpu"]["quota"], 150_000);
        assert_eq!(resources(&args(&["--restart", "no"])), b"");
    }

    #[test]
    fn what_a_machine_cannot_do_is_said() {
        let reason = args(&["--cpu-shares", "2"]).refused.reason().unwrap();
        assert!(reason.starts_with("--cpu-shares is not supported"), "{reason}");
        assert_eq!(args(&["--cpus", "1"]).refused.reason(), None);
    }
}
