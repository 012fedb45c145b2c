//! The configuration space (virtio 1.2, section 5.2.4).

use super::{
    QUEUE_SIZE,
    request::{MAX_DISCARD_SECTORS, MAX_ZERO_SECTORS},
};

/// Most data segments of a request: a full queue, without header and status.
const SEG_MAX: u32 = QUEUE_SIZE as u32 - 2;
/// Most ranges of a discard, or of zeros.
const MAX_RANGES: u32 = 1;
/// What a discard should begin and end at, in sectors: the block of most file systems.
const DISCARD_ALIGNMENT: u32 = 8;
/// Bytes of a sector, the unit of all requests.
const BLOCK_SIZE: u32 = 512;
const LEN: usize = 60;

/// Reads some of the configuration of a disk of so many sectors; what is beyond its end is zero.
pub(super) fn read(sectors: u64, queues: usize, offset: u64, data: &mut [u8]) {
    let mut config = [0; LEN];
    let mut put = |at: usize, bytes: &[u8]| config[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &sectors.to_le_bytes());
    put(12, &SEG_MAX.to_le_bytes());
    put(20, &BLOCK_SIZE.to_le_bytes());
    put(34, &u16::try_from(queues).unwrap_or(u16::MAX).to_le_bytes());
    put(36, &MAX_DISCARD_SECTORS.to_le_bytes());
    put(40, &MAX_RANGES.to_le_bytes());
    put(44, &DISCARD_ALIGNMENT.to_le_bytes());
    put(48, &MAX_ZERO_SECTORS.to_le_bytes());
    put(52, &MAX_RANGES.to_le_bytes());
    // Zeros may be had by giving up the space (write_zeroes_may_unmap).
    put(56, &[1]);
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let mut rest = config.get(start..).unwrap_or_default().iter();
    data.fill_with(|| rest.next().copied().unwrap_or(0));
}
