//! `oci-layout`, `index.json` and the lock around changes to them.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io;

use husk_base::json_file::{self, JsonFileError};
use husk_base::lock::lock_file;
use serde::{Deserialize, Serialize};

use super::Store;
use crate::manifest::OCI_INDEX;
use crate::{Digest, Error, Reference, Result};

const LAYOUT_VERSION: &str = "1.0.0";
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const CREATED: &str = "org.opencontainers.image.created";
const CONFIG: &str = "dev.husk.image.config";
const DISK: &str = "dev.husk.image.disk";
/// Its name in older stores, where disks were called after what images say of their layers.
const OLD_DISK: &str = "dev.husk.image.chain-id";
const SIZE: &str = "dev.husk.image.size";
const SOURCE: &str = "dev.husk.image.source-digest";

/// One entry of `index.json`, with all that a list of images shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) reference: Option<Reference>,
    pub(crate) manifest_media_type: String,
    pub(crate) manifest_digest: Digest,
    pub(crate) manifest_size: u64,
    pub(crate) config_digest: Digest,
    pub(crate) disk_key: Digest,
    /// Bytes of the configuration and all layers.
    pub(crate) size: u64,
    pub(crate) created: Option<String>,
    /// Digest of the index through which the manifest was found, so that the image is found by it again.
    pub(crate) source_digest: Option<Digest>,
}

impl Record {
    /// Its name, or its id if it has none.
    pub(crate) fn display_name(&self) -> String {
        match &self.reference {
            Some(reference) => reference.familiar(),
            None => self.config_digest.to_string(),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LayoutJson {
    image_layout_version: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct IndexJson {
    schema_version: u32,
    media_type: String,
    manifests: Vec<EntryJson>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct EntryJson {
    media_type: String,
    digest: Digest,
    size: u64,
    annotations: BTreeMap<String, String>,
}

/// The store's lock, held until dropped.
#[derive(Debug)]
pub(crate) struct StoreLock {
    _file: File,
}

impl Store {
    /// Takes the lock that guards `index.json` and the removal of blobs. Held for moments only.
    pub(crate) fn lock(&self) -> Result<StoreLock> {
        let file = lock_file(&self.root.join("index.lock")).map_err(Error::in_store(&self.root))?;
        Ok(StoreLock { _file: file })
    }

    /// Whether a store is there. Something else in its place is an error.
    pub(super) fn check_version(&self) -> Result<bool> {
        let path = self.root.join("oci-layout");
        let problem = |problem: String| Error::NotAStore { path: self.root.clone(), problem };
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(Error::io("read", &path)(error)),
        };
        let layout: LayoutJson =
            serde_json::from_slice(&bytes).map_err(|e| problem(format!("oci-layout: {e}")))?;
        if layout.image_layout_version != LAYOUT_VERSION {
            return Err(problem(format!("it has layout version {:?}", layout.image_layout_version)));
        }
        Ok(true)
    }

    pub(super) fn write_version(&self) -> Result<()> {
        let json = LayoutJson { image_layout_version: LAYOUT_VERSION.to_owned() };
        self.replace("oci-layout", &json)
    }

    /// Reads the index. Needs no lock, as it is only ever replaced as a whole.
    pub(crate) fn records(&self) -> Result<Vec<Record>> {
        let path = self.root.join("index.json");
        let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
        let problem = |problem: String| Error::NotAStore {
            path: self.root.clone(),
            problem: format!("index.json: {problem}"),
        };
        let index: IndexJson = serde_json::from_slice(&bytes).map_err(|e| problem(e.to_string()))?;
        index
            .manifests
            .into_iter()
            .map(|entry| {
                let digest = entry.digest.clone();
                entry.into_record().ok_or_else(|| problem(format!("entry {digest} was not written by husk")))
            })
            .collect()
    }

    /// Replaces the index. The caller holds the lock.
    pub(super) fn write_records(&self, records: &[Record]) -> Result<()> {
        let manifests = records.iter().map(EntryJson::from_record).collect();
        self.replace(
            "index.json",
            &IndexJson { schema_version: 2, media_type: OCI_INDEX.to_owned(), manifests },
        )
    }

    /// Adds an image to the index, taking its name from whichever image had it before. An image that loses its last
    /// name stays, nameless, until it is removed by id.
    pub(crate) fn add_record(&self, new: Record) -> Result<()> {
        let _lock = self.lock()?;
        let mut records = self.records()?;
        if records.contains(&new) {
            return Ok(());
        }
        for record in &mut records {
            if record.reference == new.reference {
                record.reference = None;
            }
        }
        records.push(new);
        drop_superfluous(&mut records);
        self.write_records(&records)
    }

    /// Replaces a file as a whole. The caller holds the lock.
    fn replace(&self, name: &str, content: &impl Serialize) -> Result<()> {
        json_file::write_durable(&self.root.join(name), content).map_err(|error| match error {
            JsonFileError::Io(error) => Error::in_store(&self.root)(error),
            error => Error::Index(error),
        })
    }
}

/// Drops nameless entries of images that have another entry.
fn drop_superfluous(records: &mut Vec<Record>) {
    let named: HashSet<Digest> =
        records.iter().filter(|r| r.reference.is_some()).map(|r| r.manifest_digest.clone()).collect();
    let mut nameless = HashSet::new();
    records.retain(|r| {
        r.reference.is_some()
            || (!named.contains(&r.manifest_digest) && nameless.insert(r.manifest_digest.clone()))
    });
}

impl EntryJson {
    fn from_record(record: &Record) -> Self {
        let mut annotations = BTreeMap::from([
            (CONFIG.to_owned(), record.config_digest.to_string()),
            (DISK.to_owned(), record.disk_key.to_string()),
            (SIZE.to_owned(), record.size.to_string()),
        ]);
        let optional = [
            (REF_NAME, record.reference.as_ref().map(Reference::to_string)),
            (CREATED, record.created.clone()),
            (SOURCE, record.source_digest.as_ref().map(Digest::to_string)),
        ];
        annotations.extend(optional.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
        Self {
            media_type: record.manifest_media_type.clone(),
            digest: record.manifest_digest.clone(),
            size: record.manifest_size,
            annotations,
        }
    }

    fn into_record(self) -> Option<Record> {
        let get = |key: &str| self.annotations.get(key);
        let optional_digest = |text: Option<&String>| text.map(|t| t.parse()).transpose();
        Some(Record {
            reference: get(REF_NAME).map(|name| name.parse()).transpose().ok()?,
            config_digest: get(CONFIG)?.parse().ok()?,
            disk_key: get(DISK).or_else(|| get(OLD_DISK))?.parse().ok()?,
            size: get(SIZE)?.parse().ok()?,
            created: get(CREATED).cloned(),
            source_digest: optional_digest(get(SOURCE)).ok()?,
            manifest_media_type: self.media_type,
            manifest_digest: self.digest,
            manifest_size: self.size,
        })
    }
}
