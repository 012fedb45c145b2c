//! Sockets that the VMM has made, and that go with it.

use std::path::PathBuf;

/// Sockets that are removed when this is dropped.
#[derive(Debug, Default)]
pub struct SocketFiles(Vec<PathBuf>);

impl SocketFiles {
    /// Adds a socket that was made.
    pub fn add(&mut self, path: PathBuf) {
        self.0.push(path);
    }

    /// Leaves them to another process.
    pub fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for SocketFiles {
    fn drop(&mut self) {
        for path in &self.0 {
            // It may be gone with its directory.
            let _ = std::fs::remove_file(path);
        }
    }
}
