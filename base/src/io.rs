//! A failed operation on a path.

use std::{io, path::PathBuf};

/// An operation on a path failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}", path.display())]
pub struct IoError {
    /// The operation that was tried, as a verb: "open".
    pub what: &'static str,
    /// The path that it was tried on.
    pub path: PathBuf,
    /// The system's reason.
    #[source]
    pub source: io::Error,
}

impl IoError {
    /// Returns what makes an [`IoError`] of the system's reason, for `map_err`.
    pub fn of<E: Into<io::Error>>(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |source| Self { what, path, source: source.into() }
    }

    /// The kind of the system's reason.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain;

    #[test]
    fn operation_path_and_reason_are_named() {
        let error = std::fs::read("/nowhere/x").map_err(IoError::of("read", "/nowhere/x")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert_eq!(error.to_string(), "cannot read /nowhere/x");
        assert_eq!(chain::text(&error), "cannot read /nowhere/x: No such file or directory (os error 2)");
    }

    #[test]
    fn errors_of_other_crates_are_taken() {
        let error = Err::<(), _>(rustix::io::Errno::ACCESS).map_err(IoError::of("open", "/x")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }
}
