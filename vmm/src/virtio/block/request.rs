//! One request (virtio 1.2, section 5.2.6): a header, data in one direction, a status byte.

use std::sync::Arc;

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH,
    VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
    VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};
use virtio_queue::DescriptorChain;
use vm_memory::GuestMemoryMmap;

use super::{
    buffers::{Buffers, Data},
    disk::{Disk, SECTOR},
    job::Job,
    kind::Kind,
    slot::Target,
};
use crate::virtio::{segments::Segments, serve::ServeError};

const HEADER_LEN: usize = 16;
/// A range of sectors to discard or to make zero (struct virtio_blk_discard_write_zeroes). There is one per request.
const RANGE_LEN: usize = 16;
/// Most sectors of a discard: 2 GiB.
pub(super) const MAX_DISCARD_SECTORS: u32 = 1 << 22;
/// Most sectors to make zero: 16 MiB, since they may have to be written.
pub(super) const MAX_ZERO_SECTORS: u32 = 1 << 15;

/// A request that has been read.
#[derive(Debug)]
pub(super) enum Request {
    /// It was refused, or needed no I/O; the status is set.
    Answered(Answered),
    /// It needs I/O.
    Io(Job),
}

/// A request that needs no more than to be returned to the driver.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answered {
    /// The chain that it came in.
    pub(super) head: u16,
    /// How many bytes of the guest's memory may have been written.
    pub(super) written: u32,
    /// Whether it was an error.
    pub(super) failed: bool,
}

/// Why a request fails, as far as the driver may know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Io,
    Unsupported,
}

/// Reads a request. `durable`: the driver knows of no flush, so that what it wrote must stay when it is told that it was
/// written (section 5.2.6.2).
///
/// # Errors
/// When the chain is broken, or there is no place for the status: no driver does that.
pub(super) fn read(
    mem: &Arc<GuestMemoryMmap>,
    chain: DescriptorChain<&GuestMemoryMmap>,
    target: &Target,
    durable: bool,
    now_ns: u64,
) -> Result<Request, ServeError> {
    let head = chain.head_index();
    let Segments { readable, writable } = Segments::collect(mem, chain)?;
    let written = u32::try_from(writable.len()).unwrap_or(u32::MAX);
    // All that is ever looked at, copied once: header and range.
    let mut front = [0; HEADER_LEN + RANGE_LEN];
    let front_len = readable.copy_to(&mut front);
    let [header, range] = [&front[..HEADER_LEN], &front[HEADER_LEN..]];
    let (request_type, sector) = (u32_at(header, 0), u64_at(header, 8));
    let data = match request_type {
        VIRTIO_BLK_T_IN | VIRTIO_BLK_T_GET_ID => Data::BeforeStatus,
        _ => Data::AfterHeader(HEADER_LEN),
    };
    let buffers = Buffers::new(mem, &readable, &writable, data).ok_or(ServeError::NoRoom)?;
    let answer = |status| {
        buffers.set_status(status);
        Ok(Request::Answered(Answered { head, written, failed: status == VIRTIO_BLK_S_IOERR }))
    };
    if front_len < HEADER_LEN {
        return answer(VIRTIO_BLK_S_IOERR);
    }
    if request_type == VIRTIO_BLK_T_GET_ID {
        let done = buffers.copy_from(&target.id) == target.id.len();
        return answer(if done { VIRTIO_BLK_S_OK } else { VIRTIO_BLK_S_IOERR });
    }
    let disk = target.disk.as_ref().ok_or(Refusal::Io);
    let found = disk.and_then(|disk| {
        let (kind, place) = match request_type {
            VIRTIO_BLK_T_IN => (Kind::Read, locate(disk, sector, writable.len() - 1)?),
            VIRTIO_BLK_T_OUT if disk.read_only() => return Err(Refusal::Io),
            VIRTIO_BLK_T_OUT => (Kind::Write { durable }, locate(disk, sector, readable.len() - HEADER_LEN)?),
            VIRTIO_BLK_T_FLUSH => (Kind::Flush, (0, 0)),
            VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES if disk.read_only() => {
                return Err(Refusal::Unsupported);
            }
            VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES => {
                if readable.len() != HEADER_LEN + RANGE_LEN {
                    return Err(Refusal::Io);
                }
                parse_range(disk, request_type, range, durable)?
            }
            _ => return Err(Refusal::Unsupported),
        };
        Ok((disk.clone(), kind, place))
    });
    match found {
        Ok((disk, Kind::Flush, _)) if disk.read_only() => answer(VIRTIO_BLK_S_OK),
        Ok((disk, kind, (offset, len))) => {
            Ok(Request::Io(Job { head, written, taken_ns: now_ns, buffers, disk, kind, offset, len }))
        }
        Err(Refusal::Io) => answer(VIRTIO_BLK_S_IOERR),
        Err(Refusal::Unsupported) => answer(VIRTIO_BLK_S_UNSUPP),
    }
}

/// The range of a discard or of zeros.
fn parse_range(
    disk: &Disk,
    request_type: u32,
    range: &[u8],
    durable: bool,
) -> Result<(Kind, (u64, u64)), Refusal> {
    let (sector, count, flags) = (u64_at(range, 0), u32_at(range, 8), u32_at(range, 12));
    let (kind, known_flags, limit) = if request_type == VIRTIO_BLK_T_DISCARD {
        (Kind::Discard, 0, MAX_DISCARD_SECTORS)
    } else {
        let unmap = flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0;
        (Kind::WriteZeroes { unmap, durable }, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP, MAX_ZERO_SECTORS)
    };
    if flags & !known_flags != 0 {
        return Err(Refusal::Unsupported);
    }
    // fallocate takes no empty range, and no driver has one.
    if count == 0 || count > limit {
        return Err(Refusal::Io);
    }
    Ok((kind, locate_sectors(disk, sector, count.into())?))
}

/// The bytes of the disk that a transfer is about, as (offset, length). All must be on the disk.
fn locate(disk: &Disk, sector: u64, len: usize) -> Result<(u64, u64), Refusal> {
    let len = u64::try_from(len).map_err(|_| Refusal::Io)?;
    if len.is_multiple_of(SECTOR) { locate_sectors(disk, sector, len / SECTOR) } else { Err(Refusal::Io) }
}

fn locate_sectors(disk: &Disk, sector: u64, count: u64) -> Result<(u64, u64), Refusal> {
    match sector.checked_add(count) {
        // A disk's length in bytes is a number, so these are as well.
        Some(end) if end <= disk.sectors() => Ok((sector * SECTOR, count * SECTOR)),
        _ => Err(Refusal::Io),
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().map_or(0, u64::from_le_bytes)
}
