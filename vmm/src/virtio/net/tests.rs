//! Frames on plain memory with a socket in place of the tap, then a device with threads, and then a real tap, and interfaces that come while
//! the VM runs.

mod control;
mod device;
mod driver;
mod hot_plug;
mod random;
mod real_tap;
mod receive;
mod transmit;
