//! Fixtures for the end-to-end tests: husk's real binaries, run as a user would, and everything looked at from
//! outside. The tests themselves are in `e2e/`, a file per subject; `scripts/e2e.sh` prepares what they need.
//!
//! A fixture that can't do its work fails the test, so fixtures panic where a program would return an error.
#![expect(clippy::unwrap_used, reason = "it is a test")]

pub mod containerd;
pub mod docker;
pub mod environment;
pub mod fake_registry;
pub mod husk;
pub mod install;
pub mod leftovers;
pub mod net;
pub mod oci;
pub mod pod;
pub mod process;
pub mod pty;
pub mod talk;
pub mod vm;
pub mod wait;
pub mod world;
