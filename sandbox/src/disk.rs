//! Disk images: sparse raw files with an empty ext4, made from templates.
//!
//! mke2fs runs once per size; each further disk copies the few hundred KiB that an empty file system really has.

use std::{
    fs::{self, File},
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
    process::Command,
};

use husk_base::{dirs::make_private_dir, lock::lock_file};

use crate::{Error, Result, paths::Dirs};

/// Default limit of a container's writable space and of an unpacked image, in MiB.
pub const DEFAULT_SIZE_MIB: u64 = 10 * 1024;
/// The smallest and largest limit that can be asked for, in MiB.
pub const SIZE_RANGE_MIB: std::ops::RangeInclusive<u64> = 16..=16 * 1024 * 1024;

/// ext4 without what a disk of ours has no use for: no lazy initialisation, since the file's holes read as zeros.
const MKE2FS: [&str; 7] = ["-q", "-F", "-t", "ext4", "-E", "assume_storage_prezeroed=1,nodiscard", "-m0"];
const WITHOUT_JOURNAL: [&str; 2] = ["-O", "^has_journal,^resize_inode,^metadata_csum"];
const WITH_JOURNAL: [&str; 4] = ["-O", "has_journal,^resize_inode,^metadata_csum", "-J", "size=8"];
/// Disks smaller than this, in MiB, have no room for a journal.
const LEAST_WITH_JOURNAL_MIB: u64 = 64;

/// What becomes of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An image is unpacked on to it, and it is closed cleanly or thrown away.
    Unpacked,
    /// A container writes to it, and it is thrown away when that ends.
    Temporary,
    /// A container writes to it, and finds it again at its next start, also if its VM was killed: it has a journal.
    Kept,
}

/// Makes an empty disk of `size_mib` at `path`.
///
/// # Errors
/// When mke2fs is missing or fails, or the file can't be written.
pub fn create(dirs: &Dirs, path: &Path, size_mib: u64, kind: Kind) -> Result<()> {
    let journal = kind == Kind::Kept && size_mib >= LEAST_WITH_JOURNAL_MIB;
    let template = template(dirs, size_mib, journal)?;
    copy_sparse(&template, path).inspect_err(|_| {
        let _ = fs::remove_file(path);
    })
}

/// The template of this size, made when it is missing.
fn template(dirs: &Dirs, size_mib: u64, journal: bool) -> Result<PathBuf> {
    let kind = if journal { "journal" } else { "empty" };
    let template = dirs.disks().join(format!("{kind}-{size_mib}.img"));
    if template.exists() {
        return Ok(template);
    }
    make_private_dir(&dirs.disks())?;
    let _guard = lock_file(&dirs.disks().join("empty.lock"))?;
    if template.exists() {
        return Ok(template);
    }
    let unfinished = template.with_extension("tmp");
    let file = File::create(&unfinished).map_err(Error::io("create", &unfinished))?;
    file.set_len(size_mib << 20).map_err(Error::io("resize", &unfinished))?;
    format(&unfinished, journal)?;
    file.sync_all().map_err(Error::io("write", &unfinished))?;
    fs::rename(&unfinished, &template).map_err(Error::io("rename", &unfinished))?;
    Ok(template)
}

fn format(path: &Path, journal: bool) -> Result<()> {
    // mke2fs lives in /sbin, which is not on every user's PATH.
    let search = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let features: &[&str] = if journal { &WITH_JOURNAL } else { &WITHOUT_JOURNAL };
    let output =
        Command::new("mke2fs").env("PATH", search).args(MKE2FS).args(features).arg(path).output().map_err(
            |source| Error::Spawn {
                program: "mke2fs".into(),
                hint: "install Debian's package e2fsprogs",
                source,
            },
        )?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Format { path: path.into(), stderr })
}

/// Copies a file's data and leaves its holes holes.
fn copy_sparse(from: &Path, to: &Path) -> Result<()> {
    let source = File::open(from).map_err(Error::io("open", from))?;
    let target =
        File::options().write(true).create_new(true).mode(0o600).open(to).map_err(Error::io("create", to))?;
    let len = source.metadata().map_err(Error::io("read", from))?.len();
    target.set_len(len).map_err(Error::io("resize", to))?;
    let mut end = 0;
    while let Some(start) = seek(&source, end, libc::SEEK_DATA).map_err(Error::io("read", from))? {
        end = seek(&source, start, libc::SEEK_HOLE).map_err(Error::io("read", from))?.unwrap_or(len);
        copy_range(&source, &target, start, end).map_err(Error::io("write", to))?;
    }
    Ok(())
}

/// lseek(2) to data or a hole; `None` when there is no more.
fn seek(file: &File, from: u64, whence: i32) -> std::io::Result<Option<u64>> {
    let from = i64::try_from(from).map_err(std::io::Error::other)?;
    // SAFETY: lseek touches no memory of ours, and the descriptor is open.
    let at = unsafe { libc::lseek(file.as_raw_fd(), from, whence) };
    match u64::try_from(at) {
        Ok(at) => Ok(Some(at)),
        Err(_) => match std::io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
            error => Err(error),
        },
    }
}

fn copy_range(source: &File, target: &File, start: u64, end: u64) -> std::io::Result<()> {
    use std::os::unix::fs::FileExt;
    let mut buffer = vec![0; 128 * 1024];
    let mut at = start;
    while at < end {
        let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        let n = source.read_at(&mut buffer[..want], at)?;
        if n == 0 {
            break;
        }
        target.write_all_at(&buffer[..n], at)?;
        at += n as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_disk_has_its_size_and_takes_little_space() {
        let root = tempfile::tempdir().unwrap();
        let dirs = Dirs::new(Some(root.path()));
        fs::create_dir_all(dirs.disks()).unwrap();
        let path = root.path().join("disk.img");
        create(&dirs, &path, DEFAULT_SIZE_MIB, Kind::Temporary).unwrap();
        let meta = fs::metadata(&path).unwrap();
        assert_eq!(meta.len(), DEFAULT_SIZE_MIB << 20);
        assert!(meta.blocks() * 512 < 1 << 20, "{} blocks", meta.blocks());
        let mut magic = [0; 2];
        std::os::unix::fs::FileExt::read_exact_at(&File::open(&path).unwrap(), &mut magic, 0x438).unwrap();
        assert_eq!(u16::from_le_bytes(magic), 0xef53, "ext4's magic number");
        let mut names: Vec<_> = fs::read_dir(dirs.disks())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, [format!("empty-{DEFAULT_SIZE_MIB}.img"), "empty.lock".into()]);
    }

    #[test]
    fn copies_keep_data_and_holes() {
        use std::os::unix::fs::FileExt;
        let root = tempfile::tempdir().unwrap();
        let (from, to) = (root.path().join("from"), root.path().join("to"));
        let file = File::create(&from).unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(b"begin", 0).unwrap();
        file.write_all_at(b"middle", 40 << 20).unwrap();
        copy_sparse(&from, &to).unwrap();
        assert_eq!(fs::read(&from).unwrap(), fs::read(&to).unwrap());
        assert!(fs::metadata(&to).unwrap().blocks() * 512 < 1 << 20);
    }

    #[test]
    fn an_existing_file_is_never_overwritten() {
        let root = tempfile::tempdir().unwrap();
        let (from, to) = (root.path().join("from"), root.path().join("to"));
        fs::write(&from, "new").unwrap();
        fs::write(&to, "old").unwrap();
        assert!(copy_sparse(&from, &to).is_err());
        assert_eq!(fs::read(&to).unwrap(), b"old");
    }
}
