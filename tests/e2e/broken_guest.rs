//! Guests that do not come up: one clear error each, with the console's last lines.

use std::fs;

use husk_tests::{environment::test_initramfs, husk::Husk, install::Install};

#[test]
fn an_agent_that_never_answers_is_given_up() {
    let mut husk = Husk::new();
    // Its init complains that nobody wants to talk to it, and sleeps.
    let install = Install::with_initramfs(&test_initramfs());
    husk.use_bin(install.bin());
    let output = husk.shell(&["--boot-timeout", "15"], "true");
    output.expect_failure(125, &["did not answer within 15 s", "guest-init: nobody to dial"]);
    husk.assert_nothing_left();
}

#[test]
fn a_corrupt_initramfs_is_a_panic_with_its_reason() {
    let mut husk = Husk::new();
    let junk = husk.root().join("junk");
    fs::write(&junk, husk_tests::oci::noise(1 << 20)).unwrap();
    let install = Install::with_initramfs(&junk);
    husk.use_bin(install.bin());
    husk.shell(&[], "true").expect_failure(125, &["ended before its agent answered", "panic"]);
    husk.assert_nothing_left();
}

#[test]
fn a_kernel_that_is_none_is_refused() {
    let husk = Husk::new();
    let junk = husk.root().join("junk");
    for content in [&b""[..], b"#!/bin/sh\necho I am no kernel\n", &husk_tests::oci::noise(100_000)] {
        fs::write(&junk, content).unwrap();
        husk.shell(&["--kernel", junk.to_str().unwrap()], "true").expect_failure(125, &["kernel"]);
    }
    // A program of this machine, but none that boots.
    husk.shell(&["--kernel", "/bin/true"], "true").expect_failure(125, &["kernel"]);
    husk.assert_nothing_left();
}
