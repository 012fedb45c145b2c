//! Pods: containers that come and go in one VM, as containerd's shim has them.

use std::{fs, io::Write, net::Shutdown, path::Path, process::Command};

use husk_base::chain;
use husk_sandbox::{
    Error,
    pod::{PidNamespace, Pod, PodNetwork, RootfsSource, StdioFlags},
};
use husk_tests::{
    leftovers,
    pod::{Home, OUTPUT, Text, bind, container, exec, outcome, process, run},
    wait::{PATIENCE, wait_until},
};
use oci_spec::runtime::LinuxResources;
use serde_json::json;

/// Keeps running, and ends when it is told to.
const SERVE: &str = "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.1; done";

async fn serve(pod: &Pod, home: &Home, id: &str, script: &str, pids: PidNamespace) -> (Text, u32) {
    let mut request = container(id, RootfsSource::Directory(home.busybox(id)), script, &[]);
    request.pids = pids;
    let created = pod.create(request).await.map_err(|error| chain::text(&error)).unwrap();
    pod.start_container(id).await.unwrap();
    (Text::of(created.streams.stdout), created.pid)
}

async fn stop(pod: Pod, home: &Home) {
    pod.stop().await.map_err(|error| chain::text(&error)).unwrap();
    assert_eq!(&*pod.ended().await, "it was stopped");
    pod.stop().await.unwrap();
    nothing_is_left(home);
}

/// Of pods that are stopped, whether or not their handles are there.
fn nothing_is_left(home: &Home) {
    assert_eq!(leftovers::of(&home.root()), Vec::<String>::new());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&home.path().display().to_string()), "{mounts}");
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_share_a_machine_and_have_files_of_their_own() {
    let home = Home::new();
    let pod = home.start("life").await;
    let (one, _) = serve(&pod, &home, "one", SERVE, PidNamespace::Own).await;
    let listen = "echo two > /tmp/me; nc -l -p 8080 > /tmp/got; exec sleep 1000";
    let (_two, _) = serve(&pod, &home, "two", listen, PidNamespace::Own).await;

    let script = "hostname; cat /tmp/me 2>/dev/null; ls /proc | grep -c '^[0-9]'; id -G; \
        while ! echo hello | nc 127.0.0.1 8080; do sleep 0.1; done; exit 3";
    let (code, out, err) = exec(&pod, "one", "e1", script).await;
    // Its own shell and processes, and neither the other's nor the agent's.
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!((code, lines[0], lines[2], lines.len()), (3, "the-pod", "0", 3), "{out}{err}");
    assert!(lines[1].parse::<u32>().unwrap() < 8, "{out}");
    assert_eq!(exec(&pod, "two", "e1", "cat /tmp/me").await.1, "two\n");
    let script = "while ! grep hello /tmp/got; do sleep 0.1; done";
    assert_eq!(exec(&pod, "two", "e2", script).await.1, "hello\n");
    // The directory is the host's.
    assert_eq!(fs::read_to_string(home.path().join("two/tmp/me")).unwrap(), "two\n");
    fs::write(home.path().join("one/tmp/from-host"), "now").unwrap();
    assert_eq!(exec(&pod, "one", "e2", "cat /tmp/from-host").await.1, "now");

    pod.signal("one", "", 15, false).await.unwrap();
    let exit = pod.wait("one", "").await.unwrap();
    assert_eq!((exit.code, exit.oom_killed), (7, false));
    assert_eq!(one.all(), "ready\nbye\n");
    pod.delete("one").await.map_err(|error| chain::text(&error)).unwrap();
    assert!(matches!(pod.wait("one", "").await, Err(Error::NotFound(_))));
    assert!(matches!(pod.delete("one").await, Err(Error::NotFound(_))));
    // Its directory is the host's alone again, and an id can be used again.
    assert_eq!(fs::read_to_string(home.path().join("one/tmp/from-host")).unwrap(), "now");
    let rootfs = RootfsSource::Directory(home.path().join("one"));
    assert_eq!(run(&pod, container("one", rootfs, "cat /tmp/from-host", &[])).await.1, "now");
    stop(pod, &home).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_are_listed_paused_limited_and_forgotten() {
    let home = Home::new();
    let pod = home.start("work").await;
    let (_out, pid) = serve(&pod, &home, "c", SERVE, PidNamespace::Own).await;
    let created = pod.exec("c", "e", process("sleep 1000"), OUTPUT, None).await.unwrap();
    let listed = pod.processes("c").await.unwrap();
    let named =
        |pid: u32| listed.iter().find(|process| process.pid == pid).map(|process| process.exec_id.clone());
    assert_eq!((named(pid), named(created.pid)), (Some(String::new()), Some("e".to_owned())), "{listed:?}");

    let stats = pod.stats("c").await.unwrap();
    assert_eq!((stats.memory_limit_bytes, stats.pids_limit), (128 << 20, 200));
    assert!(
        stats.pids_current >= 2 && stats.memory_current_bytes > 0 && stats.memory_stat["anon"] > 0,
        "{stats:?}"
    );
    assert!(stats.cpu_usage_us > 0 && stats.memory_events["oom_kill"] == 0, "{stats:?}");
    let resources = json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 100}, "cpu": {"quota": 50_000, "period": 100_000}});
    let resources: LinuxResources = serde_json::from_value(resources).unwrap();
    pod.update("c", resources).await.map_err(|error| chain::text(&error)).unwrap();
    let stats = pod.stats("c").await.unwrap();
    assert_eq!((stats.memory_limit_bytes, stats.pids_limit), (64 << 20, 100));
    assert_eq!(exec(&pod, "c", "quota", "cat /sys/fs/cgroup/cpu.max").await.1, "50000 100000\n");

    pod.pause("c").await.unwrap();
    let before = pod.stats("c").await.unwrap().cpu_usage_us;
    assert!(matches!(pod.exec("c", "no", process("true"), OUTPUT, None).await, Err(Error::WrongState(_))));
    assert_eq!(pod.stats("c").await.unwrap().cpu_usage_us, before);
    pod.resume("c").await.unwrap();
    assert_eq!(exec(&pod, "c", "again", "echo on").await.1, "on\n");

    assert!(matches!(pod.delete_exec("c", "e").await, Err(Error::WrongState(_))));
    pod.signal("c", "e", 9, false).await.unwrap();
    let (code, ..) = outcome(&pod, "c", "e", created).await;
    assert_eq!(code, 137);
    pod.delete_exec("c", "e").await.unwrap();
    assert!(matches!(pod.wait("c", "e").await, Err(Error::NotFound(_))));
    assert_eq!(exec(&pod, "c", "e", "echo new").await.1, "new\n");

    // Paused ones can be ended, too.
    pod.pause("c").await.unwrap();
    pod.delete("c").await.map_err(|error| chain::text(&error)).unwrap();
    stop(pod, &home).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_by_half_close_and_terminals_have_a_size() {
    let home = Home::new();
    let pod = home.start("io").await;
    let root = RootfsSource::Directory(home.busybox("root"));
    let mut request = container("in", root.clone(), "wc -c", &[]);
    request.stdio = StdioFlags { stdin: true, ..OUTPUT };
    let mut created = pod.create(request).await.unwrap();
    pod.start_container("in").await.unwrap();
    let (mut stdin, _) = created.streams.stdin.take().unwrap().into_parts();
    stdin.write_all(&vec![b'x'; 3 << 20]).unwrap();
    stdin.shutdown(Shutdown::Write).unwrap();
    assert_eq!(outcome(&pod, "in", "", created).await.1.trim(), (3 << 20).to_string());
    pod.delete("in").await.unwrap();

    // Ids as long as containerd's.
    let (id, exec_id) = ("c".repeat(76), "e".repeat(76));
    let created = pod
        .create(container(&id, root, "sleep 1000", &[]))
        .await
        .map_err(|error| chain::text(&error))
        .unwrap();
    pod.start_container(&id).await.unwrap();
    let terminal = StdioFlags { stdin: true, stdout: true, stderr: false, terminal: true };
    let with_tty = pod.exec(&id, &exec_id, process("tty; read line; echo got $line"), terminal, None).await;
    let mut with_tty = with_tty.map_err(|error| chain::text(&error)).unwrap();
    pod.resize(&id, &exec_id, 30, 100).await.unwrap();
    let (mut stdin, _) = with_tty.streams.stdin.take().unwrap().into_parts();
    stdin.write_all(b"it\n").unwrap();
    let out = Text::of(with_tty.streams.stdout);
    assert_eq!(pod.wait(&id, &exec_id).await.unwrap().code, 0);
    let out = out.all();
    assert!(out.contains("/dev/pts/0\r\n") && out.ends_with("got it\r\n"), "{out:?}");
    drop(created);
    stop(pod, &home).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pods_containers_can_see_each_others_processes() {
    let home = Home::new();
    let pod = home.start("pids").await;
    let (_out, _) = serve(&pod, &home, "first", SERVE, PidNamespace::Pod).await;
    let names = "for dir in /proc/[0-9]*; do cat $dir/comm; done; readlink /proc/self/ns/pid";
    let mut request = container("second", RootfsSource::Directory(home.busybox("second")), names, &[]);
    request.pids = PidNamespace::Pod;
    let (_, together, err) = run(&pod, request).await;
    assert!(together.starts_with("pause\n") && together.contains("sh\n"), "{together}{err}");
    assert!(!together.contains("husk-agent") && !together.contains("kthreadd"), "{together}");

    let (_out, _) = serve(&pod, &home, "target", SERVE, PidNamespace::Own).await;
    let mut request =
        container("debug", RootfsSource::Directory(home.busybox("debug")), "cat /proc/1/cmdline", &[]);
    request.pids = PidNamespace::OfContainer("target".into());
    assert!(run(&pod, request).await.1.contains("trap"));
    let mut request = container("lost", RootfsSource::Directory(home.path().join("debug")), "true", &[]);
    request.pids = PidNamespace::OfContainer("nobody".into());
    assert!(matches!(pod.create(request).await, Err(Error::NotFound(_))));
    stop(pod, &home).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_that_is_free_again_goes_back_to_the_host() {
    const FILE: u64 = 100 << 20;
    let home = Home::new();
    let pod = home.start("memory").await;
    let used = || pod.usage().memory_current_bytes;
    let tmpfs = json!({"destination": "/memory", "type": "tmpfs", "source": "tmpfs"});
    let script = format!("head -c {FILE} /dev/zero > /memory/file; exec sleep 100000");
    let request = container("c", RootfsSource::Directory(home.busybox("c")), &script, &[tmpfs]);
    let _created = pod.create(request).await.map_err(|error| chain::text(&error)).unwrap();
    let before = used();
    assert!(before > 0, "the pod has no cgroup");
    pod.start_container("c").await.unwrap();
    // Some of it goes where the guest has had something before.
    wait_until("the file to be written", PATIENCE, || used() > before + FILE / 2);
    exec(&pod, "c", "e1", "rm /memory/file").await;
    wait_until("the host to have it back", PATIENCE, || used() < before + FILE / 4);
    stop(pod, &home).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_made_leaves_nothing() {
    let home = Home::new();
    let pod = home.start("errors").await;
    let root = RootfsSource::Directory(home.busybox("root"));
    let refused = async |mounts: &[serde_json::Value]| {
        chain::text(&pod.create(container("c", root.clone(), "true", mounts)).await.unwrap_err())
    };
    let missing = refused(&[bind(Path::new("/no/such/file"), "/data", &["rbind"])]).await;
    assert_eq!(missing, "cannot mount /no/such/file on /data: No such file or directory (os error 2)");
    let socket = home.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let message = refused(&[bind(&socket, "/run/docker.sock", &["rbind"])]).await;
    assert!(message.contains("it is a socket, which does not reach into a virtual machine"), "{message}");
    let message = refused(&[bind(Path::new("/dev/null"), "/x", &["bind"])]).await;
    assert!(message.contains("it is a device"), "{message}");
    let message = refused(&[json!({"destination": "/x", "type": "nfs", "source": "server:/"})]).await;
    assert!(message.contains(r#"file system of type "nfs" on /x"#), "{message}");
    let nowhere = RootfsSource::Directory(home.path().join("nowhere"));
    let message = chain::text(&pod.create(container("c", nowhere, "true", &[])).await.unwrap_err());
    assert!(message.ends_with("nowhere: No such file or directory (os error 2)"), "{message}");
    let mut no_program = container("c", root.clone(), "true", &[]);
    no_program.spec.process_mut().as_mut().unwrap().set_args(Some(vec!["none".into()]));
    assert!(matches!(pod.create(no_program).await, Err(Error::ExecutableNotFound(_))));
    // None of this stands in the way of a good one of the same id.
    assert_eq!(run(&pod, container("c", root.clone(), "echo fine", &[])).await.1, "fine\n");
    let created = pod.create(container("c", root.clone(), "true", &[])).await.unwrap();
    assert!(matches!(pod.create(container("c", root, "true", &[])).await, Err(Error::AlreadyExists(_))));
    drop(created);
    let again = home.try_start("errors", home.options()).await;
    assert!(matches!(again, Err(Error::NameInUse { .. })));
    stop(pod, &home).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_spec_says_applies_in_the_machine() {
    let home = Home::new();
    let pod = home.start("spec").await;
    pod.set_sysctls([("kernel.shmmax".into(), "98765".into())].into()).await.unwrap();
    let script = "cat /proc/sys/kernel/shmmax /proc/sys/kernel/shmmni /proc/sys/fs/mqueue/msg_max /proc/sys/net/ipv4/ip_unprivileged_port_start; \
        ulimit -n; id -u; id -G; echo x > /file || echo read-only; stat -f -c %b /dev/shm; touch /dev/shm/x; \
        cat /proc/self/oom_score_adj; mkdir /dev/shm/d || echo filtered; wc -c < /proc/version; echo $HOME";
    let mounts = [json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
        "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=1m"]})];
    let mut request = container("c", RootfsSource::Directory(home.busybox("root")), script, &mounts);
    let mut spec = serde_json::to_value(&request.spec).unwrap();
    spec["root"]["readonly"] = true.into();
    spec["process"]["user"] = json!({"uid": 33, "gid": 33, "additionalGids": [33, 1001]});
    spec["process"]["oomScoreAdj"] = 500.into();
    spec["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 1000, "hard": 2000}]);
    spec["linux"]["sysctl"] = json!({"kernel.shmmni": "1234", "fs.mqueue.msg_max": "77", "net.ipv4.ip_unprivileged_port_start": "555"});
    spec["linux"]["maskedPaths"] = json!(["/proc/version"]);
    spec["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]});
    request.spec = serde_json::from_value(spec).unwrap();
    let (_, out, err) = run(&pod, request).await;
    assert_eq!(
        out, "98765\n1234\n77\n555\n1000\n33\n33 1001\nread-only\n256\n500\nfiltered\n0\n/tmp\n",
        "{err}"
    );
    stop(pod, &home).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_given_network_namespace_and_cgroup_are_used() {
    let home = Home::new();
    let name = format!("pod-{}", std::process::id());
    let script = format!(
        "ip netns add {name} && ip link add {name} type veth peer name eth0 netns {name} && \
         ip addr add 10.98.7.1/24 dev {name} && ip link set {name} up && \
         ip -n {name} addr add 10.98.7.2/24 dev eth0 && ip -n {name} link set eth0 up"
    );
    assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
    let cgroup = Path::new("/sys/fs/cgroup").join(&name);
    fs::create_dir(&cgroup).unwrap();
    let mut options = home.options();
    options.network = PodNetwork::Namespace { path: Path::new("/run/netns").join(&name), resolv_conf: None };
    options.cgroup = Some(cgroup.clone());
    let pod = home.try_start("given", options).await.map_err(|error| chain::text(&error)).unwrap();
    let procs = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap();
    let mut programs: Vec<_> = procs
        .lines()
        .map(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap().trim().to_owned())
        .collect();
    // KVM's kernel thread goes where the VM is.
    programs.retain(|name| !name.starts_with("kvm-"));
    programs.sort();
    // Their parents, which only wait, are outside.
    assert_eq!(programs, ["husk-fs", "husk-vmm"]);

    let listener = tokio::net::TcpListener::bind("10.98.7.1:8099").await.unwrap();
    let script = "ip -4 addr show eth0 | grep -c 10.98.7.2/24; echo hello | nc 10.98.7.1 8099";
    let request = container("c", RootfsSource::Directory(home.busybox("root")), script, &[]);
    let heard = async {
        let (mut stream, from) = listener.accept().await.unwrap();
        let mut text = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut text).await.unwrap();
        (from.ip().to_string(), text)
    };
    let (ran, heard) = tokio::join!(run(&pod, request), heard);
    assert_eq!((ran.0, ran.1.as_str()), (0, "1\n"), "{}", ran.2);
    assert_eq!(heard, ("10.98.7.2".into(), "hello\n".into()));
    stop(pod, &home).await;
    // Whoever made them removes them.
    fs::remove_dir(&cgroup).unwrap();
    let script = format!("ip netns del {name}; ip link del {name} 2>/dev/null || true");
    assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
}
