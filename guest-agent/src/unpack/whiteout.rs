//! Names that stand for removals (image-spec layer.md, "Whiteouts").

use super::error::Reason;
use super::path;

const PREFIX: &[u8] = b".wh.";
/// Begins the names of AUFS's own files, of which the opaque whiteout is the only one with a meaning.
const AUFS_PREFIX: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What the name of an entry asks to be removed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Whiteout {
    /// The lower layers' file or directory of that name, beside the entry.
    Name(Vec<u8>),
    /// All that lower layers have in the directory the entry is in.
    Opaque,
    /// Nothing: the entry belongs to AUFS and is to be left out.
    Aufs,
}

impl Whiteout {
    /// What a cleaned, not empty path asks to be removed, if it does.
    pub(super) fn of(path: &[u8]) -> Result<Option<Self>, Reason> {
        let (directory, name) = path::split(path);
        for above in directory.split(|b| *b == b'/') {
            if above.starts_with(AUFS_PREFIX) {
                return Ok(Some(Self::Aufs));
            }
            if above.starts_with(PREFIX) {
                return Err(Reason::Rule("the path leads through a whiteout"));
            }
        }
        if name == OPAQUE {
            return Ok(Some(Self::Opaque));
        }
        if name.starts_with(AUFS_PREFIX) {
            return Ok(Some(Self::Aufs));
        }
        match name.strip_prefix(PREFIX) {
            None => Ok(None),
            Some(b"" | b"." | b"..") => Err(Reason::Rule("the whiteout names no file")),
            Some(name) => Ok(Some(Self::Name(name.to_vec()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whiteouts_are_told_by_name() {
        for (path, expected) in [
            ("a/b", None),
            ("a/.who", None),
            ("a.wh.b", None),
            (".wh.a", Some(Whiteout::Name(b"a".to_vec()))),
            ("d/.wh....", Some(Whiteout::Name(b"...".to_vec()))),
            (".wh..a", Some(Whiteout::Name(b".a".to_vec()))),
            (".wh..wh..opq", Some(Whiteout::Opaque)),
            ("a/b/.wh..wh..opq", Some(Whiteout::Opaque)),
            (".wh..wh.aufs", Some(Whiteout::Aufs)),
            (".wh..wh.plnk", Some(Whiteout::Aufs)),
            (".wh..wh.plnk/123.456", Some(Whiteout::Aufs)),
        ] {
            assert_eq!(Whiteout::of(path.as_bytes()).unwrap(), expected, "{path}");
        }
    }

    #[test]
    fn whiteouts_of_no_name_are_refused() {
        for path in [".wh.", "a/.wh.", ".wh..", ".wh...", "a/.wh...", ".wh.a/b", "a/.wh.b/c/d"] {
            assert!(Whiteout::of(path.as_bytes()).is_err(), "{path}");
        }
    }
}
