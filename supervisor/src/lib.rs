//! The clients of supervisors, which own a pod each (`husk-supervisor`, this crate's program): starting one, speaking with one, and the
//! streams of its processes.

mod client;
mod spawn;

pub use client::{Attached, Ended, Pod, Streams};
