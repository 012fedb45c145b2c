//! The content store.
use crate::*;
use std::path::{Path, PathBuf};

/// A content store.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// What `remove` did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemoveReport {
    /// Names removed.
    pub untagged: Vec<Reference>,
    /// Image ids whose content is gone.
    pub deleted: Vec<Digest>,
    /// Chain ids no longer used by any image.
    pub freed_chain_ids: Vec<Digest>,
    /// Bytes of blobs deleted.
    pub freed_bytes: u64,
}

impl Store {
    /// Opens, creating.
    pub fn open(root: &Path) -> Result<Self> {
        Ok(Self { root: root.to_owned() })
    }
    /// Its directory.
    pub fn root(&self) -> &Path {
        &self.root
    }
    /// Exact reference.
    pub fn get(&self, reference: &Reference) -> Result<Option<Image>> {
        let _ = reference;
        unimplemented!()
    }
    /// By name, id, or id prefix, as Docker resolves an argument.
    pub fn find(&self, name_or_id: &str) -> Result<Option<Image>> {
        let _ = name_or_id;
        unimplemented!()
    }
    /// All images.
    pub fn list(&self) -> Result<Vec<ImageSummary>> {
        unimplemented!()
    }
    /// Removes by name or id prefix.
    pub fn remove(&self, name_or_id: &str) -> Result<RemoveReport> {
        let _ = name_or_id;
        unimplemented!()
    }
}
