//! What `husk run` makes of its options and of an image's defaults.

use std::fs;

use husk_tests::{
    environment::{BUSYBOX, REDIS, image},
    husk::Husk,
    wait::{PATIENCE, wait_until},
};
use nix::{
    sys::time::{TimeSpec, TimeValLike},
    time::{ClockId, clock_gettime, clock_settime},
};

#[test]
fn the_images_command_and_environment_are_the_defaults() {
    let husk = Husk::new();
    let script = b"echo from-stdin; env | sort; pwd; id; umask; hostname | wc -c";
    let output = husk.run_with_input(["run", "-i", "--rm", &image(BUSYBOX)], script.to_vec()).expect_code(0);
    let out = output.out();
    let mut lines = out.lines();
    assert_eq!(lines.next(), Some("from-stdin"));
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    for expected in [path, "HOME=/root", "/", "uid=0(root) gid=0(root) groups=0(root)", "0022", "13"] {
        assert!(out.lines().any(|line| line == expected), "{expected:?} in {out}");
    }
    assert!(!out.contains("TERM="), "{out}");
    husk.assert_nothing_left();
}

#[test]
fn variables_come_from_options_files_and_husks_own_environment() {
    let husk = Husk::new().env("HUSK_TEST_PASSED", "from outside");
    let file = husk.root().join("env");
    fs::write(&file, "# comment\nFROM_FILE=a b=c\n\nTWICE=file\nHUSK_TEST_PASSED\n").unwrap();
    let options =
        ["--env-file", file.to_str().unwrap(), "-e", "TWICE=option", "-e", "EMPTY=", "--env", "HUSK_UNSET"];
    let script = "echo \"$FROM_FILE|$TWICE|${EMPTY-unset}|${HUSK_UNSET-unset}|$HUSK_TEST_PASSED\"";
    husk.shell(&options, script).expect_out("a b=c|option||unset|from outside\n");
}

#[test]
fn user_workdir_and_hostname_are_as_asked() {
    let husk = Husk::new();
    let script = "id; pwd; hostname; cat /etc/hostname; grep -c my.host /etc/hosts; echo $HOME; \
                  touch here && stat -c '%u %g' here";
    let options = ["-u", "app", "-w", "/home/app", "--hostname", "my.host", "--name", "web-1"];
    let groups = "groups=1000(app),2000(extra),2001(more)";
    husk.shell(&options, script).expect_out(&format!(
        "uid=1000(app) gid=1000(app) {groups}\n/home/app\nmy.host\nmy.host\n2\n/home/app\n1000 1000\n"
    ));
    husk.shell(&["-u", "1234:2000", "-w", "/made/on/demand"], "id; pwd")
        .expect_out("uid=1234 gid=2000(extra) groups=2000(extra)\n/made/on/demand\n");
    husk.assert_nothing_left();
}

#[test]
fn an_entrypoint_replaces_the_images_own() {
    let husk = Husk::new();
    // The redis image has an entry point, a user, a working directory and a volume.
    let script = "echo $REDIS_IMAGE; whoami; pwd; touch volume-is-writable && ls";
    husk.run(["run", "--rm", "--read-only", "--entrypoint", "sh", &image(REDIS), "-c", script])
        .expect_out("husk\nredis\n/data\nvolume-is-writable\n");
    // Arguments go to the image's own entry point.
    let output = husk.run(["run", "--rm", &image(REDIS), "--version"]).expect_code(0);
    assert!(output.out().starts_with("Redis server v="), "{}", output.out());
}

#[test]
fn a_container_is_confined_as_dockers_are() {
    let husk = Husk::new();
    let script = r"
        echo pid=$$
        grep -E '^(CapEff|NoNewPrivs)' /proc/self/status | tr -d '\t'
        ls /sys/fs/cgroup/cgroup.procs
        (echo x > /proc/sys/kernel/hostname) 2>/dev/null && echo 'wrote to /proc/sys'
        (echo 1 > /sys/kernel/profiling) 2>/dev/null && echo 'wrote to /sys'
        cat /proc/kcore 2>/dev/null | head -c 1 | wc -c
        mount -t tmpfs none /mnt 2>/dev/null && echo 'mounted'
        ulimit -n
        ls /dev | sort | tr '\n' ' '; echo
        ps | grep -c husk-agent
    ";
    let output = husk.shell(&[], script);
    let out = output.out();
    for expected in ["pid=1", "CapEff:00000000a80425fb", "NoNewPrivs:0", "0", "1048576"] {
        assert!(out.lines().any(|line| line == expected), "{expected:?} in {out}{}", output.err());
    }
    for forbidden in ["wrote", "mounted", "vda"] {
        assert!(!out.contains(forbidden), "{out}");
    }
    for device in ["null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "stdin", "fd"] {
        assert!(out.split_whitespace().any(|word| word == device), "/dev/{device}: {out}");
    }
}

#[test]
fn a_container_writes_to_a_disk_of_its_own() {
    let husk = Husk::new();
    husk.shell(&[], "echo changed > /etc/passwd && rm /bin/ls && echo new > /new && sync").expect_out("");
    // The next one sees the image as it was.
    husk.shell(&[], "grep -c root /etc/passwd; [ -e /new ] || echo clean; [ -x /bin/ls ] && echo there")
        .expect_out("1\nclean\nthere\n");
    husk.assert_nothing_left();
}

#[test]
fn writable_space_has_its_limit() {
    let husk = Husk::new();
    let script = "dd if=/dev/zero of=/fill bs=1M 2>&1 | grep -o 'No space left on device'; \
                  stat -c %s /fill | awk '{ print ($1 > 30000000 && $1 < 64000000) ? \"near 64m\" : $1 }'";
    husk.shell(&["--storage-size", "64m"], script).expect_out("No space left on device\nnear 64m\n");
    husk.assert_nothing_left();
}

#[test]
fn a_read_only_root_takes_no_writes_but_its_tmpfs_do() {
    let husk = Husk::new();
    let script = "(echo x > /file) 2>&1; echo x > /scratch/file && cat /scratch/file; \
                  mount | grep ' /scratch ' | grep -o 'size=1024k\\|noexec' | sort; echo x > /dev/shm/file && echo shm";
    let output =
        husk.shell(&["--read-only", "--tmpfs", "/scratch:size=1m", "--tmpfs", "/run"], script).expect_code(0);
    let out = output.out();
    assert!(out.lines().next().unwrap_or_default().contains("Read-only file system"), "{out}");
    assert!(out.ends_with("x\nnoexec\nsize=1024k\nshm\n"), "{out}");
}

#[test]
fn cpus_are_the_machines_or_a_quota() {
    let husk = Husk::new();
    husk.shell(&["--cpus", "2"], "nproc").expect_out("2\n");
    husk.shell(&["--cpus", "1.5"], "nproc; cat /sys/fs/cgroup/cpu.max").expect_out("2\n150000 100000\n");
}

#[test]
fn a_memory_limit_kills_what_exceeds_it() {
    let husk = Husk::new();
    let script = "cat /sys/fs/cgroup/memory.max; exec tail /dev/zero";
    let output = husk.shell(&["-m", "32m"], script).expect_code(137);
    assert_eq!(output.out(), "33554432\n");
    husk.assert_nothing_left();
}

#[test]
fn the_smallest_memory_limit_still_boots() {
    Husk::new().shell(&["-m", "6m"], "echo enough").expect_out("enough\n");
}

#[test]
fn timings_come_in_order_as_a_table_and_as_json() {
    let husk = Husk::new();
    let output = husk.shell(&["--timings=json"], "echo out").expect_out("out\n");
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&output.stderr).unwrap();
    let stages: Vec<_> = rows.iter().map(|row| row["stage"].as_str().unwrap()).collect();
    let expected = [
        "start",
        "planned",
        "vmm_configured",
        "first_instruction",
        "init",
        "agent_ready",
        "created",
        "started",
        "first_output",
        "exited",
        "cleaned_up",
    ];
    assert_eq!(stages, expected);
    let times: Vec<_> = rows.iter().map(|row| row["at_ms"].as_f64().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");

    let table = husk.shell(&["--timings"], "true").expect_out("").err();
    for line in ["process start", "kernel handed to init", "everything cleaned up"] {
        assert!(table.contains(line), "{table}");
    }
}

#[test]
fn a_name_is_taken_while_its_container_runs() {
    let husk = Husk::new();
    let mut first = husk.start_shell(&["-i", "--name", "only"], "echo ready; cat");
    first.wait_for_out("ready");
    husk.shell(&["--name", "only"], "true").expect_failure(125, &["/only", "in use"]);
    drop(first.finish().expect_code(0));
    husk.shell(&["--name", "only"], "true").expect_out("");
    husk.assert_nothing_left();
}

#[test]
fn another_kernel_boots_when_asked_for() {
    let husk = Husk::new();
    let kernel = husk.root().join("my-kernel");
    fs::copy(husk_tests::environment::guest().join("vmlinux"), &kernel).unwrap();
    husk.shell(&["--kernel", kernel.to_str().unwrap()], "uname -s").expect_out("Linux\n");
}

#[test]
fn limits_of_the_machine_are_in_no_programs_way() {
    let script = "cat /proc/sys/vm/max_map_count /proc/sys/fs/inotify/max_user_watches; ulimit -u; ulimit -n";
    Husk::new().shell(&[], script).expect_out("262144\n1048576\nunlimited\n1048576\n");
}

#[test]
fn a_step_of_the_hosts_clock_is_one_of_the_containers() {
    let husk = Husk::new();
    let mut running = husk.start_living(&["--name", "one"], "");
    let seen =
        || -> i64 { husk.run(["exec", "one", "date", "+%s"]).expect_code(0).out().trim().parse().unwrap() };
    let now = || clock_gettime(ClockId::CLOCK_REALTIME).unwrap();
    for step in [100_000, -100_000] {
        clock_settime(ClockId::CLOCK_REALTIME, now() + TimeSpec::seconds(step)).unwrap();
        wait_until("the container's clock to follow", PATIENCE, || (seen() - now().tv_sec()).abs() < 1000);
    }
    running.close_stdin();
    running.finish().expect_code(0);
}
