//! Containers as a pod has them: roots and volumes from the shared directory, shared processes, pauses.

use std::{fs, path::Path};

use husk_protocol::{
    StdioKind,
    agent::{ContainerRef, CreateContainerRequest, ProcessRef, RootFs, Sysctls, root_fs::Root},
    shared,
};
use nix::mount::{MsFlags, mount};

use super::{
    containers::{guest_tests, message},
    guest::{BASE, Guest, container, context, exec, id, in_guest, request, sh, spec},
};

const NONE: Option<&str> = None;

/// What the host shares with this test's container.
fn share() -> String {
    let own = format!("{}/{}", shared::PATH, id());
    fs::create_dir_all(shared::PATH).unwrap();
    mount(Some("tmpfs"), shared::PATH, Some("tmpfs"), MsFlags::empty(), NONE).unwrap();
    for (source, target) in [(BASE, "rootfs"), ("/run/data", "mounts/0")] {
        let target = Path::new(&own).join(target);
        for path in [Path::new(source), &target] {
            fs::create_dir_all(path).unwrap();
        }
        mount(Some(source), &target, NONE, MsFlags::MS_BIND, NONE).unwrap();
    }
    own
}

fn shared_dir(dir: String) -> RootFs {
    RootFs { root: Some(Root::SharedDir(dir)), ..Default::default() }
}

fn shared_root() -> RootFs {
    shared_dir(format!("{}/rootfs", id()))
}

fn mounts_below(path: &str) -> usize {
    fs::read_to_string("/proc/self/mountinfo").unwrap().matches(&format!(" {path}/")).count()
}

guest_tests! {
    async fn roots_and_volumes_are_shared_and_let_go(guest: Guest) {
        let own = share();
        fs::write("/run/data/file", "of the host").unwrap();
        let mut spec = spec(&["sh", "-c", "cat /data/file; echo x > /data/made; echo y > /tmp/y; id -G"]);
        spec["process"]["user"]["additionalGids"] = serde_json::json!([]);
        spec["mounts"].as_array_mut().unwrap().push(serde_json::json!({
            "destination": "/data", "type": "bind", "source": format!("{own}/mounts/0"), "options": ["rbind", "rprivate"],
        }));
        let mut request = request(&spec);
        request.rootfs = Some(shared_root()).into();
        let (_, out, err) = guest.run(&request).await;
        // A user without groups has none, whatever /etc/group says.
        assert_eq!(out, "of the host0\n", "{err}");
        assert_eq!(fs::read_to_string("/run/data/made").unwrap(), "x\n");
        assert_eq!(fs::read_to_string(Path::new(BASE).join("tmp/y")).unwrap(), "y\n");
        assert_eq!(mounts_below(&own), 2);
        guest.delete().await;
        assert_eq!(mounts_below(&own), 0);
        assert!(Path::new("/run/data/made").exists());

        for bad in ["../etc", "/etc", "none/rootfs"] {
            let mut request = sh("true");
            request.rootfs = Some(shared_dir(bad.to_owned())).into();
            assert!(guest.create(&request).await.is_err(), "{bad}");
        }
    }

    async fn processes_can_be_shared_with_others(guest: Guest) {
        let shares = |name: &str, script: &str| {
            let mut spec = spec(&["sh", "-c", script]);
            spec["linux"]["namespaces"][0]["path"] = shared::PID_NAMESPACE.into();
            CreateContainerRequest { container_id: name.to_owned(), ..request(&spec) }
        };
        guest.create(&shares(&id(), "echo ready; while :; do sleep 1; done")).await.unwrap();
        guest.start().await;
        assert_eq!(&read(&guest, 6).await, "ready\n");
        let (code, out) = guest.exec(&exec("e", &["sh", "-c", "cat /proc/1/comm; sleep 1000 >/dev/null 2>&1 & exit 3"])).await.unwrap();
        assert_eq!((code, out.as_str()), (3, "pause\n"));
        // The other sees them all.
        let other = format!("{}-b", id());
        let list = shares(&other, "cat /proc/[0-9]*/comm");
        guest.create(&list).await.unwrap();
        let other = ContainerRef { container_id: other, ..Default::default() };
        guest.api.start_container(context(), &other).await.unwrap();
        let seen = guest.output("", StdioKind::Stdout).await;
        for name in ["pause", "sh", "sleep"] {
            assert!(seen.lines().any(|line| line == name), "{name}: {seen}");
        }
        guest.api.delete_container(context(), &other).await.unwrap();
        guest.delete().await;
    }

    async fn settings_are_the_pods(guest: Guest) {
        let set = async |name: &str, value: &str| {
            let values = [(name.to_owned(), value.to_owned())].into();
            guest.api.set_sysctls(context(), &Sysctls { values, ..Default::default() }).await
        };
        set("kernel.shmmni", "1234").await.unwrap();
        set("net.ipv4.ip_unprivileged_port_start", "555").await.unwrap();
        for name in ["kernel.hostname", "kernel.core_pattern", "vm.overcommit_memory", "kernel.shmmni/../x"] {
            assert_eq!(message(set(name, "1").await).0, ttrpc::Code::INVALID_ARGUMENT, "{name}");
        }
        let script = "cat /proc/sys/kernel/shmmni /proc/sys/net/ipv4/ip_unprivileged_port_start";
        let mut spec = spec(&["sh", "-c", script]);
        spec["linux"]["namespaces"] = serde_json::json!([{"type": "pid"}, {"type": "mount"}]);
        spec.as_object_mut().unwrap().remove("hostname");
        assert_eq!(guest.run(&request(&spec)).await.1, "1234\n555\n");
        guest.delete().await;
    }

    async fn processes_are_listed_paused_and_forgotten(guest: Guest) {
        guest.create(&sh("echo ready; while :; do sleep 0.01; done")).await.unwrap();
        guest.start().await;
        assert_eq!(&read(&guest, 6).await, "ready\n");
        let created = guest.api.exec(context(), &exec("e", &["sleep", "1000"])).await.unwrap();
        let list = guest.api.list_processes(context(), &container()).await.unwrap().processes;
        let execs: Vec<_> = list.iter().filter(|process| process.exec_id == "e").map(|process| process.pid).collect();
        assert_eq!(execs, [created.pid]);
        let first = list.iter().find(|process| process.exec_id.is_empty()).unwrap();
        assert!(first.command.starts_with("sh -c echo ready; "), "{first}");
        let exec_process = list.iter().find(|process| process.exec_id == "e").unwrap();
        assert_eq!((exec_process.command.as_str(), exec_process.ppid), ("sleep 1000", std::process::id()));
        assert_eq!((exec_process.uid, exec_process.user.as_str(), exec_process.tty.as_str()), (0, "root", ""));
        assert!(exec_process.started_unix_ms >= first.started_unix_ms && first.started_unix_ms > 1_600_000_000_000);

        guest.api.pause(context(), &container()).await.unwrap();
        let used = async || guest.api.stats(context(), &container()).await.unwrap().cpu_usage_us;
        let before = used().await;
        let (code, text) = message(guest.api.exec(context(), &exec("no", &["true"])).await);
        assert_eq!((code, text.as_str()), (ttrpc::Code::FAILED_PRECONDITION, "the container is paused"));
        assert_eq!(used().await, before);
        guest.api.resume(context(), &container()).await.unwrap();
        assert_eq!(guest.exec(&exec("yes", &["echo", "on"])).await.unwrap().1, "on\n");

        let forget = async |exec_id: &str| {
            let process = ProcessRef { container_id: id(), exec_id: exec_id.into(), ..Default::default() };
            guest.api.delete_process(context(), &process).await
        };
        assert_eq!(message(forget("e").await).0, ttrpc::Code::FAILED_PRECONDITION);
        assert_eq!(message(forget("").await).0, ttrpc::Code::INVALID_ARGUMENT);
        assert_eq!(message(forget("none").await).0, ttrpc::Code::NOT_FOUND);
        forget("yes").await.unwrap();
        assert_eq!(guest.exec(&exec("yes", &["echo", "anew"])).await.unwrap().1, "anew\n");
        assert_eq!(message(update(&guest, "{").await).0, ttrpc::Code::INVALID_ARGUMENT);
        update(&guest, "{}").await.unwrap();
        // A container that stands still ends all the same.
        guest.api.pause(context(), &container()).await.unwrap();
        guest.delete().await;
        assert_eq!(message(guest.api.pause(context(), &container()).await).0, ttrpc::Code::NOT_FOUND);
    }
}

async fn update(guest: &Guest, resources: &str) -> ttrpc::Result<husk_protocol::agent::Empty> {
    let request = husk_protocol::agent::UpdateRequest {
        container_id: id(),
        resources_json: resources.into(),
        ..Default::default()
    };
    guest.api.update(context(), &request).await
}

/// The next bytes of the container's output.
async fn read(guest: &Guest, len: usize) -> String {
    let mut text = vec![0; len];
    let mut stream = guest.stream("", StdioKind::Stdout).await;
    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut text).await.unwrap();
    String::from_utf8(text).unwrap()
}
