//! Containers that join the VM of another.

use husk_tests::{
    environment::{BUSYBOX, PYTHON, image},
    husk::{Husk, shell_args},
    leftovers,
    process::Running,
    wait::{PATIENCE, wait_until},
};

/// A container called `owner` that runs until its input ends.
fn start_owner(husk: &Husk, script: &str) -> Running {
    husk.start_living(&["--name", "owner", "--hostname", "the-owner"], script)
}

#[test]
fn a_joined_container_shares_the_network_and_nothing_else() {
    let husk = Husk::new();
    let server = "echo mine >/file; nc -l -p 8000 -e echo served &";
    let owner = start_owner(&husk, server);
    let vmms = leftovers::vmms(husk.root()).len();
    let script = "hostname; nc 127.0.0.1 8000; ls /file 2>/dev/null; echo $$; echo in-a-vm >&2";
    let output = husk.shell(&["--network", "container:owner"], script).expect_code(0);
    assert_eq!(output.out(), "the-owner\nserved\n1\n");
    assert_eq!(output.err(), "in-a-vm\n");
    assert_eq!(leftovers::vmms(husk.root()).len(), vmms);
    // Another image, whose disks take the places of the first one's.
    let python = [
        "run",
        "--rm",
        "-i",
        "--network=container:owner",
        &image(PYTHON),
        "python3",
        "-c",
        "print(input()); exit(7)",
    ];
    let output = husk.run_with_input(python, b"fed\n".to_vec()).expect_code(7);
    assert_eq!(output.out(), "fed\n");
    owner.end();
    husk.assert_nothing_left();
}

#[test]
fn many_come_and_go_and_as_many_as_fit_at_once() {
    let husk = Husk::new();
    let owner = start_owner(&husk, "");
    let vmms = leftovers::vmms(husk.root()).len();
    let join = |script: &str| husk.start(shell_args(&["-i", "--network", "container:owner"], script));
    for _ in 0..2 {
        let mut joined: Vec<Running> = (0..4).map(|_| join("echo in; cat >/dev/null; exit 3")).collect();
        joined.iter_mut().for_each(|running| running.wait_for_out("in"));
        join("true").finish().expect_failure(125, &["owner", "8 slots"]);
        for mut running in joined {
            running.close_stdin();
            running.finish().expect_code(3);
        }
    }
    assert_eq!(leftovers::vmms(husk.root()).len(), vmms);
    owner.end();
    husk.assert_nothing_left();
}

#[test]
fn a_killed_guest_is_cleaned_up_by_its_host() {
    let husk = Husk::new();
    let owner = start_owner(&husk, "mkfifo /gone");
    let names = ["g1", "g2", "g3", "g4"];
    let join = |name: &&str| {
        let options = ["-i", "--name", name, "--network", "container:owner"];
        husk.start(shell_args(&options, "echo in; cat >/dev/null"))
    };
    let mut all: Vec<Running> = names.iter().map(join).collect();
    all.iter_mut().for_each(|running| running.wait_for_out("in"));
    husk.run([&["kill"], &names[..]].concat()).expect_code(0);
    all.into_iter().for_each(|running| drop(running.finish().expect_code(137)));
    // Their disks' slots are free again, sooner or later.
    wait_until("the killed ones' places", PATIENCE, || {
        husk.shell(&["--network", "container:owner"], "true").code == 0
    });
    owner.end();
    husk.assert_nothing_left();
}

#[test]
fn joined_containers_end_with_their_host() {
    let husk = Husk::new();
    let owner = start_owner(&husk, "");
    let mut joined =
        husk.start(shell_args(&["-i", "--network", "container:owner"], "echo in; cat >/dev/null"));
    joined.wait_for_out("in");
    husk.run(["kill", "owner"]).expect_code(0);
    owner.finish().expect_code(137);
    joined.finish().expect_code(137);
    husk.shell(&["--network", "container:owner"], "true").expect_failure(125, &["No such container: owner"]);
    husk.run(["run", "--rm", "--network", "container:", &image(BUSYBOX)]).expect_code(125);
    husk.assert_nothing_left();
}
