//! What a request does to its disk.

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    /// `durable`: it is on stable storage when it ends.
    Write {
        durable: bool,
    },
    Flush,
    Discard,
    /// `unmap`: the space may be given up.
    WriteZeroes {
        unmap: bool,
        durable: bool,
    },
}

impl Kind {
    /// What can't be done when it fails.
    pub(super) fn verb(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write { .. } => "write",
            Self::Flush => "flush",
            Self::Discard => "discard",
            Self::WriteZeroes { .. } => "write zeros",
        }
    }
}
