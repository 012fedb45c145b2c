//! What `scripts/e2e.sh` has prepared, handed over in environment variables.

use std::{env, path::PathBuf};

/// The prepared image with a shell and the usual small tools.
pub const BUSYBOX: &str = "busybox";
/// The prepared Debian image with Python.
pub const PYTHON: &str = "debian-python";
/// The prepared image with redis.
pub const REDIS: &str = "redis";
/// The prepared image of many layers, which checks itself.
pub const LAYERS: &str = "layers";

/// # Panics
/// When the variable is not set: these tests run by `make test`.
fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run these tests with `make test`"))
}

/// The directory with `husk` and `husk-vmm`.
pub fn bin() -> PathBuf {
    variable("HUSK_TEST_BIN").into()
}

/// The directory with the guest's `vmlinux` and `initramfs.cpio`.
pub fn guest() -> PathBuf {
    variable("HUSK_TEST_GUEST").into()
}

/// An initramfs whose init is [`guest-init`](../../guest_init/index.html), the tests' own delegate in a guest.
pub fn test_initramfs() -> PathBuf {
    variable("HUSK_TEST_INITRAMFS").into()
}

/// The program that attacks the VMM in place of a kernel, `tests/hostile-guest`.
pub fn hostile_guest() -> PathBuf {
    variable("HUSK_TEST_HOSTILE_GUEST").into()
}

/// A husk root in which the prepared images are pulled and unpacked.
pub fn prepared_root() -> PathBuf {
    variable("HUSK_TEST_ROOT").into()
}

/// `HOST:PORT` of the registry that speaks plain HTTP.
pub fn registry() -> String {
    variable("HUSK_TEST_REGISTRY")
}

/// The full name of a prepared image.
pub fn image(name: &str) -> String {
    format!("{}/{name}:latest", registry())
}

/// The registry with TLS and a password.
#[derive(Debug)]
pub struct TlsRegistry {
    /// `HOST:PORT`.
    pub host: String,
    /// Who may pull.
    pub user: String,
    /// With which password.
    pub password: String,
    /// PEM file of the CA that signed its certificate.
    pub ca: PathBuf,
}

/// The registry with TLS and a password.
pub fn tls_registry() -> TlsRegistry {
    TlsRegistry {
        host: variable("HUSK_TEST_TLS_REGISTRY"),
        user: variable("HUSK_TEST_TLS_USER"),
        password: variable("HUSK_TEST_TLS_PASSWORD"),
        ca: variable("HUSK_TEST_TLS_CA").into(),
    }
}
