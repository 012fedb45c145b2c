//! The very first run of an image: pulled, unpacked in a guest, started.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result};

use super::{containers::stages, install::Installed, process::timed};
use crate::{
    measure::{Round, Subject},
    plan::Plan,
    tree::succeed,
};

const FIRST: &str = "The first run of an image: pulled, unpacked in a guest, started";
/// What is run.
pub(crate) const IMAGES: [&str; 2] = ["busybox", "debian-python"];

/// A registry on loopback; stopped when dropped.
#[derive(Debug)]
pub(crate) struct Registry {
    script: PathBuf,
    state: PathBuf,
    address: String,
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Else it ends with the machine or the network namespace's last process.
        let _ = succeed(Command::new(&self.script).arg("stop").arg(&self.state));
    }
}

impl Registry {
    pub(crate) fn start(plan: &Plan, work: &Path) -> Result<Self> {
        let mut this = Self {
            script: plan.files.registry_script.clone(),
            state: work.join("registry"),
            address: String::new(),
        };
        eprintln!("starting a registry");
        succeed(Command::new(&this.script).arg("start").arg(&plan.files.registry).arg(&this.state))?;
        let env = fs::read_to_string(this.state.join("env"))?;
        this.address = env
            .lines()
            .find_map(|line| line.strip_prefix("export HUSK_TEST_REGISTRY="))
            .context("the registry has no address")?
            .to_owned();
        Ok(this)
    }
}

/// A first run of each image, over and over.
pub(crate) fn subjects<'a>(installed: &'a Installed, registry: &'a Registry) -> Vec<Subject<'a>> {
    IMAGES.map(|name| subject(installed, registry, name)).into()
}

fn subject<'a>(installed: &'a Installed, registry: &Registry, name: &str) -> Subject<'a> {
    let image = format!("{}/{name}", registry.address);
    // A store of its own, empty each time: layers that other images have, too, would not be pulled.
    let state = installed.work.join("first");
    let husk = move || {
        let mut command = Command::new(&installed.husk);
        command.env("HUSK_ROOT", &state).stdin(Stdio::null());
        command
    };
    let dir = installed.work.join("first");
    let run = move || {
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        let (pulled_ms, _) = timed(husk().args(["pull", "--quiet", &image]))?;
        let (ran_ms, output) = timed(husk().args([
            "run",
            "--rm",
            "--timings=json",
            "--network",
            "none",
            "--entrypoint",
            "true",
            &image,
        ]))?;
        let mut all = stages(&output.stderr, ran_ms)?.into_iter();
        let unpacked = all.next().context("husk's timings are empty")?.1;
        let stages = vec![
            ("pulled".to_owned(), pulled_ms),
            ("unpacked, disks ready".to_owned(), unpacked),
            ("started, run, cleaned up".to_owned(), all.map(|(_, ms)| ms).sum()),
        ];
        Ok(Round { total_ms: pulled_ms + ran_ms, stages, ..Round::default() })
    };
    Subject { id: format!("first-{name}"), group: FIRST, label: name.into(), own: true, run: Box::new(run) }
}
