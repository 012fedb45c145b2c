//! The machine's disks, found by their virtio-blk serials.

use std::{fs, io, path::PathBuf};

use crate::failure::Failure;

const BLOCK: &str = "/sys/block";
/// virtio-blk's limit on a serial, in bytes.
const MAX_SERIAL: usize = 20;

/// The device node of the disk with this serial.
pub(crate) fn find(serial: &str) -> Result<PathBuf, Failure> {
    check(serial)?;
    let failed = |e: io::Error| Failure::io("cannot list the machine's disks", &e);
    for entry in fs::read_dir(BLOCK).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        // Reading the attribute asks the device; one that has none is some other kind of disk.
        if fs::read_to_string(entry.path().join("serial")).is_ok_and(|found| found.trim_end() == serial) {
            return Ok(PathBuf::from("/dev").join(entry.file_name()));
        }
    }
    Err(Failure::not_found(format!("no disk with serial {serial:?}")))
}

/// Serials are used in paths and mount options, so they are plain.
pub(crate) fn check(serial: &str) -> Result<(), Failure> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if serial.is_empty() || serial.len() > MAX_SERIAL || !serial.bytes().all(plain) || serial.starts_with('.')
    {
        return Err(Failure::invalid(format!("not a disk serial: {serial:?}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_are_plain() {
        assert!(check("base-0.1_x").is_ok());
        for bad in ["", ".", "..", "a/b", "a:b", "a,b", "a b", "123456789012345678901", "ü"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
