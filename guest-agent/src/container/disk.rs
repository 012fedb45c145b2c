//! The machine's disks, found by their virtio-blk serials.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use husk_protocol::agent::{BlockDevice, Reason};
use oci_spec::runtime::{LinuxDeviceBuilder, LinuxDeviceType, Spec};
use rustix::fs::{major, minor};

use crate::failure::Failure;

const BLOCK: &str = "/sys/block";
/// virtio-blk's limit on a serial, in bytes.
const MAX_SERIAL: usize = 20;

/// How many containers have each disk in their roots. Kept by PID 1; helpers mount a disk while it is counted.
static USERS: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());

/// How long the driver may take to notice that an empty slot has a disk now.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(5);
const NOTICE_PAUSE: Duration = Duration::from_millis(1);

/// The device node of the disk with this serial. A disk that has just been put into a slot that the driver knew empty has no
/// size until the driver notices: that is waited for.
pub(crate) fn find(serial: &str) -> Result<PathBuf, Failure> {
    let (sysfs, device) = find_now(serial)?;
    let since = Instant::now();
    while fs::read_to_string(sysfs.join("size")).is_ok_and(|sectors| sectors.trim_end() == "0") {
        if since.elapsed() > NOTICE_TIMEOUT {
            return Err(Failure::invalid(format!("the disk with serial {serial:?} is empty")));
        }
        thread::sleep(NOTICE_PAUSE);
    }
    Ok(device)
}

/// Counts one more container that uses each of these disks.
pub(super) fn hold(serials: &[String]) {
    let mut users = USERS.lock().unwrap_or_else(PoisonError::into_inner);
    for serial in serials {
        *users.entry(serial.clone()).or_default() += 1;
    }
}

/// Counts one container less for each of these disks, and returns those that none uses any more.
pub(super) fn release(serials: &[String]) -> Vec<String> {
    let mut users = USERS.lock().unwrap_or_else(PoisonError::into_inner);
    let unused = |serial: &&String| match users.get_mut(*serial) {
        Some(count) if *count > 1 => {
            *count -= 1;
            false
        }
        _ => users.remove(*serial).is_some(),
    };
    serials.iter().filter(unused).cloned().collect()
}

/// Gives a container disks as devices, which it may use as their nodes allow.
pub(super) fn add_devices(spec: &mut Spec, disks: &[BlockDevice]) -> Result<(), Failure> {
    for BlockDevice { serial, path, mode, uid, gid, .. } in disks {
        let number = fs::metadata(find(serial)?)
            .map_err(|e| Failure::io(format_args!("cannot use the disk with serial {serial:?}"), &e))?
            .rdev();
        let device = LinuxDeviceBuilder::default()
            .path(path)
            .typ(LinuxDeviceType::B)
            .major(i64::from(major(number)))
            .minor(i64::from(minor(number)))
            .file_mode(*mode)
            .uid(*uid)
            .gid(*gid)
            .build()
            .map_err(|e| Failure::internal(e.to_string()))?;
        if let Some(linux) = spec.linux_mut() {
            linux.devices_mut().get_or_insert_default().push(device);
        }
    }
    Ok(())
}

/// The directory in sysfs and the device node of the disk with this serial.
fn find_now(serial: &str) -> Result<(PathBuf, PathBuf), Failure> {
    check(serial)?;
    let failed = |e: io::Error| Failure::io("cannot list the machine's disks", &e);
    for entry in fs::read_dir(BLOCK).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        // Reading the attribute asks the device; one that has none is some other kind of disk.
        if fs::read_to_string(entry.path().join("serial")).is_ok_and(|found| found.trim_end() == serial) {
            return Ok((entry.path(), PathBuf::from("/dev").join(entry.file_name())));
        }
    }
    Err(Failure::new(Reason::NO_SUCH_DEVICE, format!("no disk with serial {serial:?}")))
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
    fn a_disk_is_unused_when_its_last_container_is_gone() {
        let [a, b] = ["shared", "own"].map(str::to_owned);
        let (first, second) = (vec![a.clone(), b.clone()], vec![a.clone()]);
        hold(&first);
        hold(&second);
        assert_eq!(release(&first), [b]);
        assert_eq!(release(&second), [a]);
        assert!(release(&first).is_empty(), "counted twice");
    }

    #[test]
    fn serials_are_plain() {
        assert!(check("base-0.1_x").is_ok());
        for bad in ["", ".", "..", "a/b", "a:b", "a,b", "a b", "123456789012345678901", "ü"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
