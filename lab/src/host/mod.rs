//! The half outside: prepares kernel and initramfs, runs QEMU, and connects the command inside with the world.

mod bzimage;
mod cache;
mod cpio;
mod emulator;
mod initramfs;
mod kernel;
mod machine;
mod qemu;
mod relay;
mod session;

use anyhow::Result;

pub(crate) use session::run;

/// `husk-lab setup`.
pub(crate) fn setup() -> Result<u8> {
    let cache = cache::Cache::find()?;
    emulator::ensure(&cache)?;
    let kernel = kernel::ensure(&cache)?;
    eprintln!("husk-lab: kernel {} is in {}", kernel.version, kernel.dir.display());
    Ok(0)
}
