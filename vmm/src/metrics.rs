//! Counters, cheap enough to be always on.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::{Deserialize, Serialize};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts `amount` more.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a disk counts.
#[derive(Debug, Default)]
pub struct DiskCounters {
    /// Reads that succeeded.
    pub reads: Counter,
    /// Bytes that they read.
    pub read_bytes: Counter,
    /// Writes that succeeded.
    pub writes: Counter,
    /// Bytes that they wrote.
    pub written_bytes: Counter,
    /// Flushes that succeeded.
    pub flushes: Counter,
    /// Requests that failed, wrong ones included.
    pub errors: Counter,
}

/// What the vCPUs count, all together.
#[derive(Debug, Default)]
pub struct ExitCounters {
    /// Exits for an access to a device's registers.
    pub mmio: Counter,
    /// Exits for an access to an I/O port.
    pub pio: Counter,
    /// Other exits, signals included.
    pub other: Counter,
}

/// All counters of a VM.
#[derive(Debug, Default)]
pub struct Counters {
    /// The vCPUs'.
    pub exits: ExitCounters,
    /// The disks', by id.
    pub disks: BTreeMap<String, Arc<DiskCounters>>,
}

/// The counters at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metrics {
    /// vCPU exits for device registers.
    pub mmio_exits: u64,
    /// vCPU exits for I/O ports.
    pub pio_exits: u64,
    /// Other vCPU exits.
    pub other_exits: u64,
    /// Disks by id.
    pub disks: BTreeMap<String, DiskMetrics>,
}

/// A disk's counters at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskMetrics {
    /// Reads that succeeded.
    pub reads: u64,
    /// Bytes that they read.
    pub read_bytes: u64,
    /// Writes that succeeded.
    pub writes: u64,
    /// Bytes that they wrote.
    pub written_bytes: u64,
    /// Flushes that succeeded.
    pub flushes: u64,
    /// Requests that failed.
    pub errors: u64,
}

impl Counters {
    /// Reads all counters.
    pub fn snapshot(&self) -> Metrics {
        let disk = |counters: &DiskCounters| DiskMetrics {
            reads: counters.reads.get(),
            read_bytes: counters.read_bytes.get(),
            writes: counters.writes.get(),
            written_bytes: counters.written_bytes.get(),
            flushes: counters.flushes.get(),
            errors: counters.errors.get(),
        };
        Metrics {
            mmio_exits: self.exits.mmio.get(),
            pio_exits: self.exits.pio.get(),
            other_exits: self.exits.other.get(),
            disks: self.disks.iter().map(|(id, counters)| (id.clone(), disk(counters))).collect(),
        }
    }
}
