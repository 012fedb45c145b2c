//! Requests of the balloon's driver, as functions on guest memory.

use std::ops::Range;

use vm_memory::GuestMemoryMmap;

use super::{metrics::BalloonCounters, release::Releaser, stats::Stats};
use crate::virtio::segments::Buffer;

/// Most pages of a request that are looked at. Linux puts 256 into one. What is left out stays where it is, which a device
/// may do (virtio 1.2, section 5.5.6).
pub(super) const MAX_PAGES: usize = 1024;
/// A page's number.
const NUMBER_LEN: usize = 4;

/// The pages of an inflate request go back to the host (section 5.5.6).
pub(super) fn inflate(
    mem: &GuestMemoryMmap,
    releaser: Releaser,
    counters: &BalloonCounters,
    readable: &Buffer<'_>,
) {
    let mut numbers = read_numbers(readable);
    // In order and once each, so that neighbours go together.
    numbers.sort_unstable();
    numbers.dedup();
    let released = runs(&numbers).map(|run| releaser.pages(mem, run, counters)).sum();
    counters.inflated_pages.add(released);
    let named = readable.len() / NUMBER_LEN;
    counters.ignored_pages.add((named as u64).saturating_sub(released));
}

/// The guest uses the pages of a deflate request again: the host gives it new ones when it touches them.
pub(super) fn deflate(counters: &BalloonCounters, readable: &Buffer<'_>) {
    counters.deflated_pages.add((readable.len() / NUMBER_LEN).min(MAX_PAGES) as u64);
}

/// The buffers of a report are free memory (section 5.5.6.6).
pub(super) fn report(releaser: Releaser, counters: &BalloonCounters, writable: &Buffer<'_>) {
    for piece in writable.pieces() {
        counters.reported_bytes.add(releaser.slice(piece, counters));
    }
}

/// The guest's statistics (section 5.5.6.3).
pub(super) fn statistics(counters: &BalloonCounters, readable: &Buffer<'_>) -> Stats {
    let mut bytes = [0; Stats::MAX_LEN];
    let len = readable.copy_to(&mut bytes);
    counters.stats.add(1);
    Stats::parse(&bytes[..len])
}

fn read_numbers(readable: &Buffer<'_>) -> Vec<u32> {
    let mut bytes = vec![0; readable.len().min(MAX_PAGES * NUMBER_LEN)];
    let len = readable.copy_to(&mut bytes);
    let (numbers, _) = bytes[..len].as_chunks::<NUMBER_LEN>();
    numbers.iter().map(|number| u32::from_le_bytes(*number)).collect()
}

/// Runs of neighbours in what is sorted.
fn runs(numbers: &[u32]) -> impl Iterator<Item = Range<u64>> {
    numbers.chunk_by(|one, next| *next == one.wrapping_add(1)).filter_map(|run| {
        let (first, last) = (u64::from(*run.first()?), u64::from(*run.last()?));
        Some(first..last + 1)
    })
}
