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
mod repair;
mod session;

use anyhow::Result;

pub(crate) use session::run;

/// `husk-lab setup`: says what the lab runs on, in one line.
pub(crate) fn setup() -> Result<u8> {
    let cache = cache::Cache::find()?;
    let emulator = emulator::ensure(&cache)?.version()?;
    let kernel = kernel::ensure(&cache)?;
    println!("QEMU {emulator}, kernel {}", kernel.version);
    Ok(0)
}
