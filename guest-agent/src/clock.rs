//! The machine's wall clock, which the host keeps right: it runs by itself, and neither follows the host's corrections nor stops with
//! the host.

use std::{mem::MaybeUninit, time::SystemTime};

use crate::failure::Failure;

/// Less is made up for gradually: programs see no jump.
const STEP_NS: u64 = 500_000_000;
const NS_OF_SECOND: i64 = 1_000_000_000;
const NS_OF_US: i64 = 1000;

/// Nanoseconds since 1970-01-01 UTC.
pub(crate) fn now_ns() -> i64 {
    let now = SystemTime::now();
    let ns = |duration: std::time::Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
    match now.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => ns(since),
        Err(before) => -ns(before.duration()),
    }
}

/// Moves the clock forward by so much, or back if it is negative.
pub(crate) fn adjust(ns: i64) -> Result<(), Failure> {
    // SAFETY: zeros are a valid request, one to change nothing.
    let mut request: libc::timex = unsafe { MaybeUninit::zeroed().assume_init() };
    if ns.unsigned_abs() < STEP_NS {
        request.modes = libc::ADJ_OFFSET_SINGLESHOT;
        request.offset = ns / NS_OF_US;
    } else {
        request.modes = libc::ADJ_SETOFFSET | libc::ADJ_NANO;
        request.time.tv_sec = ns.div_euclid(NS_OF_SECOND);
        request.time.tv_usec = ns.rem_euclid(NS_OF_SECOND);
    }
    // SAFETY: `request` lives through the call, and is initialised.
    if unsafe { libc::adjtimex(&raw mut request) } < 0 {
        return Err(Failure::io("cannot adjust the clock", &std::io::Error::last_os_error()));
    }
    Ok(())
}
