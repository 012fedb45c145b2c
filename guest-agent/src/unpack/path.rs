//! Names of entries, made relative to the root and free of `.` and `..`.

use super::error::Reason;

/// Linux's limit on a path in a system call, its final NUL included.
const PATH_MAX: usize = 4096;
/// Linux's limit on one component.
const NAME_MAX: usize = 255;

/// Cleans a path from a tar: absolute names become relative to the root, `.` and empty components vanish, `x/..`
/// cancels out. The root itself is the empty path.
///
/// A path that climbs above the root is refused, as is one that no Linux file could have.
pub(super) fn clean(raw: &[u8]) -> Result<Vec<u8>, Reason> {
    if raw.is_empty() {
        return Err(Reason::Rule("the name is empty"));
    }
    if raw.contains(&0) {
        return Err(Reason::Rule("the name contains a NUL byte"));
    }
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in raw.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop().ok_or(Reason::Rule("the path climbs out of the root"))?;
            }
            _ if part.len() > NAME_MAX => return Err(Reason::Rule("a name in the path is too long")),
            _ => parts.push(part),
        }
    }
    let path = parts.join(&b'/');
    if path.len() >= PATH_MAX {
        return Err(Reason::Rule("the path is too long"));
    }
    Ok(path)
}

/// Splits a cleaned path into the directory and the name in it.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned(raw: &str) -> Option<String> {
        clean(raw.as_bytes()).ok().map(|p| String::from_utf8(p).unwrap())
    }

    #[test]
    fn paths_are_relative_to_the_root() {
        for (raw, expected) in [
            ("a/b", "a/b"),
            ("./a//b/", "a/b"),
            ("/etc/passwd", "etc/passwd"),
            ("a/./../b", "b"),
            ("a/b/../../c", "c"),
            ("./", ""),
            ("/", ""),
            ("...", "..."),
            ("a/..b", "a/..b"),
        ] {
            assert_eq!(cleaned(raw).as_deref(), Some(expected), "{raw}");
        }
    }

    #[test]
    fn climbing_and_impossible_paths_are_refused() {
        for raw in ["", "..", "../x", "/../x", "a/../../x", "./..", "a\0b"] {
            assert_eq!(cleaned(raw), None, "{raw:?}");
        }
        assert!(clean(&[b'x'; 255]).is_ok());
        assert!(clean(&[b'x'; 256]).is_err());
        let long = b"d/".repeat(2047);
        assert!(clean(&long).is_ok());
        assert!(clean(&[&long[..], b"xxx"].concat()).is_err());
    }

    #[test]
    fn split_takes_the_last_name() {
        assert_eq!(split(b"a/b/c"), (&b"a/b"[..], &b"c"[..]));
        assert_eq!(split(b"c"), (&b""[..], &b"c"[..]));
    }
}
