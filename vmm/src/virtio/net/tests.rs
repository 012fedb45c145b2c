//! Frames on plain memory with a socket in place of the tap, then a device with threads, and then a real tap.

mod control;
mod device;
mod driver;
mod random;
mod real_tap;
mod receive;
mod transmit;
