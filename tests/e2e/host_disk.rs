//! No space left on the host, at each place where space is needed.

use husk_tests::{
    environment::{BUSYBOX, LAYERS, image},
    husk::Husk,
    process::{Output, Running},
};

/// Runs a script with a small file system for husk's data, mounted in a namespace of its own.
fn with_space(husk: &Husk, size: &str, script: &str) -> Output {
    let script = format!("mkdir \"$ROOT/data\"; mount -t tmpfs -o size={size} none \"$ROOT/data\"; {script}");
    Running::start(&mut husk.script(&script)).finish()
}

/// Shows what is left of what has failed.
const LEFT: &str = "cd \"$ROOT/data\"; find images/ingest -type f; ls scratch; find disks -name '*.tmp'";

#[test]
fn while_pulling() {
    let husk = Husk::fresh();
    let script = format!(
        "\"$HUSK\" run --rm {} true && exit 99 || code=$?; ({LEFT}) 2>/dev/null || true; exit $code",
        image(BUSYBOX)
    );
    with_space(&husk, "300k", &script).expect_failure(125, &["no space left"]);
    husk.assert_nothing_left();
}

#[test]
fn while_unpacking() {
    let husk = Husk::fresh();
    let name = image(LAYERS);
    // Room for the layers, and not for what is in them.
    let script = format!(
        "\"$HUSK\" pull -q {name} >&2; used=$(du -sk \"$ROOT/data\" | cut -f 1); \
         mount -o remount,size=$((used + 1200))k \"$ROOT/data\"; \
         \"$HUSK\" run --rm {name} && exit 99 || code=$?; ({LEFT}) 2>/dev/null || true; exit $code"
    );
    let output = with_space(&husk, "100m", &script).expect_code(125);
    assert!(output.err().contains("no space left"), "{}", output.err());
    assert_eq!(output.out(), "");
    husk.assert_nothing_left();
}

/// Leaves some megabytes of room, and runs a container that writes more than that and than its memory, until its disk
/// waits. It is called "writer"; the process id of its husk is `$!`.
fn run_until_it_waits(name: &str) -> String {
    format!(
        "\"$HUSK\" pull -q {name} >&2; \"$HUSK\" run --rm {name} true; used=$(du -sk \"$ROOT/data\" | cut -f 1); \
         mount -o remount,size=$((used + 4000))k \"$ROOT/data\"; \
         \"$HUSK\" run --rm --name writer -m 96m {name} sh -c \
         'head -c 100000000 /dev/urandom | tee /x | sha256sum; sync; sha256sum </x; exit 6' & \
         until \"$HUSK\" ps --format '{{{{.Status}}}}' | grep -q 'Waiting for disk space'; do :; done;"
    )
}

#[test]
fn while_running_writes_wait_for_room_and_no_byte_is_lost() {
    let husk = Husk::fresh();
    let script = format!(
        "{} mount -o remount,size=300m \"$ROOT/data\"; wait $! || code=$?; \
         ({LEFT}) 2>/dev/null || true; exit $code",
        run_until_it_waits(&image(BUSYBOX))
    );
    let output = with_space(&husk, "100m", &script).expect_code(6);
    let out = output.out();
    let [written, read] = out.lines().collect::<Vec<_>>()[..] else { panic!("{out}") };
    assert_eq!(written, read);
    let err = output.err();
    assert!(
        err.contains("scratch.img waits: no space left on its host file system; make room there"),
        "{err}"
    );
    assert!(err.contains("there is room again"), "{err}");
    husk.assert_nothing_left();
}

#[test]
fn a_container_that_waits_for_room_can_be_removed() {
    let husk = Husk::fresh();
    let name = image(BUSYBOX);
    let script = format!(
        "{} \"$HUSK\" rm -f writer >&2; wait $! || true; \"$HUSK\" run --rm {name} true; \
         ({LEFT}) 2>/dev/null || true",
        run_until_it_waits(&name)
    );
    with_space(&husk, "100m", &script).expect_out("");
    husk.assert_nothing_left();
}

#[test]
fn what_a_guest_has_still_to_write_at_a_containers_end_waits_for_room() {
    let husk = Husk::fresh();
    let name = image(BUSYBOX);
    let script = format!(
        "\"$HUSK\" pull -q {name} >&2; \"$HUSK\" run --rm {name} true; used=$(du -sk \"$ROOT/data\" | cut -f 1); \
         mount -o remount,size=$((used + 4000))k \"$ROOT/data\"; \
         \"$HUSK\" run --name kept {name} sh -c '[ -e /x ] || head -c 20000000 /dev/urandom >/x; sha256sum /x'; \
         until ls \"$ROOT\"/run/*/stalled >&2; do :; done; \
         mount -o remount,size=300m \"$ROOT/data\"; \"$HUSK\" start -a kept; \
         \"$HUSK\" inspect -f '<{{{{.State.Error}}}}>' kept; \"$HUSK\" rm kept >&2"
    );
    let output = with_space(&husk, "100m", &script).expect_code(0);
    let out = output.out();
    let [written, read, error] = out.lines().collect::<Vec<_>>()[..] else { panic!("{out}") };
    assert_eq!((written, error), (read, "<>"));
    husk.assert_nothing_left();
}
