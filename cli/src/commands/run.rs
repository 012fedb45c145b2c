//! `husk run`

use std::{
    fs,
    io::{self, IsTerminal},
    path::Path,
    time::Duration,
};

use anyhow::{Context, bail};
use husk_image::{Image, Reference, Store};
use husk_sandbox::{
    paths::{Assets, Dirs},
    request::RunRequest,
    spec::ContainerOptions,
    timeline::Timeline,
};

use super::pull::pull;
use crate::{
    args::{Format, PullPolicy, RunArgs},
    output,
    progress::UnpackBar,
    unprivileged,
};

pub(crate) async fn run(dirs: &Dirs, args: Box<RunArgs>, mut timeline: Timeline) -> anyhow::Result<u8> {
    if args.tty && args.interactive && !io::stdin().is_terminal() {
        bail!("standard input is not a terminal: leave out -t, or run husk in a terminal");
    }
    let assets = Assets::find(args.kernel.as_deref())?;
    let container = container_options(&args)?;
    let mut network = args.network.options(args.hostname.is_some())?;
    unprivileged::adapt(&mut network, args.network.is_default())?;
    let image = find_image(dirs, &args).await?;
    let bar = UnpackBar::new(&image);
    let request = RunRequest {
        image,
        container,
        name: args.name,
        network,
        note: |text| output::print_note(&format!("husk: note: {text}\n")),
        interactive: args.interactive,
        storage_mib: args.storage_size,
        timeout: Duration::from_secs(args.boot_timeout),
        timings: args.timings.is_some(),
    };
    let exit_code =
        husk_sandbox::run::run(dirs, &assets, &request, &mut timeline, |bytes| bar.update(bytes)).await?;
    match args.timings {
        None => {}
        Some(Format::Table) => output::print_note(&timeline.to_string()),
        Some(Format::Json) => {
            output::print_note(&format!("{}\n", serde_json::to_string(&timeline.rows())?));
        }
    }
    Ok(exit_code)
}

async fn find_image(dirs: &Dirs, args: &RunArgs) -> anyhow::Result<Image> {
    let store = Store::open(&dirs.images())?;
    let reference: Reference = args.image.parse()?;
    if args.pull != PullPolicy::Always {
        if let Some(image) = store.get(&reference)? {
            return Ok(image);
        }
        if args.pull == PullPolicy::Never {
            bail!("image {reference} is not here, and --pull=never forbids to download it");
        }
    }
    pull(&store, &reference, false).await
}

fn container_options(args: &RunArgs) -> anyhow::Result<ContainerOptions> {
    let mut env = Vec::new();
    for file in &args.env_file {
        env.extend(read_env_file(file)?);
    }
    env.extend(args.env.iter().cloned());
    let env = env.into_iter().filter_map(|entry| resolve_env(&entry)).collect();
    Ok(ContainerOptions {
        args: args.args.clone(),
        entrypoint: args.entrypoint.clone(),
        env,
        workdir: args.workdir.clone(),
        user: args.user.clone(),
        hostname: args.hostname.clone(),
        milli_cpus: args.cpus,
        memory_bytes: args.memory,
        read_only: args.read_only,
        tmpfs: args.tmpfs.clone(),
        terminal: args.tty,
    })
}

/// `K=V` as it is; `K` alone with the value that husk itself has, if any.
fn resolve_env(entry: &str) -> Option<String> {
    if entry.contains('=') {
        return Some(entry.to_owned());
    }
    std::env::var(entry).ok().map(|value| format!("{entry}={value}"))
}

/// Docker's format: an entry per line; lines that are empty or begin with # are skipped.
fn read_env_file(path: &Path) -> anyhow::Result<Vec<String>> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read env file {}", path.display()))?;
    parse_env_lines(&text).with_context(|| format!("in env file {}", path.display()))
}

fn parse_env_lines(text: &str) -> anyhow::Result<Vec<String>> {
    let mut entries = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let key = line.split('=').next().unwrap_or_default();
        if key.is_empty() || key.contains(char::is_whitespace) {
            bail!("line {}: {key:?} is no name of a variable", number + 1);
        }
        entries.push(line.to_owned());
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn env_files_have_dockers_format() {
        let entries = parse_env_lines("# comment\n\nA=1\n  B = x\n").unwrap_err().to_string();
        assert!(entries.contains("line 4"), "{entries}");
        assert_eq!(parse_env_lines("A=1 # kept\n#x\nB=\nC\n").unwrap(), ["A=1 # kept", "B=", "C"]);
        assert!(parse_env_lines("=x").is_err());
    }

    #[test]
    fn a_variable_without_a_value_is_passed_on() {
        assert_eq!(resolve_env("A="), Some("A=".into()));
        assert_eq!(resolve_env("HUSK_TEST_SURELY_UNSET"), None);
        assert!(resolve_env("PATH").unwrap().starts_with("PATH="));
    }
}
