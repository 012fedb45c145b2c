//! The half outside: makes the guests, chooses where to measure, and runs the other half there.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{
    args::{BootArgs, IoArgs, RootArgs, ScaleArgs},
    guest_root, machine,
    plan::{Files, Peers, Plan, Scale, Suite},
    report,
    result::{Mode, RunResult},
    suites::{IMAGES, packed_reference},
    tree::{Tree, output, succeed},
};

/// Exit codes of the lab whose machine hung, or crashed.
const LAB_LOST: [i32; 2] = [124, 125];
/// Where files are put in another root file system, and where programs are looked for there.
const IN_ROOT: &str = "/opt/husk-bench";
const ROOT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// `husk-bench boot`
pub(crate) fn boot(args: &BootArgs) -> Result<()> {
    let peers = Peers {
        qemu: program(&args.peers.qemu),
        oci_runtimes: args.peers.oci_runtime.iter().filter_map(|path| program(path)).collect(),
        umoci: program(&args.peers.umoci),
        firecracker: args.peers.firecracker.as_deref().map(named).transpose()?,
        cloud_hypervisor: args.peers.cloud_hypervisor.as_deref().map(named).transpose()?,
        ..Peers::default()
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

/// `husk-bench io`
pub(crate) fn io(args: &IoArgs) -> Result<()> {
    let tree = Tree::find(args.common.bin.as_deref())?;
    let plan = Plan {
        suite: Suite::Io,
        mode: mode(&tree, args.mode.deterministic),
        rounds: args.rounds,
        warmups: 0,
        cpus: args.mode.cpus.clone(),
        files: Files { io_root: Some(guest_root::build(&tree)?), ..files(&tree)? },
        peers: Peers { qemu: program(&args.qemu), ..Peers::default() },
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

/// `husk-bench ctr` and `husk-bench fs`: where the peers are may be another root file system than this machine's.
pub(crate) fn in_root(args: &RootArgs, suite: Suite, runtimes: &[String]) -> Result<()> {
    let tree = Tree::find(args.common.bin.as_deref())?;
    let mode = mode(&tree, args.mode.deterministic);
    // A machine whose KVM is used has its own peers.
    let root = args.root.as_deref().filter(|_| mode == Mode::Deterministic);
    let mut files = root_files(&tree, suite)?;
    if let Some(root) = root {
        files.copy_into(root)?;
    }
    let peers = match suite {
        Suite::Ctr => Peers {
            containerd: Some(there(root, "containerd")?),
            oci_runtimes: vec![there(root, "runc")?],
            runtimes: runtimes.to_vec(),
            ..Peers::default()
        },
        _ => Peers {
            qemu: Some(there(root, "qemu-system-x86_64")?),
            virtiofsd: Some(there(root, "virtiofsd")?),
            ..Peers::default()
        },
    };
    let plan = Plan {
        suite,
        mode,
        rounds: args.rounds,
        warmups: args.warmups,
        cpus: args.mode.cpus.clone(),
        files,
        peers,
    };
    let result = measure_in(&tree, &plan, args.common.timeout, root)?;
    finish(&result, &args.out.join(format!("{}.json", suite.name())))
}

/// What the suites of [`in_root`] measure with.
fn root_files(tree: &Tree, suite: Suite) -> Result<Files> {
    let files = Files {
        vmm: tree.bin("husk-vmm"),
        filesystem: tree.bin("husk-fs"),
        supervisor: tree.bin("husk-supervisor"),
        kernel: tree.path("build/guest/vmlinux"),
        ..Files::default()
    };
    if suite == Suite::Fs {
        return Ok(Files { share_guest: tree.guest("fs")?, ..files });
    }
    let shim = tree.bin("containerd-shim-husk-v2");
    ensure!(shim.is_file(), "{} is missing: run `make build` first", shim.display());
    fs::create_dir_all(tree.path("build/bench"))?;
    let archive = tree.path("build/bench/busybox.tar");
    copy_image(tree, "busybox", "docker-archive", &archive, "docker.io/library/busybox:latest")?;
    let mut packed = Vec::new();
    for name in IMAGES {
        let archive = tree.path(&format!("build/bench/{name}.oci"));
        copy_image(tree, name, "oci-archive", &archive, &packed_reference(name))?;
        packed.push(archive);
    }
    let initramfs = tree.path("build/guest/initramfs.cpio");
    Ok(Files { husk: tree.bin("husk"), shim, archive, packed, initramfs, ..files })
}

/// Makes an archive of one of the tree's images.
fn copy_image(tree: &Tree, name: &str, kind: &str, archive: &Path, reference: &str) -> Result<()> {
    if archive.exists() {
        fs::remove_file(archive)?;
    }
    let layout = format!("oci:{}:{name}:latest", tree.path("build/images/layout").display());
    let to = format!("{kind}:{}:{reference}", archive.display());
    succeed(Command::new("skopeo").args(["copy", "--quiet", &layout, &to]))
}

impl Files {
    /// Copies those that there are to where another root file system has them.
    fn copy_into(&mut self, root: &Path) -> Result<()> {
        let all = [
            &mut self.husk,
            &mut self.vmm,
            &mut self.filesystem,
            &mut self.kernel,
            &mut self.initramfs,
            &mut self.shim,
            &mut self.archive,
            &mut self.share_guest,
        ];
        for file in all.into_iter().chain(&mut self.packed).filter(|file| !file.as_os_str().is_empty()) {
            *file = copy_into(root, file)?;
        }
        Ok(())
    }
}

/// Copies a file into a root file system, and tells its path there.
fn copy_into(root: &Path, file: &Path) -> Result<PathBuf> {
    let inside = Path::new(IN_ROOT).join(file.file_name().context("a file has no name")?);
    let to = root.join(inside.strip_prefix("/")?);
    fs::create_dir_all(to.parent().unwrap_or(root))?;
    fs::copy(file, &to).with_context(|| format!("cannot copy {} to {}", file.display(), to.display()))?;
    Ok(inside)
}

/// A peer that must be there; its path is that in the root file system.
fn there(root: Option<&Path>, name: &str) -> Result<PathBuf> {
    const DIRS: [&str; 4] = ["usr/bin", "usr/sbin", "usr/libexec", "usr/lib/qemu"];
    let root = root.unwrap_or(Path::new("/"));
    let found = DIRS.map(|dir| Path::new(dir).join(name)).into_iter().find(|path| root.join(path).is_file());
    let inside = |path: PathBuf| Path::new("/").join(path);
    found.map(inside).with_context(|| format!("{} has no {name}: install it there", root.display()))
}

/// Keeps a result, and makes a report of all results that are beside it.
fn finish(result: &RunResult, out: &Path) -> Result<()> {
    result.save(out)?;
    eprintln!("wrote {}", out.display());
    let dir = out.parent().unwrap_or(Path::new("."));
    let beside = ["boot.json", "ctr.json", "fs.json", "io.json", "scale.json"]
        .map(|name| dir.join(name))
        .into_iter()
        .filter(|path| path.is_file());
    let results: Vec<PathBuf> = beside.collect();
    if results.contains(&out.to_path_buf()) {
        return report::write(&results, dir);
    }
    report::write(&[out.to_path_buf()], dir)
}

/// Runs a suite where it can be run.
pub(crate) fn measure(tree: &Tree, plan: &Plan, timeout_s: u64) -> Result<RunResult> {
    measure_in(tree, plan, timeout_s, None)
}

/// The same, in the lab with another root file system.
fn measure_in(tree: &Tree, plan: &Plan, timeout_s: u64, root: Option<&Path>) -> Result<RunResult> {
    ensure!(
        plan.mode == Mode::Wall || plan.cpus.is_empty(),
        "--cpus says nothing in the lab's deterministic mode: it has one CPU"
    );
    let date = machine::date();
    let out = tempfile::tempdir().context("cannot make a directory for the result")?;
    let mut this = env::current_exe().context("cannot find the running program")?;
    if let Some(root) = root {
        this = copy_into(root, &this)?;
    }
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
            command.arg(out.path());
            if let Suite::Scale(scale) = plan.suite {
                command.args(["--memory", &scale.lab_memory_mib().to_string()]);
            }
            if let Some(root) = root {
                command.args(["--env", &format!("PATH={ROOT_PATH}"), "--root"]).arg(root);
            }
            command.arg("--").args(inside(Path::new("/lab/out/result.json")));
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
        supervisor: tree.bin("husk-supervisor"),
        kernel: tree.path("build/guest/vmlinux"),
        initramfs: tree.path("build/guest/initramfs.cpio"),
        mark: tree.guest("mark")?,
        reboot: tree.guest("reboot")?,
        images: tree.path("build/images/layout"),
        registry: tree.path("build/images/registry"),
        registry_script: tree.path("tests/images/registry.sh"),
        ..Files::default()
    })
}

/// A peer that may be missing: then it is said, and left out.
pub(crate) fn program(path: &Path) -> Option<PathBuf> {
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
