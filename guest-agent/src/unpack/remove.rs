//! Removes files and whole trees, without following a symlink, and without recursion: a layer decides how deep a tree
//! is, so neither the stack nor the number of open files may depend on it.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, RawDir, Timestamps};
use rustix::io::Errno;
use rustix::{fs, io};

use super::tree::{Made, open_directory, times};

/// Size of the buffer for directory entries, in bytes.
const BUFFER: usize = 32 * 1024;

/// One directory on the way from where the removal began to where it is.
struct Level {
    /// Its name in the level above; empty for the first.
    name: Vec<u8>,
    inode: u64,
    times: Timestamps,
    /// Directories in it that are still to be visited.
    pending: Vec<Vec<u8>>,
    /// Something in it stays.
    keeps: bool,
}

/// Removes `name`, with all that is in it; nothing happens if there is none.
pub(super) fn remove(directory: impl AsFd, name: &[u8]) -> io::Result<()> {
    remove_except(directory, name, None)
}

/// Removes `name` and all that is in it, except what `made` names and the directories on the way to that.
pub(super) fn remove_lower(directory: impl AsFd, name: &[u8], made: &Made) -> io::Result<()> {
    remove_except(directory, name, Some(made))
}

/// Removes all that is in `directory`, except what `made` names and the directories on the way to that.
pub(super) fn clear_lower(directory: impl AsFd, made: &Made) -> io::Result<()> {
    clear(open_directory(directory, b".")?, Some(made)).map(|_| ())
}

fn remove_except(directory: impl AsFd, name: &[u8], made: Option<&Made>) -> io::Result<()> {
    let stat = match fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    let stays = match made {
        Some(made) => made.contains(fs::fstat(&directory)?.st_ino, name),
        None => false,
    };
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        let keeps = clear(open_directory(&directory, name)?, made)?;
        if !keeps && !stays {
            fs::unlinkat(directory, name, AtFlags::REMOVEDIR)?;
        }
    } else if !stays {
        fs::unlinkat(directory, name, AtFlags::empty())?;
    }
    Ok(())
}

/// Empties a directory, except for what `made` names. Returns whether anything stays.
fn clear(mut directory: OwnedFd, made: Option<&Made>) -> io::Result<bool> {
    let stays = |inode, name: &[u8]| made.is_some_and(|made| made.contains(inode, name));
    let mut buffer = vec![MaybeUninit::uninit(); BUFFER];
    let mut level = scan(&directory, Vec::new(), &stays, &mut buffer)?;
    let mut above = Vec::new();
    loop {
        if let Some(name) = level.pending.pop() {
            directory = open_directory(&directory, &name)?;
            let below = scan(&directory, name, &stays, &mut buffer)?;
            above.push(std::mem::replace(&mut level, below));
            continue;
        }
        if level.keeps {
            fs::futimens(&directory, &level.times)?;
        }
        let Some(outer) = above.pop() else { return Ok(level.keeps) };
        // Nobody else moves directories here, so this is where we came from.
        directory = open_directory(&directory, b"..")?;
        let Level { name, keeps, .. } = std::mem::replace(&mut level, outer);
        if keeps || stays(level.inode, &name) {
            level.keeps = true;
        } else {
            fs::unlinkat(&directory, &name, AtFlags::REMOVEDIR)?;
        }
    }
}

/// Removes the files in a directory and notes the directories in it.
fn scan(
    directory: &OwnedFd,
    name: Vec<u8>,
    stays: &impl Fn(u64, &[u8]) -> bool,
    buffer: &mut [MaybeUninit<u8>],
) -> io::Result<Level> {
    let stat = fs::fstat(directory)?;
    let mut level =
        Level { name, inode: stat.st_ino, times: times(&stat), pending: Vec::new(), keeps: false };
    let mut entries = RawDir::new(directory, buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        let mut file_type = entry.file_type();
        if file_type == FileType::Unknown {
            let stat = fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
            file_type = FileType::from_raw_mode(stat.st_mode);
        }
        if file_type == FileType::Directory {
            level.pending.push(name.to_vec());
        } else if stays(stat.st_ino, name) {
            level.keeps = true;
        } else {
            fs::unlinkat(directory, name, AtFlags::empty())?;
        }
    }
    Ok(level)
}
