//! A pod's life: its name, its network, its containers one after the other, and their ends.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    process::Command,
};

use husk_tests::{
    containerd::{assert_nothing_left, processes},
    process::Running,
    wait::{PATIENCE, wait_until},
};
use k8s_cri::v1::{
    ContainerState, ListPodSandboxRequest, NamespaceMode, PodSandboxFilter, PodSandboxState, PortMapping,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid as ProcessId,
};

use crate::fixture::{Pod, STOPS_BY_USR1, cri, restart_containerd, with_security};

const HOST_PORT: u16 = 18080;

#[test]
fn a_pod_has_its_names_its_network_and_its_settings() {
    let pod = Pod::run("names", |config| {
        config.hostname = "web-0".into();
        config.labels.insert("app".into(), "web".into());
        config.annotations.insert("io.husk.vcpus".into(), "2".into());
        config.port_mappings =
            vec![PortMapping { container_port: 80, host_port: HOST_PORT.into(), ..Default::default() }];
        let linux = config.linux.as_mut().unwrap();
        linux.sysctls.insert("net.ipv4.tcp_keepalive_time".into(), "77".into());
        linux.sysctls.insert("kernel.shm_rmid_forced".into(), "1".into());
    });
    let status = pod.status();
    assert_eq!((status.state(), status.runtime_handler.as_str()), (PodSandboxState::SandboxReady, "husk"));
    let filter = PodSandboxFilter {
        label_selector: [("app".to_owned(), "web".to_owned())].into(),
        ..Default::default()
    };
    let request = ListPodSandboxRequest { filter: Some(filter) };
    let listed = cri().call(|mut client| async move { client.list_pod_sandbox(request).await }).unwrap();
    assert_eq!(listed.items.iter().map(|pod| pod.id.as_str()).collect::<Vec<_>>(), [pod.id.as_str()]);
    let network = status.network.unwrap();
    assert!(network.ip.starts_with("10.88."), "{network:?}");

    let web =
        pod.container("web", "mkdir -p /www && echo page > /www/index.html && exec httpd -f -h /www", |_| {});
    assert_eq!(web.says("hostname; cat /etc/hostname; nproc"), "web-0\nweb-0\n2");
    let resolv = "search default.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5";
    assert_eq!(web.says("cat /etc/resolv.conf"), resolv);
    assert_eq!(
        web.says("cat /proc/sys/net/ipv4/tcp_keepalive_time /proc/sys/kernel/shm_rmid_forced"),
        "77\n1"
    );
    assert_eq!(web.says("cat /proc/sys/net/ipv4/ip_unprivileged_port_start"), "0");
    let addresses = web.says("ip -o addr show dev eth0");
    assert!(addresses.contains(&network.ip) && addresses.contains("fd00:88::"), "{addresses}");
    assert_eq!(network.additional_ips.len(), 1);
    assert_eq!(web.says("cat /sys/class/net/eth0/mtu"), "1400");

    // From the node: by the pod's address, and by the port of the node.
    let node = Running::start(Command::new("ip").args(["-4", "-o", "addr", "show", "dev", "cni0"])).finish();
    let node = node.expect_code(0).out();
    let node = node.split_whitespace().nth(3).unwrap().split('/').next().unwrap().to_owned();
    for (host, port) in [(network.ip.as_str(), 80), (node.as_str(), HOST_PORT), ("127.0.0.1", HOST_PORT)] {
        let mut page =
            TcpStream::connect((host, port)).unwrap_or_else(|error| panic!("{host}:{port}: {error}"));
        page.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        page.read_to_string(&mut text).unwrap();
        assert!(text.ends_with("page\n"), "{host}:{port}: {text}");
    }
    // From the pod: its node, by IPv4 and IPv6.
    assert_eq!(web.exec(&format!("ping -c 1 -W 20 {node}")).0, 0);
    assert_eq!(web.exec("ping -6 -c 1 -W 20 fd00:88::1").0, 0);
    pod.remove();
    assert_nothing_left();
}

#[test]
fn containers_come_and_go_and_share_what_they_should() {
    let pod = Pod::run("several", |_| {});
    let init = pod.container("init", "echo prepared; echo problem >&2; printf unfinished; exit 3", |_| {});
    let ended = init.ended();
    assert_eq!((ended.exit_code, ended.reason.as_str()), (3, "Error"));
    assert!(ended.finished_at >= ended.started_at && ended.started_at >= ended.created_at);
    for line in ["stdout F prepared", "stderr F problem", "stdout P unfinished"] {
        init.wait_for_log(line);
    }
    init.remove();
    let done = pod.container("init-2", "true", |_| {});
    assert_eq!((done.ended().exit_code, done.ended().reason.as_str()), (0, "Completed"));

    let first = pod.idle("first", |_| {});
    let second = pod.idle("second", |_| {});
    let boot = "cat /proc/sys/kernel/random/boot_id";
    assert_eq!(first.says(boot), second.says(boot));
    // Network, host name and IPC are the pod's, processes and files each container's own.
    first.says(
        "mkdir /www && echo over loopback > /www/index.html && httpd -p 127.0.0.1:99 -h /www \
         && echo x > /dev/shm/x && echo x > /own",
    );
    assert_eq!(second.says("wget -q -O - http://127.0.0.1:99/"), "over loopback");
    assert_eq!(second.says("cat /dev/shm/x; ls /own 2>/dev/null || echo none"), "x\nnone");
    assert_eq!(second.says("set -- /proc/[0-9]*; echo $#; cat /proc/1/comm"), "2\nsleep");
    assert_eq!(first.says("hostname"), "several");

    // A program without input has one that is at its end, and all three streams.
    assert_eq!(
        first.says("cat; readlink /proc/self/fd/0; [ -e /proc/$$/fd/0 ] && echo open"),
        "/dev/null\nopen"
    );

    // Exec: codes, streams, and a time limit.
    assert_eq!(first.exec("echo out; echo err >&2; exit 42"), (42, "out\n".into(), "err\n".into()));
    assert_eq!(first.try_exec("sleep 1000", 1).unwrap_err().code(), tonic::Code::DeadlineExceeded);
    wait_until("the program to be gone", PATIENCE, || first.exec("pidof -o 1 sleep").0 == 1);
    let (code, out, _) = first.exec("dd if=/dev/zero bs=1M count=2 2>/dev/null");
    assert_eq!((code, out.len()), (0, 2 << 20));

    // One that is asked to stop does; one that does not is killed; one has its own signal for it.
    let polite = pod.container(
        "polite",
        "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 1; done",
        |_| {},
    );
    polite.wait_for_log("stdout F ready");
    polite.stop(100);
    assert_eq!(polite.status().exit_code, 5);
    polite.wait_for_log("stdout F bye");
    let deaf = pod.container("deaf", "trap '' TERM; echo ready; while :; do sleep 1; done", |_| {});
    deaf.wait_for_log("stdout F ready");
    deaf.stop(1);
    assert_eq!(deaf.status().exit_code, 137);
    let own = pod.container("own", "trap 'exit 6' USR1; echo ready; while :; do sleep 1; done", |config| {
        config.image.as_mut().unwrap().image = STOPS_BY_USR1.into();
    });
    own.wait_for_log("stdout F ready");
    own.stop(100);
    assert_eq!(own.status().exit_code, 6);
    let missing = pod.try_container("missing", "", |config| config.command = vec!["no-such-program".into()]);
    let missing = missing.err().unwrap();
    assert!(missing.message().contains("executable file not found"), "{missing}");

    // A containerd that was away finds all as it was.
    restart_containerd();
    assert_eq!(first.status().state(), ContainerState::ContainerRunning);
    assert_eq!(first.says("echo again"), "again");
    pod.remove();
    assert_nothing_left();
}

#[test]
fn processes_are_shared_when_the_pod_says_so_and_an_ended_vm_ends_all() {
    let pod = Pod::run("processes", |config| {
        let context = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
        context.namespace_options.as_mut().unwrap().pid = NamespaceMode::Pod.into();
    });
    let shared = |config: &mut _| {
        with_security(config, |context| {
            context.namespace_options.as_mut().unwrap().pid = NamespaceMode::Pod.into();
        });
    };
    let server = pod.container("server", "exec sleep 12345", shared);
    let debugger = pod.idle("debugger", shared);
    let seen = debugger.says("pidof sleep | tr ' ' '\\n' | while read -r pid; do grep -q 12345 /proc/$pid/cmdline && echo $pid; done");
    assert_ne!(seen, "1");
    // An ephemeral container that sees the processes of one container.
    let own = pod.container("own", "exec sleep 54321", |_| {});
    let ephemeral = pod.idle("ephemeral", |config| {
        with_security(config, |context| {
            let options = context.namespace_options.as_mut().unwrap();
            options.pid = NamespaceMode::Target.into();
            options.target_id = own.id.clone();
        });
    });
    assert_eq!(ephemeral.says("cat /proc/1/cmdline | tr '\\0' ' '"), "sleep 54321");
    assert_eq!(debugger.exec(&format!("kill -TERM {seen}")).0, 0);
    assert_eq!(server.ended().exit_code, 143);

    let vms: Vec<i32> = processes("libexec/husk/husk-vmm").iter().map(|(pid, _)| *pid).collect();
    assert!(!vms.is_empty());
    for pid in vms {
        let _ = kill(ProcessId::from_raw(pid), Signal::SIGKILL);
    }
    assert_eq!(debugger.ended().exit_code, 137);
    wait_until("the pod to be lost", PATIENCE, || pod.status().state() == PodSandboxState::SandboxNotready);
    pod.remove();
    assert_nothing_left();
    assert!(fs::read_dir("/sys/fs/cgroup/kubepods").unwrap().flatten().all(|entry| entry.path().is_file()));
}
