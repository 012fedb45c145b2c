//! Life and confinement of containers.

use husk_protocol::{
    agent::{Empty, Reason, RootFs, SetupSandboxRequest, SignalRequest},
    failure::reason,
};

use super::guest::{Guest, base_root, container, context, exec, id, in_guest, request, setup, sh, spec};

macro_rules! guest_tests {
    ($($(#[$meta:meta])* async fn $name:ident($guest:ident: Guest) $body:block)*) => {
        $($(#[$meta])* #[test] fn $name() {
            in_guest(concat!(module_path!(), "::", stringify!($name)), |$guest: Guest| async move $body);
        })*
    };
}
pub(super) use guest_tests;

pub(super) fn message<T: std::fmt::Debug>(result: ttrpc::Result<T>) -> (ttrpc::Code, String) {
    match result.unwrap_err() {
        ttrpc::Error::RpcStatus(status) => (status.code(), status.message().to_owned()),
        other => panic!("{other}"),
    }
}

guest_tests! {
    async fn runs_to_the_end(guest: Guest) {
        let script = "echo out; echo err >&2; exit 42";
        assert_eq!(guest.run(&sh(script)).await, (42, "out\n".into(), "err\n".into()));
        assert_eq!(guest.wait("").await.exit_code, 42);
        guest.delete().await;
        let (code, ..) = guest.run(&sh("kill -9 $$")).await;
        assert_eq!(code, 0, "the first process of a PID namespace is immune to its own signals");
        guest.delete().await;
        let timeline = guest.api.timeline(context(), &Empty::new()).await.unwrap();
        assert!(0 < timeline.ready_ns && timeline.ready_ns <= timeline.created_ns);
        assert!(timeline.created_ns <= timeline.started_ns && timeline.started_ns <= timeline.first_output_ns);
        assert!(timeline.first_output_ns <= timeline.now_ns && timeline.exited_ns <= timeline.now_ns);
    }

    async fn is_what_the_spec_says(guest: Guest) {
        let mut spec = spec(&["sh", "-c", "\
            id; pwd; cat /proc/1/environ; echo; hostname; umask; ulimit -n; ulimit -Hn; \
            grep -E 'CapBnd|CapEff|Seccomp:|NoNewPrivs' /proc/self/status; cat /proc/self/cgroup; \
            mkdir /tmp/x; touch /proc/sys/kernel/x; ls /proc/self/fd"]);
        spec["process"]["cwd"] = "/made/for/me".into();
        spec["process"]["user"]["umask"] = 0o27.into();
        spec["process"]["noNewPrivileges"] = true.into();
        let mut request = request(&spec);
        request.user = "www".into();
        let (code, out, err) = guest.run(&request).await;
        assert_eq!(code, 0, "{err}");
        let expected = "uid=33(www) gid=33(www) groups=8(mail),33(www)\n/made/for/me\n\
            PATH=/bin\0B=2\0A=1\0HOME=/home/www\0\nbox\n0027\n1000\n2000\n";
        assert!(out.starts_with(expected), "{out:?}");
        for line in ["NoNewPrivs:\t1\nSeccomp:\t2\n", "\n0::/\n", "CapEff:\t0000000000000000\n",
            "CapBnd:\t00000000080000e1\n", "\n0\n1\n2\n3\n"]
        {
            assert!(out.contains(line), "{line:?} in {out}");
        }
        assert!(err.contains("mkdir: can't create directory '/tmp/x': Operation not supported"), "{err}");
        guest.delete().await;
    }

    async fn tells_what_it_cannot_execute(guest: Guest) {
        for (program, why) in [
            ("none", Reason::EXECUTABLE_NOT_FOUND),
            ("/bin/none", Reason::EXECUTABLE_NOT_FOUND),
            ("text", Reason::EXECUTABLE_NOT_FOUND),
            ("", Reason::EXECUTABLE_NOT_FOUND),
            ("/bin/text", Reason::EXECUTABLE_NOT_PERMITTED),
            ("/bin", Reason::EXECUTABLE_NOT_PERMITTED),
        ] {
            let error = guest.create(&request(&spec(&[program]))).await.unwrap_err();
            assert_eq!(reason(&error), why, "{program}: {error}");
        }
        // Found, but the kernel refuses: the container was created, so this is how it ends.
        for (program, code) in [("/bin/script", 127), ("/bin/garbage", 126)] {
            let (exit, _, err) = guest.run(&request(&spec(&[program]))).await;
            assert_eq!(exit, code, "{program}: {err}");
            assert!(err.starts_with("husk: executable not "), "{err}");
            guest.delete().await;
        }
    }

    async fn refuses_bad_requests(guest: Guest) {
        let mut bad = sh("true");
        bad.user = "nobody".into();
        let error = guest.create(&bad).await.unwrap_err();
        assert_eq!(reason(&error), Reason::NO_SUCH_USER);
        assert_eq!(message::<()>(Err(error)).1, "unable to find user nobody: no matching entries in passwd file");
        let mut bad = sh("true");
        let mut root = base_root();
        root.mut_image().base_disk = "none".into();
        bad.rootfs = Some(root).into();
        let error = guest.create(&bad).await.unwrap_err();
        assert_eq!(reason(&error), Reason::NO_SUCH_DEVICE);
        assert_eq!(message::<()>(Err(error)).1, "no disk with serial \"none\"");
        let mut bad = sh("true");
        bad.rootfs = Some(RootFs::default()).into();
        assert_eq!(reason(&guest.create(&bad).await.unwrap_err()), Reason::INVALID_REQUEST);
        let mut bad = sh("true");
        bad.spec_json = b"{".to_vec();
        assert_eq!(message(guest.create(&bad).await).0, ttrpc::Code::INVALID_ARGUMENT);
        let mut bad = sh("true");
        bad.container_id = "../x".into();
        assert_eq!(message(guest.create(&bad).await).0, ttrpc::Code::INVALID_ARGUMENT);
        let missing = guest.api.stats(context(), &container()).await.unwrap_err();
        assert_eq!(reason(&missing), Reason::NO_SUCH_CONTAINER);
        // None of this stands in the way of a good one.
        assert_eq!(guest.run(&sh("true")).await.0, 0);
        assert_eq!(message(guest.create(&sh("true")).await).0, ttrpc::Code::ALREADY_EXISTS);
        assert_eq!(message(guest.exec(&exec("e", &["true"])).await).0, ttrpc::Code::FAILED_PRECONDITION);
        guest.delete().await;
    }

    async fn a_read_only_root_has_writable_volumes(guest: Guest) {
        let script = "echo x > /file; echo y > /data/file && cat /data/file; echo z > /tmp/t";
        let mut spec = spec(&["sh", "-c", script]);
        spec["root"]["readonly"] = true.into();
        let mut request = request(&spec);
        request.volumes = vec!["/data".into()];
        let (_, out, err) = guest.run(&request).await;
        assert_eq!(out, "y\n");
        assert!(err.contains("can't create /file: Read-only file system"), "{err}");
        assert!(err.contains("can't create /tmp/t: Read-only file system"), "{err}");
        guest.delete().await;
    }

    async fn signals_reach_one_or_all(guest: Guest) {
        let script = "trap 'echo term' TERM; trap 'echo usr1; exit 3' USR1; echo ready; \
            sh -c 'trap \"exit 0\" TERM; while :; do sleep 0.01; done' & \
            while :; do wait; done";
        guest.create(&sh(script)).await.unwrap();
        let signal = |signal, all| {
            let request = SignalRequest { container_id: id(), signal, all, ..Default::default() };
            let api = guest.api.clone();
            async move { api.signal(context(), &request).await }
        };
        guest.start().await;
        let mut out = guest.stream("", husk_protocol::StdioKind::Stdout).await;
        read_line(&mut out, "ready\n").await;
        signal(15, true).await.unwrap();
        read_line(&mut out, "term\n").await;
        signal(0, false).await.unwrap();
        assert_eq!(message(signal(65, false).await).0, ttrpc::Code::INVALID_ARGUMENT);
        signal(10, false).await.unwrap();
        read_line(&mut out, "usr1\n").await;
        assert_eq!(guest.wait("").await.exit_code, 3);
        assert_eq!(message(signal(9, false).await).0, ttrpc::Code::FAILED_PRECONDITION);
        guest.delete().await;

        for number in [9, 34] {
            // A real-time signal without a handler is ignored by a namespace's first process, so SIGKILL all ends it.
            guest.create(&sh("echo ready; while :; do sleep 1; done")).await.unwrap();
            guest.start().await;
            let mut out = guest.stream("", husk_protocol::StdioKind::Stdout).await;
            read_line(&mut out, "ready\n").await;
            signal(number, number == 9).await.unwrap();
            signal(9, true).await.unwrap();
            assert_eq!(guest.wait("").await.exit_code, 137);
            guest.delete().await;
        }
    }

    async fn execs_are_confined_as_the_container_is(guest: Guest) {
        guest.create(&sh("while :; do sleep 1; done")).await.unwrap();
        guest.start().await;
        let script = "id -u; cat /proc/self/cgroup; mkdir /tmp/x || echo refused; \
            grep -E 'CapBnd|CapEff|Seccomp:' /proc/self/status; cat /proc/1/comm; exit 5";
        let (code, out) = guest.exec(&exec("e1", &["sh", "-c", script])).await.unwrap();
        assert_eq!(code, 5);
        assert!(out.starts_with("0\n") && out.contains("\n0::/\n"), "{out}");
        assert!(out.ends_with("\nrefused\nCapEff:\t00000000080000e1\nCapBnd:\t00000000080000e1\nSeccomp:\t2\nsh\n"), "{out}");
        let mut as_www = exec("e2", &["sh", "-c", "id -u; grep CapEff /proc/self/status; echo x > /dev/stdout"]);
        as_www.user = "www".into();
        let (code, out) = guest.exec(&as_www).await.unwrap();
        assert_eq!((code, out.as_str()), (0, "33\nCapEff:\t0000000000000000\nx\n"));

        for (program, why) in [
            ("none", Reason::EXECUTABLE_NOT_FOUND),
            ("/bin/text", Reason::EXECUTABLE_NOT_PERMITTED),
            ("/bin/script", Reason::EXECUTABLE_NOT_FOUND),
            ("/bin/garbage", Reason::EXECUTABLE_NOT_PERMITTED),
        ] {
            let error = guest.exec(&exec("bad", &[program])).await.unwrap_err();
            assert_eq!(reason(&error), why, "{program}: {error}");
        }
        assert_eq!(message(guest.exec(&exec("e1", &["true"])).await).0, ttrpc::Code::ALREADY_EXISTS);
        // What is still running ends with the container.
        guest.api.exec(context(), &exec("e3", &["sleep", "1000"])).await.unwrap();
        guest.delete().await;
    }

    async fn devices_are_restricted(guest: Guest) {
        let script = "head -c 1 /dev/zero > /dev/null && echo zero; mknod /tmp/kmsg c 1 11 && echo made; \
            cat /tmp/kmsg; mknod /tmp/mine c 1 5; head -c 1 /tmp/mine > /dev/null && echo mine";
        let mut spec = spec(&["sh", "-c", script]);
        spec["linux"]["resources"] = serde_json::json!({"devices": [{"allow": false, "access": "rwm"}]});
        let (_, out, err) = guest.run(&super::guest::request(&spec)).await;
        assert_eq!(out, "zero\nmade\nmine\n", "{err}");
        assert!(err.contains("can't open '/tmp/kmsg': Operation not permitted"), "{err}");
        guest.delete().await;
    }

    async fn names_the_sandbox(guest: Guest) {
        let request = SetupSandboxRequest {
            hostname: "pod".into(), hosts: "1.2.3.4 pod\n".into(), resolv_conf: "nameserver 1.1.1.1\n".into(),
            ..setup()
        };
        let early = guest.api.create_container(context(), &sh("true")).await.unwrap_err();
        assert_eq!(reason(&early), Reason::WRONG_STATE, "{early}");
        for bad in [
            SetupSandboxRequest { hostname: "a/b".into(), ..setup() },
            SetupSandboxRequest { hostname: "pod".into(), ..Default::default() },
            SetupSandboxRequest { stream_token: "0123".into(), ..request.clone() },
        ] {
            let refused = guest.api.setup_sandbox(context(), &bad).await.unwrap_err();
            assert_eq!(reason(&refused), Reason::INVALID_REQUEST, "{refused}");
        }
        guest.api.setup_sandbox(context(), &request).await.unwrap();
        let mut spec = spec(&["sh", "-c", "hostname; cat /etc/hostname /etc/hosts /etc/resolv.conf"]);
        spec["linux"]["namespaces"] = serde_json::json!([{"type": "pid"}, {"type": "mount"}]);
        spec.as_object_mut().unwrap().remove("hostname");
        for file in ["hostname", "hosts", "resolv.conf"] {
            spec["mounts"].as_array_mut().unwrap().push(serde_json::json!({
                "destination": format!("/etc/{file}"), "type": "bind", "source": format!("/run/husk/etc/{file}"),
                "options": ["rbind", "rw"],
            }));
        }
        let (_, out, err) = guest.run(&super::guest::request(&spec)).await;
        assert_eq!(out, "pod\npod\n1.2.3.4 pod\nnameserver 1.1.1.1\n", "{err}");
        guest.delete().await;
        let again = guest.api.setup_sandbox(context(), &request).await;
        assert_eq!(message(again).0, ttrpc::Code::FAILED_PRECONDITION);
    }
}

async fn read_line(stream: &mut tokio::net::UnixStream, expected: &str) {
    let mut line = vec![0; expected.len()];
    tokio::io::AsyncReadExt::read_exact(stream, &mut line).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&line), expected);
}
