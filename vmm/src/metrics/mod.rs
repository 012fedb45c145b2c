//! Counters, cheap enough to be always on: what they are made of, and the two forms in which all of a VM's together are
//! read: JSON, which is [`Counters`](crate::counters::Counters) serialized, and [Prometheus text](prometheus).

pub mod prometheus;
mod value;

pub use value::{Counter, Histogram};
