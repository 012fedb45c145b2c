//! End-to-end tests of the containerd runtime: `ctr` as people use it, with runc's answers as the measure.
#![expect(clippy::unwrap_used, reason = "it is a test")]

mod faults;
mod task_api;

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use husk_tests::{
    containerd::{
        HUSK, IMAGE, RUNC, Taken, assert_nothing_left, containerd, ctr, processes, run, shared_memory_kib,
        status, wait_for_status,
    },
    process::Running,
    pty::Terminal,
    wait::{PATIENCE, wait_until},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;

/// Starts a container in the background.
fn detached(runtime: &str, id: &str, options: &[&str], command: &[&str]) {
    let args = [&["run", "-d", "--runtime", runtime], options, &[IMAGE, id], command].concat();
    ctr(&args).expect_code(0);
}

fn remove(id: &str) {
    if status(id).as_deref() == Some("RUNNING") {
        ctr(&["task", "kill", "-s", "KILL", id]).expect_code(0);
    }
    if status(id).is_some() {
        wait_for_status(id, "STOPPED");
        // Which tells of exit codes that are not 0 as of a failure, in some versions.
        ctr(&["task", "rm", id]);
    }
    ctr(&["container", "rm", id]).expect_code(0);
}

fn name_of(runtime: &str) -> &str {
    runtime.split('.').nth(2).unwrap()
}

fn shim_pid(id: &str) -> i32 {
    let shims = processes(&format!("containerd-shim-husk-v2 -namespace default -id {id} "));
    shims.first().unwrap_or_else(|| panic!("no shim of {id}")).0
}

#[test]
fn output_input_and_exit_codes_are_runcs() {
    containerd();
    for (name, script, input) in [
        ("out", "echo out; echo err >&2; exit 7", ""),
        ("in", "read line; echo got $line", "some input\n"),
        ("kill", "kill -9 $$", ""),
    ] {
        let outputs = [RUNC, HUSK].map(|runtime| {
            let id = format!("{name}-{}", name_of(runtime));
            let mut running = Running::start(&mut run(runtime, &id, &["sh", "-c", script]));
            running.write(input.as_bytes());
            let output = running.finish();
            (output.code, output.out(), output.err())
        });
        assert_eq!(outputs[0], outputs[1], "{script}");
    }
    // The end of the input, however early it comes; ctr with runc may miss it.
    let mut cat = Running::start(&mut run(HUSK, "cat", &["cat"]));
    cat.write(b"all of it");
    cat.close_stdin();
    cat.finish().expect_out("all of it");
    let missing = Running::start(&mut run(HUSK, "missing", &["no-such-program"])).finish().expect_code(1);
    assert!(missing.err().contains("executable file not found in $PATH"), "{}", missing.err());
    assert_nothing_left();
}

#[test]
fn much_output_arrives_whole() {
    containerd();
    let script = "i=0; while [ $i -lt 16 ]; do dd if=/dev/zero bs=1M count=1 2>/dev/null; i=$((i+1)); done";
    let output = Running::start(&mut run(HUSK, "much", &["sh", "-c", script])).finish().expect_code(0);
    assert_eq!(output.stdout.len(), 16 << 20);
    assert!(output.stdout.iter().all(|byte| *byte == 0));
}

#[test]
fn tasks_have_runcs_life_and_events() {
    let containerd = containerd();
    let lives = [RUNC, HUSK].map(|runtime| {
        let id = format!("life-{}", name_of(runtime));
        let id = id.as_str();
        detached(runtime, id, &[], &["sleep", "100000"]);
        assert_eq!(status(id).unwrap(), "RUNNING");
        let exec = ctr(&["task", "exec", "--exec-id", "e1", id, "sh", "-c", "echo exec; exit 3"]);
        assert_eq!(exec.expect_code(3).out(), "exec\n");
        ctr(&["task", "pause", id]).expect_code(0);
        assert_eq!(status(id).unwrap(), "PAUSED");
        ctr(&["task", "resume", id]).expect_code(0);
        assert!(ctr(&["task", "metrics", id]).expect_code(0).out().contains("pids.current"));
        assert_eq!(ctr(&["task", "ps", id]).expect_code(0).out().lines().count(), 2);
        let refused = ctr(&["task", "rm", id]);
        assert_ne!(refused.code, 0);
        ctr(&["task", "kill", "-s", "KILL", id]).expect_code(0);
        wait_for_status(id, "STOPPED");
        // In words of each version's own.
        let again = ctr(&["task", "kill", id]);
        eprintln!("{runtime}: {}", again.err().trim());
        remove(id);
        containerd.wait_for_event(id, "/tasks/delete");
        (again.code, again.err().contains("not found"), containerd.task_events(id))
    });
    assert_eq!(lives[0], lives[1]);
    assert_eq!(lives[1].2.last().unwrap(), "/tasks/delete  137");
    assert_nothing_left();
}

#[test]
fn a_terminal_has_its_size_and_follows_it() {
    containerd();
    let mut command = Command::new("ctr");
    let script =
        "trap 'echo now $(stty size); exit 0' WINCH; echo ready $(tty); while :; do sleep 1000 & wait; done";
    command.args(["run", "--rm", "-t", "--runtime", HUSK, IMAGE, "tty", "sh", "-c", script]);
    let (mut terminal, running) = Terminal::start(command, 33, 101);
    terminal.wait_for("ready /dev/pts/0");
    terminal.resize(50, 120);
    terminal.wait_for("now 50 120");
    terminal.finish(running).expect_code(0);
}

#[test]
fn the_shim_outlives_containerd() {
    let containerd = containerd();
    detached(HUSK, "outlive", &[], &["sleep", "100000"]);
    let shim = shim_pid("outlive");
    containerd.restart();
    assert_eq!(status("outlive").unwrap(), "RUNNING");
    assert_eq!(shim_pid("outlive"), shim);
    ctr(&["task", "exec", "--exec-id", "after", "outlive", "true"]).expect_code(0);
    remove("outlive");
    assert_nothing_left();
}

#[test]
fn a_killed_shim_or_vm_leaves_nothing() {
    containerd();
    detached(HUSK, "shim-killed", &[], &["sleep", "100000"]);
    kill(Pid::from_raw(shim_pid("shim-killed")), Signal::SIGKILL).unwrap();
    wait_until("the task to be gone", PATIENCE, || status("shim-killed").is_none());
    remove("shim-killed");
    assert_nothing_left();

    detached(HUSK, "vm-killed", &[], &["sleep", "100000"]);
    for (pid, _) in processes("libexec/husk/husk-vmm") {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    wait_for_status("vm-killed", "STOPPED");
    remove("vm-killed");
    assert_nothing_left();
}

#[test]
fn the_hosts_network_is_refused() {
    containerd();
    let mut command = Command::new("ctr");
    command.args(["run", "--rm", "--net-host", "--runtime", HUSK, IMAGE, "net", "true"]);
    let refused = Running::start(&mut command).finish();
    assert_ne!(refused.code, 0);
    assert!(refused.err().contains("host's own network"), "{}", refused.err());
    assert_nothing_left();
}

#[test]
fn containers_of_a_pod_share_a_vm_and_a_shim() {
    containerd();
    if !ctr(&["run", "--help"]).out().contains("--annotation") {
        eprintln!("SKIPPED: this ctr can't set annotations, by which containers are put into pods");
        return;
    }
    const KIND: &str = "io.kubernetes.cri.container-type";
    const POD: &str = "io.kubernetes.cri.sandbox-id=pod1";
    let sandbox = format!("{KIND}=sandbox");
    let options = ["--annotation", &sandbox, "--annotation", POD, "--annotation", "io.husk.vcpus=2"];
    detached(HUSK, "pod1", &options, &["/pause"]);
    let member = format!("{KIND}=container");
    for id in ["member1", "member2"] {
        detached(HUSK, id, &["--annotation", &member, "--annotation", POD], &["sleep", "100000"]);
    }
    assert_eq!(processes("containerd-shim-husk-v2 -namespace").len(), 1);
    let exec = |id: &str, script: &str| {
        ctr(&["task", "exec", "--exec-id", "x", id, "sh", "-c", script]).expect_code(0).out()
    };
    assert_eq!(exec("member1", "hostname; nproc"), "pod1\n2\n");
    assert_eq!(
        exec("member1", "cat /proc/sys/kernel/random/boot_id"),
        exec("member2", "cat /proc/sys/kernel/random/boot_id")
    );
    remove("member1");
    assert_eq!(exec("member2", "echo still"), "still\n");
    ctr(&["task", "kill", "-s", "KILL", "member2"]).expect_code(0);
    remove("member2");
    ctr(&["task", "kill", "-s", "TERM", "pod1"]).expect_code(0);
    remove("pod1");
    assert_nothing_left();
}

#[test]
fn a_hook_sees_the_container_that_is_being_created() {
    containerd();
    let root = "/tmp/hooked";
    fs::create_dir_all(root).unwrap();
    ctr(&["image", "mount", "--rw", IMAGE, root]).expect_code(0);
    // In the container's network, with its state on standard input, and with its files.
    let script = format!(
        "grep -q '\"id\":\"hooked' && [ $(readlink /proc/self/ns/net) != $(readlink /proc/1/ns/net) ] \
         && [ $(readlink /proc/self/ns/mnt) != $(readlink /proc/1/ns/mnt) ] && echo hook >> {root}/said"
    );
    let spec = |hook: &str| {
        let namespaces = ["pid", "network", "mount", "uts", "ipc"].map(|kind| json!({ "type": kind }));
        json!({
            "ociVersion": "1.0.2",
            "process": { "args": ["cat", "/said"], "env": ["PATH=/bin"], "cwd": "/", "user": { "uid": 0, "gid": 0 } },
            "root": { "path": root },
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs" },
            ],
            "hooks": { "createContainer": [{ "path": "/bin/sh", "args": ["sh", "-c", hook] }] },
            "linux": { "namespaces": namespaces },
        })
    };
    let run = |runtime: &str, hook: &str| {
        fs::write("/tmp/hooked.json", spec(hook).to_string()).unwrap();
        let id = format!("hooked-{}", name_of(runtime));
        ctr(&["run", "--rm", "--runtime", runtime, "--config", "/tmp/hooked.json", &id])
    };
    for (runtime, said) in [(RUNC, "hook\n"), (HUSK, "hook\nhook\n")] {
        run(runtime, &script).expect_code(0).expect_out(said);
        let failed = run(runtime, "echo why >&2; exit 3");
        assert_ne!(failed.code, 0, "{runtime}");
        assert!(failed.err().contains("why"), "{runtime}: {}", failed.err());
    }
    ctr(&["image", "unmount", "--rm", root]).expect_code(0);
    assert_nothing_left();
}

#[test]
fn a_runtime_class_has_a_configuration_of_its_own() {
    containerd();
    let file = "/etc/husk/large.toml";
    fs::create_dir_all("/etc/husk").unwrap();
    fs::write(file, "[pod]\nvcpus = 2\nmem_size_mib = 300\n").unwrap();
    Running::start(Command::new("husk").args(["config", "validate", file])).finish().expect_code(0);
    let options = ["--runtime-config-path", file];
    detached(HUSK, "large", &options, &["sleep", "100000"]);
    assert_eq!(exec("large", "nproc"), "2\n");
    let total: u64 = exec("large", "awk '/MemTotal/ {print $2}' /proc/meminfo").trim().parse().unwrap();
    assert!((200 << 10..300 << 10).contains(&total), "{total} KiB");
    remove("large");

    fs::write(file, "[pod]\ncpus = 2\n").unwrap();
    let args = [&["run", "--rm", "--runtime", HUSK], &options[..], &[IMAGE, "wrong", "true"]].concat();
    let refused = ctr(&args);
    assert_ne!(refused.code, 0);
    assert!(
        refused.err().contains(file) && refused.err().contains("unknown field `cpus`"),
        "{}",
        refused.err()
    );
    fs::remove_file(file).unwrap();
    assert_nothing_left();
}

#[test]
fn snapshots_on_devices_are_disks_of_the_vm() {
    containerd();
    for name in ["blockfile", "devmapper"] {
        if !has_snapshotter(name) {
            continue;
        }
        detached(HUSK, name, &["--snapshotter", name], &["sleep", "100000"]);
        let root = exec(name, "grep ' / ' /proc/mounts");
        assert!(root.starts_with("/dev/vd") && root.contains(" / ext4 rw"), "{root}");
        assert!(!mounts_on_the_host().contains("/dev/loop"), "{}", mounts_on_the_host());
        assert!(!mounts_on_the_host().contains("/dev/mapper"), "{}", mounts_on_the_host());
        assert_a_new_task_finds_what_the_last_wrote(name);
        remove(name);
    }
    assert_nothing_left();
}

#[test]
fn snapshots_in_directories_are_shared_with_the_vm() {
    containerd();
    for (name, options) in [("overlayfs", "lowerdir="), ("native", "bind"), ("erofs", "lowerdir=")] {
        if !has_snapshotter(name) {
            continue;
        }
        detached(HUSK, name, &["--snapshotter", name], &["sleep", "100000"]);
        let root = exec(name, "grep ' / ' /proc/mounts");
        assert!(root.contains(" virtiofs rw"), "{root}");
        // As `ctr commit` and the like find it; the host has not mounted it.
        let mount = ctr(&["snapshots", "--snapshotter", name, "mounts", "/never", name]).expect_code(0).out();
        assert!(mount.contains(options), "{mount}");
        assert!(!mounts_on_the_host().contains(name), "{name} is mounted");
        assert_a_new_task_finds_what_the_last_wrote(name);
        let diff = ctr(&["snapshots", "--snapshotter", name, "diff", name]).expect_code(0).stdout;
        let mut list = Running::start(Command::new("tar").arg("-tz"));
        list.feed(diff);
        assert!(list.finish().expect_code(0).out().lines().any(|path| path == "file"));
        remove(name);
    }
    assert_nothing_left();
}

/// Without the layers that the snapshotter of EROFS mounts by itself.
fn mounts_on_the_host() -> String {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    mounts.lines().filter(|line| !line.contains(" erofs ro")).collect::<Vec<_>>().join("\n")
}

fn has_snapshotter(name: &str) -> bool {
    let plugins = ctr(&["plugins", "ls"]).expect_code(0).out();
    let of_snapshots = |line: &&str| line.contains("snapshotter") && line.contains(&format!(" {name} "));
    let plugin = plugins.lines().find(of_snapshots).unwrap_or("");
    let there = plugin.trim_end().ends_with("ok");
    if !there {
        eprintln!("SKIPPED: this containerd has no snapshotter {name:?}: {plugin}");
    }
    there
}

fn exec(id: &str, script: &str) -> String {
    ctr(&["task", "exec", "--exec-id", "x", id, "sh", "-c", script]).expect_code(0).out()
}

/// The writable layer lives as long as the container, not as its task.
fn assert_a_new_task_finds_what_the_last_wrote(id: &str) {
    exec(id, "echo kept >/file");
    ctr(&["task", "kill", "-s", "KILL", id]).expect_code(0);
    wait_for_status(id, "STOPPED");
    ctr(&["task", "rm", id]);
    ctr(&["task", "start", "--detach", id]).expect_code(0);
    assert_eq!(exec(id, "cat /file"), "kept\n");
}

#[test]
fn a_logging_program_gets_all_output() {
    containerd();
    // As soon as a container is deleted, runc's shim sends SIGTERM.
    let script = "#!/bin/sh\ntrap '' TERM\nexec 5>&-\ncat <&3 >$1.out & cat <&4 >$1.err\nwait\n\
                  echo $CONTAINER_NAMESPACE $CONTAINER_ID >$1.done\n";
    let program = "/opt/husk-test/logger";
    fs::write(program, script).unwrap();
    fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
    for runtime in [RUNC, HUSK] {
        let id = format!("logged-{}", name_of(runtime));
        let log = format!("/tmp/{id}");
        let uri = format!("binary://{program}?{log}");
        let output = ["sh", "-c", "yes | head -c 1000000; echo error >&2"];
        detached(runtime, &id, &["--log-uri", &uri], &output);
        wait_for_status(&id, "STOPPED");
        remove(&id);
        let read = |what: &str| fs::read_to_string(format!("{log}.{what}")).unwrap_or_default();
        wait_until("the logging program to end", PATIENCE, || !read("done").is_empty());
        assert_eq!((read("out").len(), read("err")), (1_000_000, "error\n".to_owned()));
        assert_eq!(read("done"), format!("default {id}\n"));
    }
    assert_nothing_left();
}

#[test]
fn fifty_containers_one_after_another_leave_nothing() {
    containerd();
    let once = |id: &str| {
        Running::start(&mut run(HUSK, id, &["echo", "done"])).finish().expect_code(0).expect_out("done\n");
    };
    once("first");
    assert_nothing_left();
    let (before, memory) = (Taken::now(), shared_memory_kib());
    for number in 0..50 {
        once(&format!("loop{number}"));
    }
    assert_nothing_left();
    assert_eq!(Taken::now(), before);
    // Of which one guest alone has more.
    assert!(shared_memory_kib() < memory + 16 * 1024, "{} KiB, {memory} KiB before", shared_memory_kib());
}

#[test]
fn fifty_containers_at_once_all_run_and_end() {
    containerd();
    // Fifty VMs boot on the one CPU of an emulated machine.
    let limit = 4 * PATIENCE;
    let patient = "/etc/husk/config.d/patient.toml";
    fs::create_dir_all("/etc/husk/config.d").unwrap();
    fs::write(patient, "[pod]\ntimeout_s = 900\n").unwrap();
    let ids: Vec<String> = (0..50).map(|number| format!("crowd{number}")).collect();
    let starting: Vec<Running> = ids
        .iter()
        .map(|id| {
            let args = ["run", "-d", "--runtime", HUSK, IMAGE, id, "sleep", "100000"];
            Running::start(Command::new("ctr").args(args))
        })
        .collect();
    for (id, starting) in ids.iter().zip(starting) {
        starting.finish_within(limit).expect_code(0);
        assert_eq!(status(id).as_deref(), Some("RUNNING"), "{id}");
    }
    assert_eq!(exec("crowd49", "echo lives"), "lives\n");
    let ending: Vec<Running> = ids
        .iter()
        .map(|id| Running::start(Command::new("ctr").args(["task", "delete", "--force", id])))
        .collect();
    for ending in ending {
        ending.finish_within(limit);
    }
    for id in &ids {
        remove(id);
    }
    fs::remove_file(patient).unwrap();
    assert_nothing_left();
}

#[test]
fn the_shim_is_small() {
    containerd();
    detached(HUSK, "small", &[], &["sleep", "100000"]);
    let pid = shim_pid("small");
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let rss = rollup.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
    let kib: u64 = rss.trim().trim_end_matches(" kB").parse().unwrap();
    eprintln!("resident memory of the shim: {kib} KiB");
    assert!(kib <= 10 * 1024, "{}", fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap());
    remove("small");
}
