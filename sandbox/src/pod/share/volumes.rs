//! Directories that containers of a pod mount: each is shared once, whoever mounts it, so the guest has it as one file system. Locks,
//! sockets, FIFOs, and what is mapped into memory are then the same for all of them.

use std::collections::HashMap;

use super::source::Identity;
use crate::pod::spec::ReadOnly;

/// Where they are, below the shared directory. No container's id begins with a dot.
pub(super) const VOLUMES: &str = ".volumes";

/// Those that are shared now.
#[derive(Debug, Default)]
pub(super) struct Volumes {
    shared: HashMap<(Identity, ReadOnly), Volume>,
    /// How many there have been: no place is used twice.
    count: u64,
}

#[derive(Debug)]
struct Volume {
    place: String,
    /// The containers that mount it, once for each mount.
    users: Vec<String>,
}

impl Volumes {
    /// The place where a container finds a directory, and whether it is still to be mounted there. What may be written to is shared
    /// with who only reads, too, whose own mount in the guest is read-only.
    pub(super) fn add(
        &mut self,
        container_id: &str,
        identity: Identity,
        read_only: ReadOnly,
    ) -> (String, bool) {
        let writable = (identity, ReadOnly::No);
        let key = match read_only {
            ReadOnly::Top if self.shared.contains_key(&writable) => writable,
            _ => (identity, read_only),
        };
        let mut fresh = false;
        let volume = self.shared.entry(key).or_insert_with(|| {
            fresh = true;
            let place = format!("{VOLUMES}/{}", self.count);
            self.count += 1;
            Volume { place, users: Vec::new() }
        });
        volume.users.push(container_id.to_owned());
        (volume.place.clone(), fresh)
    }

    /// Forgets what a container mounts; returns the places that nobody uses any more.
    pub(super) fn remove(&mut self, container_id: &str) -> Vec<String> {
        let mut unused = Vec::new();
        self.shared.retain(|_, volume| {
            volume.users.retain(|user| user != container_id);
            if volume.users.is_empty() {
                unused.push(std::mem::take(&mut volume.place));
            }
            !volume.users.is_empty()
        });
        unused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_shared_once_until_nobody_mounts_it() {
        let mut volumes = Volumes::default();
        let (one, other) = (Identity::of_numbers(1), Identity::of_numbers(2));
        assert_eq!(volumes.add("a", one, ReadOnly::No), (".volumes/0".into(), true));
        assert_eq!(volumes.add("a", other, ReadOnly::No), (".volumes/1".into(), true));
        assert_eq!(volumes.add("b", one, ReadOnly::No), (".volumes/0".into(), false));
        assert!(volumes.remove("b").is_empty());
        let mut unused = volumes.remove("a");
        unused.sort();
        assert_eq!(unused, [".volumes/0", ".volumes/1"]);
        assert_eq!(volumes.add("c", one, ReadOnly::No), (".volumes/2".into(), true));
        assert!(volumes.remove("unknown").is_empty());
    }

    #[test]
    fn nobody_can_write_by_who_only_reads() {
        let mut volumes = Volumes::default();
        let one = Identity::of_numbers(1);
        assert!(volumes.add("reads", one, ReadOnly::Top).1);
        let (writable, fresh) = volumes.add("writes", one, ReadOnly::No);
        assert!(fresh);
        assert_eq!(volumes.add("reads-2", one, ReadOnly::Top), (writable, false));
        assert!(volumes.add("all", one, ReadOnly::All).1);
    }
}
