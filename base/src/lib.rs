//! What several parts of husk need and no library has in this form: lock files, atomic files, private
//! directories, ids, MAC addresses, netlink, unix sockets with long paths, the texts of errors, and
//! a log for programs that have one (feature `log`).
//!
//! Nothing here is asynchronous, and nothing knows of pods, images or networks.

pub mod atomic;
pub mod chain;
pub mod dirs;
pub mod id;
pub mod io;
pub mod json_file;
pub mod lock;
#[cfg(feature = "log")]
pub mod log;
pub mod mac;
pub mod netlink;
pub mod socket;

pub use io::IoError;
pub use mac::Mac;
