//! Exec with streams, attach, and port forwarding.

use husk_tests::{
    containerd::assert_nothing_left,
    wait::{PATIENCE, wait_until},
};
use k8s_cri::v1::{AttachRequest, ExecRequest, PortForwardRequest};

use crate::fixture::{
    Container, Pod, cri,
    stream::{Channels, RESIZE, STATUS, STDERR, STDIN, STDOUT},
};

fn exec(container: &Container, tty: bool, script: &str) -> Channels {
    let request = ExecRequest {
        container_id: container.id.clone(),
        cmd: ["sh", "-c", script].map(str::to_owned).to_vec(),
        tty,
        stdin: true,
        stdout: true,
        stderr: !tty,
    };
    let url = cri().call(|mut client| async move { client.exec(request).await }).unwrap().url;
    Channels::connect(&url)
}

fn forward(pod: &Pod, port: u16) -> Channels {
    let request = PortForwardRequest { pod_sandbox_id: pod.id.clone(), port: vec![port.into()] };
    let url = cri().call(|mut client| async move { client.port_forward(request).await }).unwrap().url;
    let mut channels = Channels::connect(&url);
    // Both channels of a port begin with its number.
    channels.wait_for(0, |bytes| bytes.len() >= 2);
    channels
}

#[test]
fn streams_reach_processes_and_ports() {
    let pod = Pod::run("streams", |_| {});
    let container =
        pod.container("echo", "while read -r line; do echo got $line; done; sleep 1000000", |config| {
            config.stdin = true;
        });

    let mut channels = exec(&container, false, "read -r line; echo \"said $line\"; echo err >&2; exit 7");
    channels.send(STDIN, b"something\n");
    channels.finish();
    assert_eq!(
        (channels.text(STDOUT).as_str(), channels.text(STDERR).as_str()),
        ("said something\n", "err\n")
    );
    let status: serde_json::Value = serde_json::from_str(&channels.text(STATUS)).unwrap();
    assert_eq!(status["details"]["causes"][0]["message"], "7", "{status}");

    let mut terminal = exec(
        &container,
        true,
        "trap 'echo size $(stty size)' WINCH; echo on $(tty); while :; do sleep 1; done",
    );
    terminal.wait_for_text(STDOUT, "on /dev/pts/");
    terminal.send(RESIZE, br#"{"Width":99,"Height":33}"#);
    terminal.wait_for_text(STDOUT, "size 33 99");
    terminal.send(STDIN, b"\x03");
    terminal.finish();

    let request = AttachRequest {
        container_id: container.id.clone(),
        stdin: true,
        stdout: true,
        stderr: true,
        tty: false,
    };
    let url = cri().call(|mut client| async move { client.attach(request).await }).unwrap().url;
    let mut attached = Channels::connect(&url);
    attached.send(STDIN, b"attached\n");
    attached.wait_for_text(STDOUT, "got attached\n");
    drop(attached);
    container.wait_for_log("stdout F got attached");

    // Ports: of a server on all addresses, on the pod's loopback alone, and of none at all.
    container.says("for server in 0.0.0.0:801 127.0.0.1:802 [::1]:803; do mkdir -p /www && echo $server >/www/index.html; httpd -p $server -h /www; done");
    wait_until("the servers to listen", PATIENCE, || {
        container.says("cat /proc/net/tcp /proc/net/tcp6 | grep -c ' 0A '") == "3"
    });
    for port in [801, 802, 803] {
        let mut page = forward(&pod, port);
        page.send(0, b"GET / HTTP/1.0\r\n\r\n");
        page.wait_for_text(0, "[::1]:803\n");
    }
    let mut nobody = forward(&pod, 804);
    nobody.send(0, b"x");
    nobody.finish();
    assert_eq!(nobody.text(0).len(), 2, "{}", nobody.text(0));
    pod.remove();
    assert_nothing_left();
}
