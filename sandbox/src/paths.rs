//! Where husk keeps its state, and where its own pieces are.

use std::{
    env,
    path::{Component, Path, PathBuf},
};

use crate::{Error, Result, privilege};

/// The directories that hold husk's state.
#[derive(Debug, Clone)]
pub struct Dirs {
    /// Survives a reboot: images, unpacked disks, containers.
    pub data: PathBuf,
    /// Does not: one directory per running sandbox.
    pub run: PathBuf,
}

impl Dirs {
    /// `root/{data,run}` when a root is given; else the system's places for root, the user's (XDG) for others.
    pub fn new(root: Option<&Path>) -> Self {
        if let Some(root) = root {
            return Self { data: root.join("data"), run: root.join("run") };
        }
        if privilege::is_root() {
            return Self { data: "/var/lib/husk".into(), run: "/run/husk".into() };
        }
        let home = env::var_os("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from);
        let data = env::var_os("XDG_DATA_HOME").map_or_else(|| home.join(".local/share"), PathBuf::from);
        let run = env::var_os("XDG_RUNTIME_DIR")
            .map_or_else(|| env::temp_dir().join(format!("husk-{}", nix::unistd::geteuid())), PathBuf::from);
        Self { data: data.join("husk"), run: run.join("husk") }
    }

    /// The image store.
    pub fn images(&self) -> PathBuf {
        self.data.join("images")
    }

    /// Unpacked images, one read-only disk each, and the templates of empty disks.
    pub fn disks(&self) -> PathBuf {
        self.data.join("disks")
    }
}

/// husk's own pieces, apart from the program that runs.
#[derive(Debug, Clone)]
pub struct Assets {
    /// The VMM's binary.
    pub vmm: PathBuf,
    /// The guest's kernel.
    pub kernel: PathBuf,
    /// The initramfs with the agent.
    pub initramfs: PathBuf,
}

impl Assets {
    /// Finds the pieces beside the running program: `bin/husk` finds `libexec/husk` and `share/husk`; `target/*/husk` of
    /// a source tree finds its neighbours and `build/guest`.
    ///
    /// # Errors
    /// When one is missing: which, and where it was looked for.
    pub fn find(kernel: Option<&Path>) -> Result<Self> {
        let kernel = match kernel {
            Some(path) => path.to_path_buf(),
            None => find("guest kernel", "vmlinux", "../share/husk", "../../build/guest")?,
        };
        Ok(Self {
            vmm: Self::find_vmm()?,
            kernel,
            initramfs: find("initramfs", "initramfs.cpio", "../share/husk", "../../build/guest")?,
        })
    }

    /// Finds the VMM's binary alone.
    ///
    /// # Errors
    /// When it is missing.
    pub fn find_vmm() -> Result<PathBuf> {
        find("VMM", "husk-vmm", "../libexec/husk", ".")
    }

    /// Finds the supervisor's binary.
    ///
    /// # Errors
    /// When it is missing.
    pub fn find_supervisor() -> Result<PathBuf> {
        find("supervisor", "husk-supervisor", "../libexec/husk", ".")
    }

    /// Finds the file system server's binary.
    ///
    /// # Errors
    /// When it is missing.
    pub fn find_filesystem() -> Result<PathBuf> {
        find("file system server", "husk-fs", "../libexec/husk", ".")
    }
}

fn find(what: &'static str, name: &str, installed: &str, in_tree: &str) -> Result<PathBuf> {
    let exe = env::current_exe().map_err(Error::io("find", "the running program"))?;
    let bin = exe.parent().unwrap_or(Path::new("/"));
    // The supervisor is beside the VMM, a directory deeper than `husk`.
    let candidates = [
        bin.join(in_tree).join(name),
        bin.join(installed).join(name),
        bin.join("..").join(installed).join(name),
    ];
    candidates.iter().find(|path| path.is_file()).map(|path| without_dots(path)).ok_or_else(|| {
        Error::AssetMissing { what, looked_in: candidates.map(|path| path.display().to_string()).join(", ") }
    })
}

/// A path without `.` and `..`, which lead to the directory above only where no link is on the way: the running program's
/// path has none.
fn without_dots(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(plain.pop()),
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_have_plain_paths() {
        assert_eq!(without_dots(Path::new("/a/bin/../../a/./libexec/x")), Path::new("/a/libexec/x"));
    }

    #[test]
    fn a_given_root_holds_everything() {
        let dirs = Dirs::new(Some(Path::new("/r")));
        assert_eq!(dirs.images(), Path::new("/r/data/images"));
        assert_eq!(dirs.run, Path::new("/r/run"));
    }

    #[test]
    fn a_missing_piece_says_where_it_was_looked_for() {
        let error = find("thing", "no-such-file", "../share/husk", ".").unwrap_err().to_string();
        assert!(error.contains("thing") && error.contains("share/husk/no-such-file"), "{error}");
    }
}
