//! Container logs in the format of Docker's `json-file` driver: one line of JSON per line of output.
//!
//! [`Writer`] belongs to the process that holds a container's streams, [`Reader`] and [`Follower`] to any other
//! process, at any time. They share nothing but the files: `<path>`, and after rotations `<path>.1` (younger) to
//! `<path>.<max-file - 1>` (older).
//!
//! - A record counts when its newline is in the file. What follows the last newline may be cut off and written anew.
//! - A file that was renamed is never written to again.
//! - A line of output without its newline yet is held by the writer, as Docker's copier does: it is written when the
//!   newline arrives, when it is 16 KiB long, or at the end of the container.

mod attributes;
mod chain;
mod config;
mod follow;
mod lines;
mod loss;
mod reader;
mod record;
mod rotate;
mod scan;
mod size;
mod tail;
#[cfg(test)]
mod tests;
mod writer;

pub use attributes::Subject;
pub use config::{ConfigError, Driver, LogConfig};
pub use follow::Follower;
pub use loss::Lost;
pub use reader::{ReadOptions, Reader};
pub use record::Record;
pub use writer::Writer;
