//! Names of containers: symbolic links to their ids, so that one is claimed by one system call. A link whose container has
//! another name, or is gone, was left by a crash and means nothing.

use std::{fs, io, os::unix::fs::symlink};

use husk_base::id;

use super::Store;
use crate::{Error, Result};

/// What random names are made of.
const ADJECTIVES: [&str; 48] = [
    "able", "amber", "apt", "blithe", "bold", "brave", "brisk", "calm", "candid", "civil", "clear", "clever",
    "crisp", "deft", "eager", "early", "fair", "fleet", "fond", "frank", "fresh", "gentle", "glad", "hardy",
    "jolly", "keen", "kind", "light", "lively", "lucid", "merry", "mild", "neat", "nimble", "patient",
    "plain", "polite", "prompt", "proud", "quick", "quiet", "ready", "sober", "steady", "sunny", "swift",
    "tidy", "warm",
];
const NOUNS: [&str; 48] = [
    "acorn", "almond", "apple", "barley", "bean", "beech", "birch", "cedar", "chestnut", "clover", "cocoa",
    "corn", "date", "elm", "fern", "fig", "flax", "grain", "hazel", "hemp", "hickory", "kernel", "larch",
    "laurel", "lentil", "linden", "lupin", "maize", "maple", "millet", "nutmeg", "oak", "oat", "olive",
    "pea", "pecan", "pine", "plum", "poppy", "quinoa", "rice", "rowan", "rye", "seed", "sorrel", "spelt",
    "walnut", "wheat",
];

impl Store {
    /// A name for a container whose user chose none, made of its id.
    pub fn random_name(&self, id: &str) -> String {
        let digits = |at: usize| id.get(at..at + 4).and_then(|four| usize::from_str_radix(four, 16).ok());
        let pick = |words: &[&'static str; 48], at| words[digits(at).unwrap_or_default() % words.len()];
        let name = format!("{}_{}", pick(&ADJECTIVES, 8), pick(&NOUNS, 12));
        if self.owner_of(&name).is_none() {
            name
        } else {
            format!("{name}{}", digits(16).unwrap_or_default())
        }
    }

    /// The id of the container that has this name.
    pub(super) fn owner_of(&self, name: &str) -> Option<String> {
        let id = fs::read_link(self.names.join(name)).ok()?.to_str()?.to_owned();
        if !id::is_id(&id) || !self.dir(&id).is_dir() {
            return None;
        }
        // A record that can't be read keeps its name.
        self.config(&id).map_or(true, |config| config.name == name).then_some(id)
    }

    /// Makes `name` that of `id`; under the lock of all records.
    pub(super) fn claim_name(&self, name: &str, id: &str) -> Result<()> {
        let link = self.names.join(name);
        if let Some(owner) = self.owner_of(name).filter(|owner| owner != id) {
            return Err(Error::NameInUse { name: name.into(), id: owner });
        }
        match fs::remove_file(&link) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &link)(error));
            }
            _ => {}
        }
        symlink(id, &link).map_err(Error::io("create", link))
    }

    /// Lets go of a name, if it is that of `id`.
    pub(super) fn release_name(&self, name: &str, id: &str) {
        let link = self.names.join(name);
        if fs::read_link(&link).is_ok_and(|owner| owner.to_str() == Some(id)) {
            // A link that stays means nothing.
            let _ = fs::remove_file(link);
        }
    }

    /// Lets go of a container's name, which its record may not tell any more.
    pub(super) fn release_names_of(&self, id: &str) {
        if let Ok(config) = self.config(id) {
            return self.release_name(&config.name, id);
        }
        let entries = fs::read_dir(&self.names).into_iter().flatten().flatten();
        for entry in entries {
            if let Some(name) = entry.file_name().to_str() {
                self.release_name(name, id);
            }
        }
    }
}
