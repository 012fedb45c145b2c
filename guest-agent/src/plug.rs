//! Devices that join a running machine. Their registers and interrupt lines are there from the start; the driver is told of
//! them when they are wanted.

use std::{
    collections::BTreeSet,
    fs, io,
    sync::{Mutex, PoisonError},
};

use crate::failure::Failure;

/// The driver's parameter; husk's kernel lets root set it at run time.
const PARAMETER: &str = "/sys/module/virtio_mmio/parameters/device";
/// The driver is told of a device once.
static KNOWN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Tells the driver of devices, "SIZE@ADDRESS:IRQ" each. They are ready to use when this returns.
pub(crate) fn plug(devices: &[String]) -> Result<(), Failure> {
    plug_with(devices, |device| fs::write(PARAMETER, device))
}

fn plug_with(devices: &[String], tell: impl Fn(&str) -> io::Result<()>) -> Result<(), Failure> {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    for device in devices {
        if !known.contains(device) {
            tell(device)
                .map_err(|e| Failure::io(format_args!("cannot plug in the device {device:?}"), &e))?;
            known.insert(device.clone());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_device_is_told_once() {
        let told = Mutex::new(Vec::new());
        let devices = ["a", "b", "a"].map(str::to_owned);
        let tell = |device: &str| {
            told.lock().unwrap().push(device.to_owned());
            Ok(())
        };
        plug_with(&devices, tell).unwrap();
        plug_with(&devices[1..], tell).unwrap();
        assert_eq!(*told.lock().unwrap(), ["a", "b"]);
        let refused = plug_with(&["c".to_owned()], |_| Err(io::ErrorKind::InvalidInput.into()));
        assert!(refused.is_err());
        plug_with(&["c".to_owned()], tell).unwrap();
        assert_eq!(told.lock().unwrap().len(), 3);
    }
}
