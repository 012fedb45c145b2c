//! Real images with real programs.

use husk_tests::{
    environment::{LAYERS, PYTHON, REDIS, image},
    husk::Husk,
};

#[test]
fn python_computes_and_uses_what_a_kernel_offers() {
    let program = r#"
import hashlib, os, select, socket, subprocess, threading
print(hashlib.sha256(b"husk").hexdigest()[:8])
print(subprocess.run(["uname", "-s"], capture_output=True, text=True).stdout.strip())
server = socket.create_server(("127.0.0.1", 0))
def serve():
    peer, _ = server.accept()
    peer.sendall(peer.recv(100).upper())
    peer.close()
thread = threading.Thread(target=serve)
thread.start()
client = socket.create_connection(server.getsockname())
client.sendall(b"over loopback")
print(client.recv(100).decode())
thread.join()
print(socket.create_server(("::1", 0), family=socket.AF_INET6).getsockname()[0])
poll = select.epoll()
reader, writer = os.pipe()
poll.register(reader, select.EPOLLIN)
os.write(writer, b"x")
print(poll.poll() == [(reader, select.EPOLLIN)])
print(socket.gethostbyname(socket.gethostname()))
"#;
    let args = ["run", "--rm", "--network", "none", &image(PYTHON), "python3", "-c", program];
    let output = Husk::new().run(args).expect_code(0);
    assert_eq!(output.out(), "c8b1f4b7\nLinux\nOVER LOOPBACK\n::1\nTrue\n127.0.0.1\n");
}

#[test]
fn python_runs_a_program_from_standard_input() {
    let husk = Husk::new();
    let program = b"import sys\nprint('sum', sum(range(1000)))\nsys.exit(7)\n".to_vec();
    let output =
        husk.run_with_input(["run", "--rm", "-i", &image(PYTHON), "python3", "-"], program).expect_code(7);
    assert_eq!(output.out(), "sum 499500\n");
    husk.assert_nothing_left();
}

#[test]
fn redis_serves_and_stops_when_asked() {
    let husk = Husk::new();
    let script = "redis-server --save '' --dir /data --logfile /data/log & \
                  until redis-cli ping >/dev/null 2>&1; do :; done; \
                  redis-cli set answer 42; redis-cli get answer; redis-cli incr answer; \
                  redis-cli shutdown nosave; wait; grep -c 'ready to exit' /data/log";
    husk.run(["run", "--rm", "--entrypoint", "sh", &image(REDIS), "-c", script])
        .expect_out("OK\n42\n43\n1\n");

    // As its image starts it; the image's stop signal ends it cleanly.
    let mut running = husk.start(["run", "--rm", &image(REDIS)]);
    running.wait_for_out("Ready to accept connections");
    running.signal(nix::sys::signal::Signal::SIGTERM);
    let output = running.finish().expect_code(0);
    assert!(output.out().contains("User requested shutdown"), "{}", output.out());
    husk.assert_nothing_left();
}

#[test]
fn layers_are_applied_by_the_rules() {
    let husk = Husk::fresh();
    husk.run(["run", "--rm", &image(LAYERS)]).expect_out("all layer rules hold\n");
    husk.assert_nothing_left();
}

#[test]
fn more_layers_than_a_machine_has_disks_for() {
    let husk = Husk::fresh();
    husk.run(["run", "--rm", &image("many")]).expect_out("30\n");
    husk.assert_nothing_left();
}
