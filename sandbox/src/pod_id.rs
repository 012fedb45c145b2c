//! Ids of pods and containers, and the numbers that they begin with.

use std::{fs, io, path::Path};

use husk_base::id::{is_id, random};

use crate::{Error, Result, paths::Dirs};

/// Hexadecimal digits of an id that are a number of their own.
const NUMBER_LEN: usize = 6;
/// User ids from here on, 16 million of them, are husk's: above those that systems give to users, services and containers, and that SSSD makes
/// of a directory's (up to 2,000,200,000); below those that systemd calls foreign (2,147,352,576).
const FIRST_UID: u32 = 2_100_000_000;

/// A new id, whose first six digits no other container and no running pod has: user ids are made of them.
///
/// # Errors
/// When the directories can't be read.
pub fn new(dirs: &Dirs) -> Result<String> {
    let mut taken = Vec::new();
    for dir in [dirs.run.clone(), dirs.data.join("containers")] {
        taken.extend(numbers(&dir)?);
    }
    loop {
        let id = random().map_err(Error::io("read", "the system's random numbers"))?;
        if !taken.contains(&number(&id)) {
            return Ok(id);
        }
    }
}

fn numbers(dir: &Path) -> Result<Vec<u32>> {
    match fs::read_dir(dir) {
        Ok(entries) => {
            let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
            Ok(names.filter(|name| is_id(name)).map(|id| number(&id)).collect())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::io("read", dir)(error)),
    }
}

/// The user id of a pod's VMM.
pub(crate) fn uid_of(id: &str) -> u32 {
    FIRST_UID + number(id)
}

/// The number that an id begins with.
pub(crate) fn number(id: &str) -> u32 {
    id.get(..NUMBER_LEN).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or(0)
}
