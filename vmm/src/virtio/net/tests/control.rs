//! Commands of the driver.

use std::sync::{
    Arc,
    atomic::{AtomicU16, Ordering},
};

use vm_memory::{Bytes, GuestAddress};

use super::{
    super::{
        control::{Control, Steering},
        ring::Ring,
    },
    driver::{DATA, Driver, Host, WRITE, memory},
};
use crate::virtio::serve::ServeError;

/// Carries out a command for a device with one tap, of whose queues `usable` pairs are set up; tells the answer, and how
/// many pairs are used then. Before, there were 9.
fn answer(command: &[u8], usable: u16) -> (u8, u16) {
    let mem = memory();
    mem.write_slice(command, GuestAddress(DATA)).unwrap();
    let mut driver = Driver::new(&mem, 16);
    let Host { tap, interrupt, counters, .. } = Host::new();
    let steering = Steering { taps: Arc::from([tap]), in_use: Arc::new(AtomicU16::new(9)) };
    let ring = Ring::new(driver.queue(), false);
    let mut control = Control::new(&mem, ring, interrupt, counters.clone(), steering.clone(), usable);
    let (class, argument) = (DATA, DATA + 2);
    let len = u32::try_from(command.len()).unwrap();
    driver.offer(&[(class, 2, 0), (argument, len - 2, 0), (DATA + 0x1000, 1, WRITE)]);
    control.serve().unwrap();
    assert_eq!(driver.used(), [(0, 1)]);
    let answer = mem.read_obj(GuestAddress(DATA + 0x1000)).unwrap();
    assert_eq!(counters.control_errors.get(), u64::from(answer));
    (answer, steering.in_use.load(Ordering::Relaxed))
}

#[test]
fn the_number_of_pairs_is_set_within_its_limits() {
    assert_eq!(answer(&[4, 0, 1, 0], 2), (0, 1));
    assert_eq!(answer(&[4, 0, 2, 0], 2), (0, 2));
    for bad in [[4, 0, 0, 0], [4, 0, 3, 0], [4, 0, 1, 1], [4, 1, 1, 0], [0, 0, 1, 0], [1, 1, 1, 0]] {
        assert_eq!(answer(&bad, 2), (1, 9), "{bad:?}");
    }
    assert_eq!(answer(&[4, 0, 1], 2), (1, 9));
}

#[test]
fn a_command_without_room_for_its_answer_stops_the_device() {
    let mem = memory();
    let mut driver = Driver::new(&mem, 16);
    let Host { tap, interrupt, counters, .. } = Host::new();
    let steering = Steering { taps: Arc::from([tap]), in_use: Arc::default() };
    let mut control = Control::new(&mem, Ring::new(driver.queue(), false), interrupt, counters, steering, 1);
    driver.offer(&[(DATA, 4, 0)]);
    assert!(matches!(control.serve(), Err(ServeError::NoRoom)));
}
