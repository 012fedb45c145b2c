//! Removing images, and blobs that no image needs.

use std::collections::HashSet;
use std::fs;

use husk_base::atomic::sync_directory;

use super::layout::Record;
use super::{Found, Store, resolve};
use crate::digest::is_hex64;
use crate::{Digest, Error, Reference, Result};

/// What [`Store::remove`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemoveReport {
    /// Names taken away.
    pub untagged: Vec<Reference>,
    /// Ids of images that are gone.
    pub deleted: Vec<Digest>,
    /// Keys of unpacked disks that no image has any more: they can go.
    pub freed_disks: Vec<Digest>,
    /// Bytes of blobs removed.
    pub freed_bytes: u64,
}

impl Store {
    /// Removes a name, or an image by its id or the id's beginning. With its last name an image goes, and with it all
    /// blobs that no other image and no running pull or load needs.
    ///
    /// # Errors
    /// No such image, an ambiguous id, an id of an image with several names, or a store that can't be changed.
    pub fn remove(&self, name_or_id: &str) -> Result<RemoveReport> {
        let _lock = self.lock()?;
        let records = self.records()?;
        let doomed: Vec<Record> = match resolve(&records, name_or_id)? {
            Found::Nothing => return Err(Error::NoSuchImage(name_or_id.to_owned())),
            Found::Named(record) => vec![record.clone()],
            Found::ById(found) => {
                let names: Vec<String> =
                    found.iter().filter_map(|r| r.reference.as_ref()).map(Reference::familiar).collect();
                if names.len() > 1 {
                    return Err(Error::SeveralNames { id: name_or_id.to_owned(), names });
                }
                found.into_iter().cloned().collect()
            }
        };
        let left: Vec<Record> = records.into_iter().filter(|r| !doomed.contains(r)).collect();
        // The index first: if husk dies in between, blobs are left over, and the next removal finds them.
        self.write_records(&left)?;
        let mut report = RemoveReport { freed_bytes: self.collect(&left)?, ..RemoveReport::default() };
        for record in doomed {
            if left.iter().all(|r| r.disk_key != record.disk_key) {
                push_new(&mut report.freed_disks, record.disk_key);
            }
            if left.iter().all(|r| r.config_digest != record.config_digest) {
                push_new(&mut report.deleted, record.config_digest);
            }
            report.untagged.extend(record.reference);
        }
        Ok(report)
    }

    /// Removes blobs that nobody needs. The caller holds the lock.
    fn collect(&self, records: &[Record]) -> Result<u64> {
        self.sweep()?;
        let mut needed: HashSet<String> = self.leased()?;
        for record in records {
            needed.insert(record.manifest_digest.hex().to_owned());
            needed.insert(record.config_digest.hex().to_owned());
            // An image without a readable manifest can't be used; its layers come again when it is pulled again.
            if let Ok(manifest) = self.manifest("", &record.manifest_digest) {
                needed.extend(manifest.layers.into_iter().map(|l| l.digest.hex().to_owned()));
            }
        }
        let dir = self.root.join("blobs/sha256");
        let mut freed = 0;
        for entry in fs::read_dir(&dir).map_err(Error::io("list", &dir))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !is_hex64(&name) || needed.contains(&name) {
                continue;
            }
            let size = entry.metadata().map_or(0, |m| m.len());
            let path = entry.path();
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
            freed += size;
        }
        sync_directory(&dir).map_err(Error::io("sync", &dir))?;
        Ok(freed)
    }
}

fn push_new(list: &mut Vec<Digest>, item: Digest) {
    if !list.contains(&item) {
        list.push(item);
    }
}
