//! Applies tars built here to directories. All of these tests need root: they set owners, make devices, set
//! `trusted.*` attributes and shut themselves into a root directory of their own.

mod archive;
mod cage;
mod damage;
mod formats;
mod fuzz;
mod hostile;
mod rules;

use std::fs::{self, File, Metadata};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{DiffId, LayerError, apply_layer};
use archive::Archive;

/// A root to unpack into, with neighbours that must never change.
struct Root {
    outside: TempDir,
    path: PathBuf,
}

impl Root {
    fn new() -> Self {
        cage::enter();
        let outside = tempfile::tempdir_in("/tmp").unwrap();
        let path = outside.path().join("root");
        fs::create_dir(&path).unwrap();
        fs::create_dir(outside.path().join("canary")).unwrap();
        fs::write(outside.path().join("canary/file"), "sings").unwrap();
        Self { outside, path }
    }

    /// A root on to which the given layers were applied.
    fn with(layers: &[Archive]) -> Self {
        let root = Self::new();
        for layer in layers {
            root.apply(layer).unwrap();
        }
        root
    }

    fn apply(&self, layer: &Archive) -> Result<(), LayerError> {
        self.apply_bytes(&layer.finish())
    }

    fn apply_bytes(&self, tar: &[u8]) -> Result<(), LayerError> {
        let result = apply_layer(tar, File::open(&self.path).unwrap().as_fd(), &digest(tar));
        self.check_canary();
        result
    }

    /// What is outside is as it was.
    fn check_canary(&self) {
        assert_eq!(names(Path::new("/")), ["proc", "tmp"]);
        assert_eq!(names(self.outside.path()), ["canary", "root"]);
        assert_eq!(names(&self.outside.path().join("canary")), ["file"]);
        assert_eq!(fs::read(self.outside.path().join("canary/file")).unwrap(), b"sings");
    }

    fn canary(&self) -> PathBuf {
        self.outside.path().join("canary")
    }

    fn at(&self, path: &str) -> PathBuf {
        self.path.join(path)
    }

    fn stat(&self, path: &str) -> Metadata {
        fs::symlink_metadata(self.at(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    fn read(&self, path: &str) -> Vec<u8> {
        fs::read(self.at(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    fn exists(&self, path: &str) -> bool {
        fs::symlink_metadata(self.at(path)).is_ok()
    }

    fn xattr(&self, path: &str, name: &str) -> Option<Vec<u8>> {
        let mut value = vec![0; 4096];
        let length = rustix::fs::lgetxattr(self.at(path), name, &mut value[..]).ok()?;
        value.truncate(length);
        Some(value)
    }

    fn mtime(&self, path: &str) -> (i64, i64) {
        let stat = self.stat(path);
        (stat.mtime(), stat.mtime_nsec())
    }

    /// Every path in the root, sorted.
    fn tree(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut pending = vec![self.path.clone()];
        while let Some(directory) = pending.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    pending.push(entry.path());
                }
                found.push(entry.path().strip_prefix(&self.path).unwrap().to_str().unwrap().to_owned());
            }
        }
        found.sort();
        found
    }
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn digest(bytes: &[u8]) -> DiffId {
    let mut reader = super::digest::DigestReader::new(bytes);
    std::io::copy(&mut reader, &mut std::io::sink()).unwrap();
    reader.finish()
}
