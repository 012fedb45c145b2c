//! A network without root, by pasta.

use std::{
    io::Write,
    net::{IpAddr, Ipv4Addr, TcpListener},
    process::Command,
};

use husk_tests::{
    environment::{BUSYBOX, image},
    husk::Husk,
    install::Install,
    leftovers,
    process::{Output, Running},
    talk::{ask, tell, try_to_ask},
    wait::{PATIENCE, wait_until},
    world::{HOST, OUTSIDE, World},
};
use nix::sys::signal::Signal;

/// A `/dev` of its own, whose devices everybody may use.
const DEV: &str = "mount -t tmpfs -o mode=755 none /dev; mkdir -m 755 /dev/net
    mknod -m 666 /dev/null c 1 3; mknod -m 666 /dev/zero c 1 5; mknod -m 666 /dev/urandom c 1 9
    mknod -m 666 /dev/kvm c 10 232; mknod -m 666 /dev/net/tun c 10 200";

/// husk as somebody who has no rights at all has it, with a root of its own in the fixture's root.
#[derive(Debug)]
struct Nobody {
    husk: Husk,
    _install: Install,
}

impl Nobody {
    /// With busybox's image, which is pulled while the registry can still be reached.
    fn in_a_world() -> (Self, String, World) {
        let (mut husk, install) = (Husk::fresh(), Install::new());
        husk.use_bin(install.bin());
        let this = Self { husk, _install: install };
        let busybox = image(BUSYBOX);
        this.run(&["pull", "-q", &busybox]).expect_code(0);
        (this, busybox, World::new())
    }

    fn command(&self, args: &[&str]) -> Command {
        let script = format!(
            "{DEV}
             chmod 755 \"$ROOT\"; mkdir -p \"$ROOT/own\"; chown 65534:65534 \"$ROOT/own\"
             export HUSK_ROOT=\"$ROOT/own\" HOME=\"$ROOT/own\"
             exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$HUSK\" \"$@\""
        );
        let mut command = self.husk.script(&script);
        command.arg("sh").args(args);
        command
    }

    fn start(&self, args: &[&str]) -> Running {
        Running::start(&mut self.command(args))
    }

    fn run(&self, args: &[&str]) -> Output {
        self.start(args).finish()
    }

    #[track_caller]
    fn assert_nothing_left(&self) {
        let left = leftovers::of(&self.husk.root().join("own"));
        assert!(left.is_empty(), "left behind: {left:#?}");
    }

    fn is_nothing_left(&self) -> bool {
        leftovers::of(&self.husk.root().join("own")).is_empty()
    }
}

#[test]
fn an_ordinary_user_has_a_network_by_pasta() {
    let (nobody, busybox, world) = Nobody::in_a_world();
    let seen = world.outside_thread(|| {
        let (mut stream, peer) = TcpListener::bind((OUTSIDE, 7000)).unwrap().accept().unwrap();
        stream.write_all(b"hello from outside\n").unwrap();
        peer.ip()
    });
    // Debian 12's pasta may lose the end of a connection whose client has ended its own side first, as with </dev/null.
    let script = format!(
        "ip -o -4 address show scope global | awk '{{print $2, $4}}'
         ip route | grep ^default | cut -d' ' -f1-5
         mkfifo endless; nc -w 60 {OUTSIDE} 7000 <>endless
         exit 7"
    );
    let output = nobody.run(&["run", "--rm", &busybox, "sh", "-c", &script]).expect_code(7);
    let expected = format!("wan0 {HOST}/24\ndefault via {OUTSIDE} dev wan0\nhello from outside\n");
    assert_eq!((output.out(), output.err()), (expected, String::new()));
    assert_eq!(seen.join().unwrap(), HOST);
    nobody.assert_nothing_left();
}

#[test]
fn an_ordinary_user_publishes_ports_by_pasta() {
    let (nobody, busybox, world) = Nobody::in_a_world();
    let serve = "nc -ll -p 80 -e echo served &
                 nc -ll -p 81 -e head -n 1 &
                 echo ready; cat >/dev/null";
    let ports = ["-p", "8080:80", "-p", "8081:81", "-p", "127.0.0.1:8082:80"];
    let args = [&["run", "--rm", "-i"], &ports[..], &[&busybox, "sh", "-c", serve]].concat();
    let mut container = nobody.start(&args);
    container.wait_for_out("ready");
    for port in [8080, 8082] {
        assert_eq!(ask(Ipv4Addr::LOCALHOST, port), "served\n");
    }
    // By an address of the host's, Debian 12's pasta brings nothing before the client has spoken.
    for address in [Ipv4Addr::LOCALHOST, HOST] {
        assert_eq!(tell(address, 8081, "hello\n"), "hello\n");
    }
    let outside = world.outside_thread(|| (tell(HOST, 8081, "hello\n"), try_to_ask(HOST, 8082).is_err()));
    assert_eq!(outside.join().unwrap(), ("hello\n".into(), true));

    let taken = nobody.run(&["run", "--rm", "-p", "8080:80", &busybox, "true"]);
    taken.expect_failure(125, &["port 8080/tcp", "in use"]);
    for options in [["--network", "mine"], ["--ip", "10.0.0.9"], ["--network", "cni:x"]] {
        let args = [&["run", "--rm"], &options[..], &[&busybox, "true"]].concat();
        nobody.run(&args).expect_failure(125, &["root"]);
    }
    container.end();
    assert!(try_to_ask(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080).is_err());
    nobody.assert_nothing_left();
}

#[test]
fn who_ends_pasta_ends_the_container() {
    let (nobody, busybox, _world) = Nobody::in_a_world();
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let mut container =
            nobody.start(&["run", "--rm", "-i", &busybox, "sh", "-c", "echo ready; cat >/dev/null"]);
        container.wait_for_out("ready");
        // husk is pasta by now.
        container.signal(signal);
        // As long as its input is open, the container does not end by itself.
        wait_until("husk and its VM to be gone", PATIENCE, || nobody.is_nothing_left());
        container.finish();
    }
}
