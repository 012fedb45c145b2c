//! What a result says about where it came from.

use std::{collections::BTreeMap, env, fs, path::Path, process::Command};

use crate::{
    plan::Peers,
    tree::{Tree, output},
};

/// The machine that measures, seen from inside.
pub(crate) fn describe() -> BTreeMap<String, String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name));
        line.and_then(|line| line.split_once(':')).map_or(String::new(), |(_, value)| value.trim().to_owned())
    };
    let cpuinfo = read("/proc/cpuinfo");
    let count = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let memory_kib: u64 =
        field(&read("/proc/meminfo"), "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0);
    let emulated = env::var_os("HUSK_LAB").is_some();
    BTreeMap::from(
        [
            ("cpu", field(&cpuinfo, "model name")),
            ("cpus", count.to_string()),
            ("memory", format!("{} MiB", memory_kib >> 10)),
            ("kernel", read("/proc/sys/kernel/osrelease").trim().to_owned()),
            ("kind", if emulated { "the lab: emulated" } else { "this machine" }.to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value)),
    )
}

/// The versions of other programs that are measured, first lines only; programs that can't be run are left out.
pub(crate) fn peer_versions(peers: &Peers) -> BTreeMap<String, String> {
    let all =
        peers.qemu.iter().chain(&peers.oci_runtimes).chain(&peers.firecracker).chain(&peers.cloud_hypervisor);
    let all = all.chain(&peers.containerd).chain(&peers.virtiofsd).chain(&peers.umoci);
    all.filter_map(|program| {
        let name = program.file_name()?.to_string_lossy().into_owned();
        Some((format!("peer {name}"), version(program)?))
    })
    .collect()
}

/// What built husk, and what it and the lab run on: the gate compares only what these make comparable.
pub(crate) fn toolchain(tree: &Tree, lab: bool) -> BTreeMap<String, String> {
    let mut versions = BTreeMap::new();
    let mut add = |name: &str, version: Option<String>| {
        versions.insert(name.to_owned(), version.unwrap_or_else(|| "unknown".into()));
    };
    add("rustc", version(Path::new("rustc")));
    add("guest kernel", fs::read(tree.path("build/guest/vmlinux")).ok().and_then(|image| banner(&image)));
    if lab {
        let said = output(Command::new(tree.bin("husk-lab")).arg("setup")).ok();
        add("lab", said.map(|line| line.trim().to_owned()));
    }
    versions
}

/// The source's commit, and whether files differ from it.
pub(crate) fn commit(tree: &Tree) -> String {
    let git = |args: &[&str]| output(Command::new("git").arg("-C").arg(tree.path("")).args(args)).ok();
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return "unknown".into();
    };
    let changed =
        git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|list| !list.trim().is_empty());
    format!("{}{}", commit.trim(), if changed { "-dirty" } else { "" })
}

/// Now, in UTC.
pub(crate) fn date() -> String {
    output(Command::new("date").args(["-u", "+%FT%TZ"])).map_or(String::new(), |date| date.trim().to_owned())
}

fn version(program: &Path) -> Option<String> {
    let said = output(Command::new(program).arg("--version")).ok()?;
    said.lines().next().map(|line| line.trim().to_owned())
}

/// A kernel image's own description: version and compiler.
fn banner(image: &[u8]) -> Option<String> {
    let start = image.windows(14).position(|window| window == b"Linux version ")?;
    let line: Vec<u8> = image[start..].iter().copied().take(300).take_while(|byte| *byte >= b' ').collect();
    let line = String::from_utf8(line).ok()?;
    Some(line.trim_start_matches("Linux version ").split(" #").next()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_says_what_it_is() {
        let image = b"\x7fELF..Linux version 6.12.1-husk (husk@husk) (gcc 12) #1 SMP Thu\n\0rest";
        assert_eq!(banner(image).unwrap(), "6.12.1-husk (husk@husk) (gcc 12)");
        assert_eq!(banner(b"nothing"), None);
    }

    #[test]
    fn the_machine_is_described() {
        let machine = describe();
        assert!(machine["cpus"].parse::<u32>().unwrap() > 0, "{machine:?}");
        assert!(!machine["kernel"].is_empty());
    }
}
