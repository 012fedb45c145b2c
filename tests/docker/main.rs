//! End-to-end tests with Docker: its commands as people use them, with runc's answers as the measure.
#![expect(clippy::unwrap_used, reason = "it is a test")]

mod beside;

use std::{fs, process::Command};

use husk_tests::{
    containerd::assert_nothing_left,
    docker::{HUSK, IMAGE, LARGE, RUNC, detached, docker, dockerd, get, machines, run, say},
    process::Running,
    pty::Terminal,
    wait::{PATIENCE, wait_until},
};

const SERVE: &str = "mkdir -p /www; echo page > /www/index.html; echo started; exec httpd -f -p 80 -h /www";

/// A static busybox can't look names up itself, but has a program that can.
const LOOK_UP: &str = "get() { wget -q -O - http://$(nslookup -type=a $1. | awk '/^Address/ { last = $2 } END { print last }')/; };";

/// The same with both runtimes: what it says and how it ends.
#[track_caller]
fn same(options: &[&str], script: &str) -> String {
    let outputs = [RUNC, HUSK].map(|runtime| {
        let output = run(runtime, options, script);
        (output.code, output.out(), output.err())
    });
    assert_eq!(outputs[0], outputs[1], "{options:?} {script}");
    outputs[1].1.clone()
}

#[test]
fn a_container_has_its_network_when_it_starts() {
    dockerd();
    let script = "ip -4 addr show eth0 | grep inet; ip route; cat /proc/sys/net/ipv6/conf/eth0/disable_ipv6; \
        ping -c 1 -W 5 172.17.0.1 | grep received";
    let said = same(&[], script);
    assert!(said.contains("default via 172.17.0.1") && said.contains("1 packets received"), "{said}");
    same(&["--net", "none"], "ip route; ls /sys/class/net");

    detached("web", &["-p", "8080:80"], SERVE);
    wait_until("the server", PATIENCE, || say(&["logs", "web"]).contains("started"));
    assert_eq!(get("127.0.0.1:8080"), "page");
    let address = say(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "web"]);
    assert_eq!(get(&format!("{}:80", address.trim())), "page");

    docker(&["network", "create", "later"]).expect_code(0);
    docker(&["network", "connect", "later", "web"]).expect_code(0);
    let second = || docker(&["exec", "web", "ip", "-4", "addr", "show", "eth1"]).out();
    wait_until("the second network", PATIENCE, || second().contains("inet 172.18."));
    docker(&["network", "disconnect", "later", "web"]).expect_code(0);
    wait_until("no second network", PATIENCE, || !second().contains("inet "));
    docker(&["rm", "-f", "web"]).expect_code(0);
    docker(&["network", "rm", "later"]).expect_code(0);

    let refused = run(HUSK, &["--net", "host"], "true");
    assert_eq!(refused.code, 125);
    assert!(refused.err().contains("wants the host's own network"), "{}", refused.err());
    assert_nothing_left();
}

#[test]
fn names_of_a_network_are_found() {
    dockerd();
    docker(&["network", "create", "names"]).expect_code(0);
    detached("server", &["--network", "names", "--network-alias", "alias"], SERVE);
    for name in ["server", "alias"] {
        let said = same(&["--network", "names"], &format!("nslookup -type=a {name}. | grep -A 1 '^Name'"));
        assert!(said.contains("172."), "{said}");
    }
    let output = run(HUSK, &["--network", "names"], &format!("{LOOK_UP} get server"));
    assert_eq!((output.code, output.out().as_str()), (0, "page\n"), "{}", output.err());

    // Also when a container is connected after its start, and had no such network before.
    detached("late", &[], "sleep 100000");
    assert!(!say(&["exec", "late", "cat", "/etc/resolv.conf"]).contains("127.0.0.11"));
    docker(&["network", "connect", "names", "late"]).expect_code(0);
    let found = || docker(&["exec", "late", "nslookup", "-type=a", "server."]).out();
    wait_until("the name to be found", PATIENCE, || found().contains("172."));
    let page = docker(&["exec", "late", "sh", "-c", &format!("{LOOK_UP} get alias")]);
    assert_eq!((page.code, page.out().as_str()), (0, "page\n"), "{}", page.err());

    docker(&["rm", "-f", "server", "late"]).expect_code(0);
    docker(&["network", "rm", "names"]).expect_code(0);
    assert_nothing_left();
}

#[test]
fn containers_of_one_network_are_in_one_machine() {
    dockerd();
    detached("owner", &[], SERVE);
    wait_until("the server", PATIENCE, || say(&["logs", "owner"]).contains("started"));
    let address = "ip -4 addr show eth0 | grep inet";
    let own = say(&["exec", "owner", "sh", "-c", address]);
    let script = format!("{address}; wget -q -O - http://127.0.0.1/");
    let joined = run(HUSK, &["--network", "container:owner"], &script).expect_code(0);
    assert_eq!(joined.out(), format!("{own}page\n"));

    let both = ["--network", "container:owner", "--pid", "container:owner"];
    assert!(run(HUSK, &both, "ps").expect_code(0).out().contains("httpd"));
    detached("side", &["--network", "container:owner"], "sleep 100000");
    assert_eq!(machines(), 1);
    let alone = run(HUSK, &["--pid", "container:owner"], "true");
    assert_eq!(alone.code, 125);
    assert!(alone.err().contains("--network container:ID"), "{}", alone.err());

    // As with runc: who comes back has a network of its own.
    docker(&["restart", "-t", "1", "owner"]).expect_code(0);
    docker(&["exec", "owner", "wget", "-q", "-O", "-", "http://127.0.0.1/"]).expect_out("page\n");
    docker(&["exec", "side", "true"]).expect_code(0);
    assert_eq!(machines(), 2);
    docker(&["rm", "-f", "side", "owner"]).expect_code(0);

    docker(&["run", "-d", "--name", "other", IMAGE, "sleep", "100000"]).expect_code(0);
    let refused = run(HUSK, &["--network", "container:other"], "true");
    assert_eq!(refused.code, 125);
    assert!(refused.err().contains("no container of husk's"), "{}", refused.err());
    docker(&["rm", "-f", "other"]).expect_code(0);
    assert_nothing_left();
}

#[test]
fn options_mean_what_they_do_with_runc() {
    dockerd();
    let options = [
        "--hostname hh --add-host foo:1.2.3.4 --dns 9.9.9.9 --dns-search x.y --user 33:44 --group-add 55",
        "--ulimit nofile=1234 --memory 64m --pids-limit 33 --cpus 0.5 --read-only --tmpfs /t:size=1m",
        "--sysctl net.ipv4.ip_unprivileged_port_start=80 --security-opt no-new-privileges --cap-drop ALL",
        "--cap-add NET_RAW -e A=b -w /tmp --shm-size 8m",
    ]
    .join(" ");
    let script = "hostname; grep foo /etc/hosts; grep -v '^#' /etc/resolv.conf; id; ulimit -n; touch /x; \
        touch /t/x && echo ok; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; echo $A; pwd; \
        grep -E 'NoNewPrivs|CapEff|CapBnd|Seccomp:' /proc/self/status; df /t /dev/shm | awk '{ print $2, $6 }'; \
        cd /sys/fs/cgroup; cat memory.max pids.max cpu.max";
    same(&options.split(' ').collect::<Vec<_>>(), script);
    same(&["--security-opt", "seccomp=unconfined"], "grep Seccomp: /proc/self/status");
    same(&["--init"], "cat /proc/1/comm");

    fs::create_dir_all("/tmp/bind").unwrap();
    fs::write("/tmp/bind/file", "bound\n").unwrap();
    let volumes = ["-v", "kept:/v", "-v", "/tmp/bind:/b", "-v", "/tmp/bind/file:/etc/f:ro"];
    let script = "cat /b/file /etc/f; echo x > /etc/f; echo made > /b/made; echo kept > /v/kept; cat /v/kept";
    same(&volumes, script);
    assert_eq!(fs::read_to_string("/tmp/bind/made").unwrap(), "made\n");
    docker(&["volume", "rm", "kept"]).expect_code(0);

    fs::create_dir_all("/etc/husk").unwrap();
    fs::write(LARGE, "[pod]\nvcpus = 2\n").unwrap();
    run("husk-large", &[], "nproc").expect_code(0).expect_out("2\n");

    let all = run(HUSK, &["--privileged"], "mkdir /m; mount -t tmpfs x /m && echo mounted").expect_code(0);
    assert_eq!(all.out(), "mounted\n");
    assert_nothing_left();
}

#[test]
fn a_containers_life_is_runcs() {
    dockerd();
    for (script, code) in [("exit 7", 7), ("kill -9 $$; echo first process", 0)] {
        assert_eq!(run(HUSK, &[], script).code, code, "{script}");
    }
    for (program, code) in [("no-such-program", 127), ("/etc/passwd", 126)] {
        let output = docker(&["run", "--rm", "--runtime", HUSK, IMAGE, program]);
        assert_eq!(output.code, code, "{}", output.err());
    }
    let mut cat = Command::new("docker");
    cat.args(["run", "-i", "--rm", "--runtime", HUSK, IMAGE, "cat"]);
    let mut cat = Running::start(&mut cat);
    cat.write(b"all of it");
    cat.close_stdin();
    cat.finish().expect_out("all of it");

    detached(
        "life",
        &["--stop-signal", "USR1"],
        "trap 'echo stopping; exit 3' USR1; echo first; while :; do sleep 1; done",
    );
    wait_until("its output", PATIENCE, || say(&["logs", "life"]).contains("first"));
    docker(&["exec", "life", "sh", "-c", "echo inner > /made; exit 5"]).expect_code(5);
    let mut command = Command::new("docker");
    command.args(["exec", "-it", "life", "sh", "-c", "echo ready $(stty size) $(tty)"]);
    let (mut terminal, running) = Terminal::start(command, 33, 101);
    terminal.wait_for("ready 33 101 /dev/pts/0");
    terminal.finish(running).expect_code(0);

    fs::write("/tmp/outer", "outer\n").unwrap();
    docker(&["cp", "/tmp/outer", "life:/outer"]).expect_code(0);
    docker(&["exec", "life", "cat", "/outer"]).expect_out("outer\n");
    docker(&["cp", "life:/made", "/tmp/made"]).expect_code(0);
    assert_eq!(fs::read_to_string("/tmp/made").unwrap(), "inner\n");
    assert!(say(&["diff", "life"]).contains("A /made"));

    docker(&["pause", "life"]).expect_code(0);
    assert_eq!(say(&["inspect", "-f", "{{.State.Status}}", "life"]), "paused\n");
    docker(&["unpause", "life"]).expect_code(0);
    let stats = say(&["stats", "--no-stream", "--format", "{{.PIDs}} {{.MemUsage}} {{.NetIO}}", "life"]);
    assert!(stats.starts_with(['1', '2']) && stats.contains("iB /"), "{stats}");
    let top = say(&["top", "life"]);
    assert_eq!(top.lines().count(), 1, "no process of the host: {top}");
    docker(&["commit", "life", "committed"]).expect_code(0);
    docker(&["stop", "life"]).expect_code(0);
    assert_eq!(say(&["inspect", "-f", "{{.State.ExitCode}}", "life"]), "3\n");
    assert!(say(&["logs", "life"]).ends_with("stopping\n"));
    docker(&["start", "life"]).expect_code(0);
    docker(&["exec", "life", "cat", "/made"]).expect_out("inner\n");
    docker(&["restart", "-t", "1", "life"]).expect_code(0);
    docker(&["kill", "life"]).expect_code(0);
    docker(&["wait", "life"]).expect_out("137\n");
    docker(&["rm", "life"]).expect_code(0);
    docker(&["run", "--rm", "--runtime", HUSK, "committed", "cat", "/made"]).expect_out("inner\n");

    detached("again", &["--restart", "on-failure:2"], "echo try; exit 3");
    let tries = || say(&["inspect", "-f", "{{.RestartCount}} {{.State.Status}}", "again"]);
    wait_until("two more tries", PATIENCE, || tries() == "2 exited\n");
    assert_eq!(say(&["logs", "again"]), "try\n".repeat(3));
    docker(&["rm", "again"]).expect_code(0);
    assert_nothing_left();
}

#[test]
fn compose_runs_three_services() {
    dockerd();
    let dir = tempfile::tempdir().unwrap();
    let service = |script: &str, rest: &str| {
        format!("    image: {IMAGE}\n    runtime: {HUSK}\n    command: [\"sh\", \"-c\", {script:?}]\n{rest}")
    };
    let file = format!(
        "services:\n  db:\n{}  web:\n{}  check:\n{}volumes:\n  data:\n",
        service(SERVE, "    volumes: [\"data:/www\"]\n"),
        service(SERVE, "    ports: [\"8081:80\"]\n    depends_on: [db]\n"),
        service(
            &format!("{LOOK_UP} until get db && get web; do sleep 1; done; echo checked").replace('$', "$$"),
            "    depends_on: [web]\n"
        ),
    );
    let path = dir.path().join("compose.yaml");
    fs::write(&path, file).unwrap();
    let path = path.to_str().unwrap();
    let compose = |args: &[&str]| docker(&[&["compose", "-f", path, "-p", "three"], args].concat());
    compose(&["up", "-d"]).expect_code(0);
    wait_until("the check", PATIENCE, || {
        compose(&["logs", "--no-log-prefix", "check"]).out().contains("checked")
    });
    assert_eq!(get("127.0.0.1:8081"), "page");
    assert_eq!(machines(), 2);
    compose(&["down", "-v", "-t", "1"]).expect_code(0);
    assert_nothing_left();
}
