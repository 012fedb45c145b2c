//! Pods that don't end as they should: nothing runs on, and nobody's files are harmed.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use husk_base::chain;
use husk_sandbox::{Error, clean_up, pod::RootfsSource};
use husk_tests::{
    leftovers::{self, Process},
    pod::{Home, bind, container},
    wait::{PATIENCE, wait_until},
};
use nix::sys::signal::{Signal, kill};

const HOME: &str = "HUSK_TEST_POD_HOME";

/// Started as a process of its own by [`a_killed_owner_takes_its_pod_with_it`], to be killed.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "another test runs it"]
async fn the_owner() {
    let home = Home::at(Path::new(&env::var(HOME).unwrap()));
    let pod = home.start("killed").await;
    let mounts = [bind(&home.volume("data", "precious", "kept"), "/data", &["rbind"])];
    let request = container("c", RootfsSource::Directory(home.busybox("root")), "exec sleep 1000", &mounts);
    let created = pod.create(request).await.map_err(|error| chain::text(&error)).unwrap();
    pod.start_container("c").await.unwrap();
    println!("\nrunning");
    pod.wait("c", "").await.unwrap();
    drop(created);
}

fn start_owner(home: &Home) -> Child {
    let mut owner = Command::new(env::current_exe().unwrap())
        .args(["--exact", "pod_faults::the_owner", "--ignored", "--nocapture"])
        .env(HOME, home.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "running"), "the owner ended by itself");
    owner
}

#[tokio::test]
async fn a_killed_owner_takes_its_pod_with_it() {
    let home = Home::new();
    let mut owner = start_owner(&home);
    assert!(processes(&home, "husk-vmm").len() + processes(&home, "husk-fs").len() >= 2);
    owner.kill().unwrap();
    owner.wait().unwrap();
    wait_until("VM and server to end", PATIENCE, || leftovers::processes(&home.root()).is_empty());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&home.path().display().to_string()), "{mounts}");
    clean_up::after_kills(&home.dirs()).await.map_err(|error| chain::text(&error)).unwrap();
    assert_eq!(leftovers::of(&home.root()), Vec::<String>::new());
    assert_eq!(fs::read_to_string(home.path().join("data/precious")).unwrap(), "kept");
    assert!(home.path().join("root/bin/sh").exists());
    // The name is free again.
    let pod = home.start("killed").await;
    pod.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_ends_with_its_vm_or_its_server() {
    for (victim, reason) in [("husk-vmm", "killed"), ("husk-fs", "file system server ended")] {
        let home = Home::new();
        let pod = home.start("lost").await;
        let data = home.volume("data", "precious", "kept");
        let mounts = [bind(&data, "/data", &["rbind"])];
        let request =
            container("c", RootfsSource::Directory(home.busybox("root")), "exec sleep 1000", &mounts);
        let created = pod.create(request).await.map_err(|error| chain::text(&error)).unwrap();
        pod.start_container("c").await.unwrap();
        let waiting = async { pod.wait("c", "").await.unwrap_err() };
        let killing = async {
            for process in processes(&home, victim) {
                // A parent may have taken its child with it.
                let _ = kill(process.pid, Signal::SIGKILL);
            }
            pod.ended().await
        };
        let (error, why) = tokio::join!(waiting, killing);
        assert!(matches!(error, Error::VmLost { .. }), "{error}");
        assert!(why.contains(reason), "{victim}: {why}");
        assert!(matches!(pod.stats("c").await, Err(Error::VmLost { .. })));
        pod.stop().await.map_err(|error| chain::text(&error)).unwrap();
        assert_eq!(leftovers::of(&home.root()), Vec::<String>::new());
        assert_eq!(fs::read_to_string(data.join("precious")).unwrap(), "kept");
        drop(created);
    }
}

fn processes(home: &Home, program: &str) -> Vec<Process> {
    let is_one =
        |process: &Process| process.command.split(' ').next().is_some_and(|name| name.ends_with(program));
    leftovers::processes(&home.root()).into_iter().filter(is_one).collect()
}
