//! What the fuzz targets in `vmm/fuzz/` run: a function per target that takes any bytes, needs neither KVM nor threads, and
//! must not panic. It returns how much the bytes achieved, by which the tests here know that the seeds of the corpus do
//! what they are for.
//!
//! To add a device: a `fuzz.rs` in its folder with `run` and `seeds`, a line in [`TARGETS`], and a target of that name in
//! `vmm/fuzz/`. `run` takes a [`Guest`](guest::Guest), gives its queues to the device, and serves them whenever the guest says so.

use std::path::Path;

mod config;
pub(crate) mod guest;
pub(crate) mod input;

/// Something that hostile bytes reach.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, which is also that of its corpus.
    pub name: &'static str,
    /// Feeds it. Returns how much was achieved, in units of its own.
    pub run: fn(&[u8]) -> usize,
    /// Bytes that achieve something.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets.
pub const TARGETS: [Target; 9] = [
    Target {
        name: "transport",
        run: crate::virtio::mmio::fuzz::run,
        seeds: crate::virtio::mmio::fuzz::seeds,
    },
    Target { name: "rng", run: crate::virtio::rng::fuzz::run, seeds: crate::virtio::rng::fuzz::seeds },
    Target { name: "vsock", run: crate::virtio::vsock::fuzz::run, seeds: crate::virtio::vsock::fuzz::seeds },
    Target {
        name: "balloon",
        run: crate::virtio::balloon::fuzz::run,
        seeds: crate::virtio::balloon::fuzz::seeds,
    },
    Target { name: "block", run: crate::virtio::block::fuzz::run, seeds: crate::virtio::block::fuzz::seeds },
    Target { name: "net", run: crate::virtio::net::fuzz::run, seeds: crate::virtio::net::fuzz::seeds },
    Target { name: "config", run: config::run, seeds: config::seeds },
    Target { name: "kernel", run: crate::boot::fuzz::run, seeds: crate::boot::fuzz::seeds },
    Target { name: "control", run: crate::control::fuzz::run, seeds: crate::control::fuzz::seeds },
];

/// The target of that name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}

impl Target {
    /// Writes the seeds to files in a directory, which need not be there.
    ///
    /// # Errors
    /// When they can't be written.
    pub fn write_seeds(&self, dir: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(dir)?;
        for (number, seed) in (self.seeds)().iter().enumerate() {
            std::fs::write(dir.join(format!("seed-{number}")), seed)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_seed_achieves_something() {
        for target in TARGETS {
            let seeds = (target.seeds)();
            assert!(!seeds.is_empty());
            for (number, seed) in seeds.iter().enumerate() {
                assert!((target.run)(seed) > 0, "{} {number}", target.name);
            }
        }
    }

    #[test]
    fn seeds_are_written_to_files() {
        let dir = tempfile::tempdir().unwrap();
        let target = target("control").unwrap();
        target.write_seeds(&dir.path().join("control")).unwrap();
        assert_eq!(std::fs::read(dir.path().join("control/seed-0")).unwrap(), (target.seeds)()[0]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn damaged_seeds_do_no_harm(
            index: prop::sample::Index,
            seed: prop::sample::Index,
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
            tail in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let target = TARGETS[index.index(TARGETS.len())];
            let seeds = (target.seeds)();
            let mut bytes = seeds[seed.index(seeds.len())].clone();
            for (at, value) in damage {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            bytes.extend(tail);
            (target.run)(&bytes);
        }
    }
}
