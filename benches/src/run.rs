//! The half outside: makes the guests, chooses where to measure, and runs the other half there.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{
    args::{BootArgs, ScaleArgs},
    machine,
    plan::{Files, Peers, Plan, Scale, Suite},
    report,
    result::{Mode, RunResult},
    tree::{Tree, output},
};

/// Exit codes of the lab whose machine hung, or crashed.
const LAB_LOST: [i32; 2] = [124, 125];

/// `husk-bench boot`
pub(crate) fn boot(args: &BootArgs) -> Result<()> {
    let peers = Peers {
        qemu: program(&args.peers.qemu),
        oci_runtimes: args.peers.oci_runtime.iter().filter_map(|path| program(path)).collect(),
        firecracker: args.peers.firecracker.as_deref().map(named).transpose()?,
        cloud_hypervisor: args.peers.cloud_hypervisor.as_deref().map(named).transpose()?,
    };
    let tree = Tree::find(args.common.bin.as_deref())?;
    let plan = Plan {
        suite: Suite::Boot,
        mode: mode(&tree, args.mode.deterministic),
        rounds: args.rounds,
        warmups: args.warmups,
        cpus: args.mode.cpus.clone(),
        files: files(&tree)?,
        peers,
    };
    finish(&measure(&tree, &plan, args.common.timeout)?, &args.out)
}

/// `husk-bench scale`
pub(crate) fn scale(args: &ScaleArgs) -> Result<()> {
    let tree = Tree::find(args.common.bin.as_deref())?;
    let plan = Plan {
        suite: Suite::Scale(Scale { pods: args.pods, storm: args.storm, cycles: args.cycles }),
        mode: mode(&tree, args.mode.deterministic),
        rounds: 1,
        warmups: 2,
        cpus: args.mode.cpus.clone(),
        files: files(&tree)?,
        peers: Peers::default(),
    };
    finish(&measure(&tree, &plan, args.common.timeout)?, &args.out)
}

/// Keeps a result, and makes a report of all results that are beside it.
fn finish(result: &RunResult, out: &Path) -> Result<()> {
    result.save(out)?;
    eprintln!("wrote {}", out.display());
    let dir = out.parent().unwrap_or(Path::new("."));
    let beside =
        ["boot.json", "scale.json"].map(|name| dir.join(name)).into_iter().filter(|path| path.is_file());
    let results: Vec<PathBuf> = beside.collect();
    if results.contains(&out.to_path_buf()) {
        return report::write(&results, dir);
    }
    report::write(&[out.to_path_buf()], dir)
}

/// Runs a suite where it can be run.
pub(crate) fn measure(tree: &Tree, plan: &Plan, timeout_s: u64) -> Result<RunResult> {
    ensure!(
        plan.mode == Mode::Wall || plan.cpus.is_empty(),
        "--cpus says nothing in the lab's deterministic mode: it has one CPU"
    );
    let date = machine::date();
    let out = tempfile::tempdir().context("cannot make a directory for the result")?;
    let this = env::current_exe().context("cannot find the running program")?;
    let json = serde_json::to_string(plan)?;
    let inside = |to: &Path| [this.as_os_str().to_owned(), "inside".into(), json.clone().into(), to.into()];
    let mut command = match plan.mode {
        Mode::Wall => {
            let [this, rest @ ..] = inside(&out.path().join("result.json"));
            let mut command = Command::new(this);
            command.args(rest);
            command
        }
        Mode::Deterministic => {
            eprintln!("measuring in the lab's deterministic mode");
            let mut command = Command::new(tree.bin("husk-lab"));
            command.args(["run", "--deterministic", "--timeout", &timeout_s.to_string(), "--out"]);
            command.arg(out.path()).arg("--").args(inside(Path::new("/lab/out/result.json")));
            command
        }
    };
    let mut status = command.status().with_context(|| format!("cannot run {:?}", command.get_program()))?;
    if plan.mode == Mode::Deterministic && status.code().is_some_and(|code| LAB_LOST.contains(&code)) {
        eprintln!("the emulated machine hung or crashed: once more");
        status = command.status()?;
    }
    ensure!(status.success(), "measuring failed ({status})");
    let mut result = RunResult::load(&out.path().join("result.json"))?;
    result.date = date;
    result.commit = machine::commit(tree);
    result.versions.extend(machine::toolchain(tree, plan.mode == Mode::Deterministic));
    Ok(result)
}

/// Whether this machine's KVM runs ordinary guests decides, as for all of the tree's scripts.
fn mode(tree: &Tree, deterministic: bool) -> Mode {
    if deterministic {
        return Mode::Deterministic;
    }
    let probed = output(Command::new(tree.bin("husk-vmm")).arg("probe")).unwrap_or_default();
    let usable =
        serde_json::from_str::<serde_json::Value>(&probed).is_ok_and(|probe| probe["usable"] == true);
    if usable { Mode::Wall } else { Mode::Deterministic }
}

pub(crate) fn files(tree: &Tree) -> Result<Files> {
    Ok(Files {
        husk: tree.bin("husk"),
        vmm: tree.bin("husk-vmm"),
        filesystem: tree.bin("husk-fs"),
        kernel: tree.path("build/guest/vmlinux"),
        initramfs: tree.path("build/guest/initramfs.cpio"),
        mark: tree.guest("mark")?,
        reboot: tree.guest("reboot")?,
        images: tree.path("build/images/layout"),
        registry: tree.path("build/images/registry"),
        registry_script: tree.path("tests/images/registry.sh"),
    })
}

/// A peer that may be missing: then it is said, and left out.
fn program(path: &Path) -> Option<PathBuf> {
    let found = find(path);
    if found.is_none() {
        eprintln!("{} is not installed, and left out", path.display());
    }
    found
}

/// A peer that was asked for.
fn named(path: &Path) -> Result<PathBuf> {
    find(path).with_context(|| format!("cannot find {}", path.display()))
}

/// Where the shell would find it, and root's shell, too.
fn find(path: &Path) -> Option<PathBuf> {
    if path.components().count() > 1 {
        return path.canonicalize().ok();
    }
    let dirs = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&dirs)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(path))
        .find(|candidate| candidate.is_file())
}
