//! A fuzz target of the VMM, by name.

use std::path::Path;

use husk_vmm::fuzzing::{self, Target};
pub use libfuzzer_sys;

/// The target of that name. Its seeds are written to the directory in `HUSK_FUZZ_SEEDS`, if there is one.
///
/// # Panics
/// When there is no such target, or the seeds can't be written.
pub fn target(name: &str) -> Target {
    // As std's own start does: a host process that is gone is an error, not the end.
    // SAFETY: ignoring a signal installs no handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let target = fuzzing::target(name).unwrap_or_else(|| panic!("no target {name}"));
    if let Some(dir) = std::env::var_os("HUSK_FUZZ_SEEDS") {
        target.write_seeds(Path::new(&dir)).unwrap_or_else(|error| panic!("cannot write seeds: {error}"));
    }
    target
}

/// The program of the target of that name.
#[macro_export]
macro_rules! fuzz {
    ($name:literal) => {
        static TARGET: std::sync::OnceLock<husk_vmm::fuzzing::Target> = std::sync::OnceLock::new();

        $crate::libfuzzer_sys::fuzz_target!(
            init: {
                TARGET.get_or_init(|| $crate::target($name));
            },
            |data: &[u8]| {
                (TARGET.get_or_init(|| $crate::target($name)).run)(data);
            }
        );
    };
}
