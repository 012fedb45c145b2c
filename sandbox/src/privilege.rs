//! Whether husk may do what root may.

use std::{fs, sync::OnceLock};

const UID_MAP: &str = "/proc/self/uid_map";

/// Whether this process is the machine's root, not that of a user namespace, which owns little.
pub fn is_root() -> bool {
    static IS_ROOT: OnceLock<bool> = OnceLock::new();
    *IS_ROOT.get_or_init(|| {
        // A kernel without user namespaces has no map.
        nix::unistd::geteuid().is_root() && fs::read_to_string(UID_MAP).map_or(true, |map| is_everybody(&map))
    })
}

/// Whether a map (user_namespaces(7)) leaves all ids as they are.
fn is_everybody(map: &str) -> bool {
    map.split_whitespace().eq(["0", "0", &u32::MAX.to_string()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespaces_root_is_told_from_the_machines() {
        assert!(is_everybody("         0          0 4294967295\n"));
        assert!(!is_everybody("         0       1000          1\n"));
        assert!(!is_everybody("0 0 65536\n65536 100000 65536\n"));
    }
}
