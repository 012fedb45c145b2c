//! Plugins that fail, hang or talk rubbish, and husks that are killed.

use super::*;
use crate::publish::{PortMapping, PortProtocol};

const GOOD: &str = r#"echo '{"cniVersion": "1.0.0", "dns": {"nameservers": ["10.0.0.53"]}}'"#;
const TWO: &str = r#"{"type": "one"}, {"type": "two", "capabilities": {"portMappings": true, "mac": true}}"#;

#[test]
fn plugins_get_what_the_specification_says() {
    let Some(host) = Host::new() else { return };
    host.script("one", GOOD);
    host.script("two", &format!("env >$0.env\n{GOOD}"));
    let mut runtime = host.runtime();
    runtime.args = vec![("IgnoreUnknown".into(), "1".into()), ("K".into(), "v".into())];
    runtime.ips = vec!["10.1.2.3/24".parse().unwrap()];
    runtime.mac = Some("02:00:00:00:00:01".into());
    runtime.port_mappings = vec![PortMapping {
        host_ip: Some("127.0.0.1".parse().unwrap()),
        host_port: 8080,
        container_port: 80,
        protocol: PortProtocol::Tcp,
    }];
    block_on(async {
        let attachment = host.cni.add(config("1.0.0", TWO), runtime.clone()).await.unwrap();
        assert_eq!(attachment.dns.nameservers, ["10.0.0.53".parse::<std::net::IpAddr>().unwrap()]);
        let again = host.cni.add(config("1.0.0", TWO), runtime).await.unwrap_err();
        assert_eq!(again.to_string(), "container c1 has an interface eth0 of a CNI network already");
        host.cni.check(&attachment).await.unwrap();
        host.cni.del(&attachment).await.unwrap();
    });
    assert_eq!(host.log(), ["ADD one", "ADD two", "CHECK one", "CHECK two", "DEL two", "DEL one"]);
    assert_eq!(host.records(), 0);

    let one = host.input("one", "ADD");
    assert_eq!((&one["name"], &one["cniVersion"]), (&"net".into(), &"1.0.0".into()));
    assert!(one.get("prevResult").is_none() && one.get("runtimeConfig").is_none());
    let two = host.input("two", "ADD");
    assert_eq!(two["prevResult"]["dns"]["nameservers"][0], "10.0.0.53");
    assert!(two.get("capabilities").is_none());
    let expected = serde_json::json!({
        "mac": "02:00:00:00:00:01",
        "portMappings": [{"hostIP": "127.0.0.1", "hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
    });
    assert_eq!(two["runtimeConfig"], expected, "no ips, which it does not take");
    assert_eq!(host.input("two", "DEL")["runtimeConfig"], expected);

    let env = fs::read_to_string(host.dir.path().join("bin/two.env")).unwrap();
    let netns = format!("CNI_NETNS={}", host.netns().display());
    for line in ["CNI_CONTAINERID=c1", "CNI_IFNAME=eth0", "CNI_ARGS=IgnoreUnknown=1;K=v", &netns] {
        assert!(env.lines().any(|is| is == line), "{line} is not in {env}");
    }
}

#[test]
fn a_chain_that_fails_half_way_is_undone() {
    let Some(host) = Host::new() else { return };
    host.script("one", GOOD);
    host.script("two", r#"[ $CNI_COMMAND = DEL ] || { echo '{"code": 11, "msg": "no luck", "details": "at all"}'; exit 1; }"#);
    let error = block_on(host.cni.add(config("1.0.0", TWO), host.runtime())).unwrap_err();
    assert_eq!(error.to_string(), "the CNI plugin two failed to ADD: no luck (code 11): at all");
    assert_eq!(host.log(), ["ADD one", "ADD two", "DEL two", "DEL one"]);
    assert_eq!(host.records(), 0);
}

#[test]
fn rubbish_is_told_and_undone() {
    let Some(host) = Host::new() else { return };
    for (script, expected) in [
        (
            "echo what?",
            r#"the CNI plugin one returned what is no CNI result: expected value at line 1 column 1: it printed "what?""#,
        ),
        ("true", "the CNI plugin one returned what is no CNI result: it is empty"),
        (
            "echo oh no >&2; exit 3",
            r#"the CNI plugin one failed to ADD (exit status: 3): it printed "oh no""#,
        ),
        ("kill -9 $$", "the CNI plugin one failed to ADD (signal: 9 (SIGKILL))"),
    ] {
        host.script("one", &format!("[ $CNI_COMMAND = DEL ] || {{ {script}; }}"));
        let error =
            block_on(host.cni.add(config("1.0.0", r#"{"type": "one"}"#), host.runtime())).unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert_eq!(host.records(), 0);
    }
    // Without end.
    host.script("one", "[ $CNI_COMMAND = DEL ] || exec yes");
    let error = block_on(host.cni.add(config("1.0.0", r#"{"type": "one"}"#), host.runtime())).unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(source, "it printed more than 1048576 bytes");
    let error = block_on(host.cni.add(config("1.0.0", r#"{"type": "nobody"}"#), host.runtime())).unwrap_err();
    assert!(error.to_string().starts_with("the CNI plugin nobody is not in "), "{error}");
}

#[test]
fn a_plugin_that_hangs_is_killed_with_what_it_started() {
    let Some(mut host) = Host::new() else { return };
    host.cni.timeout = Duration::from_secs(1);
    host.script("one", "[ $CNI_COMMAND = DEL ] || { sleep 1000 & echo $! >$0.pid; wait; }");
    let error = block_on(host.cni.add(config("1.0.0", r#"{"type": "one"}"#), host.runtime())).unwrap_err();
    assert_eq!(error.to_string(), "the CNI plugin one did not end its ADD within 1 s");
    assert_eq!(host.log(), ["ADD one", "DEL one"]);
    let pid = fs::read_to_string(host.dir.path().join("bin/one.pid")).unwrap();
    let state = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "it lives: {state}");
}

#[test]
fn every_plugin_gets_its_del_and_what_failed_is_tried_again() {
    let Some(host) = Host::new() else { return };
    host.script("one", GOOD);
    host.script("two", &format!("[ $CNI_COMMAND != DEL ] || exit 1\n{GOOD}"));
    block_on(async {
        let attachment = host.cni.add(config("1.0.0", TWO), host.runtime()).await.unwrap();
        assert!(matches!(host.cni.del(&attachment).await, Err(Error::Failed { .. })));
        assert_eq!(host.log(), ["ADD one", "ADD two", "DEL two", "DEL one"]);
        assert_eq!(host.records(), 1);
        assert_eq!(host.cni.repair(|_| false).await.unwrap().len(), 1);
        assert_eq!(host.records(), 1);
        host.script("two", GOOD);
        assert!(host.cni.repair(|id| id == "c1").await.unwrap().is_empty());
        assert_eq!(host.records(), 1, "the living are left alone");
        assert!(host.cni.repair(|_| false).await.unwrap().is_empty());
        assert_eq!(host.records(), 0);
    });
}

#[test]
fn odd_names_are_refused() {
    let Some(host) = Host::new() else { return };
    let with = |change: &dyn Fn(&mut Runtime)| {
        let mut runtime = host.runtime();
        change(&mut runtime);
        block_on(host.cni.add(config("1.0.0", TWO), runtime)).unwrap_err().to_string()
    };
    assert_eq!(
        with(&|r| r.container_id = "../x".into()),
        r#"container id "../x" is not a valid one for CNI plugins"#
    );
    for name in ["", "..", "a/b", "a b", "abcdefghijklmnop"] {
        assert!(with(&|r| r.interface = name.into()).starts_with("interface name"), "{name}");
    }
    assert!(with(&|r| r.args = vec![("a".into(), "b;c=d".into())]).starts_with("argument"));
    assert_eq!(host.records(), 0);
}

#[test]
fn a_damaged_record_is_reported_and_stays() {
    let Some(host) = Host::new() else { return };
    fs::create_dir(&host.cni.record_dir).unwrap();
    fs::write(host.cni.record_dir.join("c2@eth0.json"), "{").unwrap();
    let failures = block_on(host.cni.repair(|_| false)).unwrap();
    assert!(matches!(failures[..], [Error::Record(_)]), "{failures:?}");
    assert_eq!(host.records(), 1);
}
