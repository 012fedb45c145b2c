//! The same compressed layers unpacked by containerd on the host, and by husk in a guest.

use std::{fs, path::Path, process::Stdio};

use anyhow::{Context, Result};

use super::{containerd::Containerd, containers::stages, process::timed};
use crate::{
    measure::{Round, Subject},
    plan::Plan,
};

const GROUP: &str = "An image unpacked: by containerd on the host, by husk in a guest";
/// containerd's namespace for this: elsewhere it has the same layers already.
const NAMESPACE: &str = "unpack";

/// Each image unpacked by each of them, over and over.
pub(super) fn subjects<'a>(plan: &Plan, containerd: &'a Containerd, work: &Path) -> Result<Vec<Subject<'a>>> {
    let mut subjects = Vec::new();
    for archive in &plan.files.packed {
        let name = archive.file_stem().and_then(|name| name.to_str()).context("an archive has no name")?;
        let path = archive.to_str().context("an archive's path is no text")?;
        subjects.push(by_containerd(containerd, name, path)?);
        subjects.push(by_husk(containerd, name, path, work));
    }
    Ok(subjects)
}

/// What the image in an archive is called.
pub(crate) fn reference(name: &str) -> String {
    format!("docker.io/library/{name}:packed")
}

fn subject<'a>(name: &str, by: &str, label: String, run: impl FnMut() -> Result<Round> + 'a) -> Subject<'a> {
    Subject { id: format!("unpack-{name}-{by}"), group: GROUP, label, own: by == "husk", run: Box::new(run) }
}

fn by_containerd<'a>(containerd: &'a Containerd, name: &str, archive: &str) -> Result<Subject<'a>> {
    let ctr = move |args: &[&str]| timed(&mut containerd.ctr(&[&["--namespace", NAMESPACE], args].concat()));
    ctr(&["image", "import", "--no-unpack", archive])?;
    let (_, listed) = ctr(&["image", "list", &format!("name=={}", reference(name))])?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let digest = listed.split_whitespace().find(|word| word.starts_with("sha256:"));
    let digest = digest.with_context(|| format!("ctr lists no digest of {name}: {listed}"))?.to_owned();
    let run = move || {
        let (total_ms, _) = ctr(&["snapshots", "unpack", &digest])?;
        // A snapshot goes when none stands on it any more.
        loop {
            let (_, listed) = ctr(&["snapshots", "list"])?;
            let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
            let all: Vec<Vec<&str>> =
                listed.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
            let is_parent = |key: &str| all.iter().any(|row| row.get(1) == Some(&key));
            let Some(last) = all.iter().filter_map(|row| row.first()).find(|key| !is_parent(key)) else {
                break;
            };
            ctr(&["snapshots", "remove", last])?;
        }
        Ok(Round { total_ms, ..Round::default() })
    };
    Ok(subject(name, "containerd", format!("{name}, ctr snapshots unpack"), run))
}

fn by_husk<'a>(containerd: &'a Containerd, name: &str, archive: &str, work: &Path) -> Subject<'a> {
    let (image, archive, state) = (reference(name), archive.to_owned(), work.join("unpack"));
    let run = move || {
        if state.exists() {
            fs::remove_dir_all(&state)?;
        }
        let husk = || {
            let mut husk = containerd.husk();
            husk.env("HUSK_ROOT", &state).stdin(Stdio::null());
            husk
        };
        timed(husk().args(["load", "--input", &archive]))?;
        let args = ["run", "--rm", "--timings=json", "--network", "none", "--entrypoint", "true", &image];
        let (ran_ms, output) = timed(husk().args(args))?;
        let all = stages(&output.stderr, ran_ms)?;
        let (_, total_ms) = all.into_iter().next().context("husk's timings are empty")?;
        Ok(Round { total_ms, ..Round::default() })
    };
    subject(name, "husk", format!("{name}, husk"), run)
}
