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
        "\"$HUSK\" run {} true && exit 99 || code=$?; ({LEFT}) 2>/dev/null || true; exit $code",
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
         \"$HUSK\" run {name} && exit 99 || code=$?; ({LEFT}) 2>/dev/null || true; exit $code"
    );
    let output = with_space(&husk, "100m", &script).expect_code(125);
    assert!(output.err().contains("no space left"), "{}", output.err());
    assert_eq!(output.out(), "");
    husk.assert_nothing_left();
}

#[test]
fn while_running_the_container_sees_an_error_and_husk_goes_on() {
    let husk = Husk::fresh();
    let name = image(BUSYBOX);
    let script = format!(
        "\"$HUSK\" pull -q {name} >&2; \"$HUSK\" run {name} true; used=$(du -sk \"$ROOT/data\" | cut -f 1); \
         mount -o remount,size=$((used + 4000))k \"$ROOT/data\"; \
         \"$HUSK\" run {name} sh -c 'dd if=/dev/zero of=/fill bs=1M count=64 conv=fsync 2>&1 | grep -o error; exit 6' \
         || code=$?; ({LEFT}) 2>/dev/null || true; exit $code"
    );
    let output = with_space(&husk, "100m", &script).expect_code(6);
    assert_eq!(output.out(), "error\n");
    husk.assert_nothing_left();
}
