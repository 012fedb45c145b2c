//! One request (virtio 1.2, section 5.2.6): a header, data in one direction, a status byte.

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID,
    VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
};

use super::{
    DiskCounters,
    disk::{Disk, SECTOR},
};
use crate::virtio::{
    segments::{Buffer, Segments},
    serve::ServeError,
};

const HEADER_LEN: usize = 16;

/// Carries out a request and returns how many bytes of the guest's memory it may have written.
///
/// # Errors
/// When there is no place for the status: no driver does that.
pub(super) fn handle(
    disk: &Disk,
    counters: &DiskCounters,
    segments: Segments<'_>,
) -> Result<u32, ServeError> {
    let Segments { readable, mut writable } = segments;
    let written = writable.len();
    let Some(data_len) = written.checked_sub(1) else { return Err(ServeError::NoRoom) };
    let status = writable.split_off(data_len);
    let code = match execute(disk, counters, readable, writable) {
        Ok(()) => VIRTIO_BLK_S_OK,
        Err(Failure::Io) => {
            counters.errors.add(1);
            VIRTIO_BLK_S_IOERR
        }
        Err(Failure::Unsupported) => VIRTIO_BLK_S_UNSUPP,
    };
    status.copy_from(&[u8::try_from(code).unwrap_or(u8::MAX)]);
    Ok(u32::try_from(written).unwrap_or(u32::MAX))
}

/// Why a request fails, as far as the driver may know.
enum Failure {
    Io,
    Unsupported,
}

impl From<std::io::Error> for Failure {
    fn from(_: std::io::Error) -> Self {
        Self::Io
    }
}

fn execute(
    disk: &Disk,
    counters: &DiskCounters,
    mut readable: Buffer<'_>,
    writable: Buffer<'_>,
) -> Result<(), Failure> {
    let mut header = [0; HEADER_LEN];
    if readable.copy_to(&mut header) < HEADER_LEN {
        return Err(Failure::Io);
    }
    let data = readable.split_off(HEADER_LEN);
    let [kind @ .., _, _, _, _] = header.first_chunk::<8>().copied().unwrap_or_default();
    let sector = u64::from_le_bytes(header.last_chunk::<8>().copied().unwrap_or_default());
    match u32::from_le_bytes(kind) {
        VIRTIO_BLK_T_IN => {
            let (offset, len) = locate(disk, sector, &writable)?;
            disk.read(writable, offset)?;
            counters.reads.add(1);
            counters.read_bytes.add(len);
        }
        VIRTIO_BLK_T_OUT => {
            if disk.read_only() {
                return Err(Failure::Io);
            }
            let (offset, len) = locate(disk, sector, &data)?;
            disk.write(data, offset)?;
            counters.writes.add(1);
            counters.written_bytes.add(len);
        }
        VIRTIO_BLK_T_FLUSH => {
            disk.flush()?;
            counters.flushes.add(1);
        }
        VIRTIO_BLK_T_GET_ID => {
            if writable.copy_from(disk.id()) < disk.id().len() {
                return Err(Failure::Io);
            }
        }
        _ => return Err(Failure::Unsupported),
    }
    Ok(())
}

/// The bytes of the disk that a transfer is about, as (offset, length). All must be on the disk.
fn locate(disk: &Disk, sector: u64, data: &Buffer<'_>) -> Result<(u64, u64), Failure> {
    let len = u64::try_from(data.len()).map_err(|_| Failure::Io)?;
    let end = sector.checked_add(len / SECTOR);
    if !len.is_multiple_of(SECTOR) || end.is_none_or(|end| end > disk.sectors()) {
        return Err(Failure::Io);
    }
    sector.checked_mul(SECTOR).map(|offset| (offset, len)).ok_or(Failure::Io)
}
