//! Reads tar archives: V7, ustar, pax, GNU and star, with all of GNU's sparse formats.
//!
//! Nothing in an archive makes this reader keep more than a few MiB. Where formats leave room, it reads an archive as
//! Go's `archive/tar` (that is, containerd and Docker) does.

mod decimal;
mod header;
mod pax;
mod reader;
mod sparse;

use rustix::fs::Timespec;

pub(super) use reader::TarReader;
pub(super) use sparse::Segment;

/// Size of the unit that tar archives are made of, in bytes.
const BLOCK: usize = 512;

/// One member of an archive.
#[derive(Debug)]
pub(super) struct Entry {
    /// Name as it stands in the archive.
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
    /// Permission bits, with set-id and sticky bits.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Timespec,
    pub(super) atime: Option<Timespec>,
    /// Extended attributes, by full name.
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What a member is, with what only its kind has.
#[derive(Debug)]
pub(super) enum Kind {
    File {
        /// Length of the file, holes included, in bytes.
        size: u64,
        /// Where the stored data goes, if it is not simply all of the file.
        sparse: Option<Vec<Segment>>,
    },
    Directory,
    Symlink(Vec<u8>),
    /// A further name for the file of that name in the archive, or below it.
    HardLink(Vec<u8>),
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
    Fifo,
}

/// Why an archive can't be read.
#[derive(Debug)]
pub(super) enum TarError {
    /// It breaks the format.
    Malformed(&'static str),
    /// It can't be read, or ends too early.
    Io(std::io::Error),
}

impl From<std::io::Error> for TarError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}
