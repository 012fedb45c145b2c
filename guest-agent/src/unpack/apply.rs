//! Applies one layer to a root file system (image-spec layer.md, "Applying Changesets").

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::{fs, io};

use super::digest::{DiffId, DigestReader};
use super::error::{LayerError, Reason};
use super::tar::{Entry, Kind, TarError, TarReader};
use super::tree::{Parent, Tree, open_directory};
use super::whiteout::Whiteout;
use super::{contents, metadata, path, remove};

/// Size of the buffer between decompressor and files, in bytes.
const BUFFER: usize = 256 * 1024;

/// Applies the uncompressed layer `stream` to the directory `root`, then reads on to the stream's end and compares
/// its digest with `expected`.
///
/// `root` should hold the lower layers and be used by nobody else. Nothing outside it is touched. After an error it
/// holds a part of the layer and is of no further use.
pub(crate) fn apply_layer(
    stream: impl Read,
    root: BorrowedFd<'_>,
    expected: &DiffId,
) -> Result<(), LayerError> {
    let mut tar = TarReader::new(BufReader::with_capacity(BUFFER, DigestReader::new(stream)));
    let mut tree = Tree::new(root);
    loop {
        let entry = tar.next_entry().map_err(|error| match error {
            TarError::Malformed(what) => Reason::Malformed { what, offset: tar.header_at() },
            TarError::Io(error) => Reason::stream(error),
        })?;
        let Some(entry) = entry else { break };
        apply_entry(&mut tree, &entry, &mut tar)
            .map_err(|reason| LayerError::at(&entry.path, reason.on(root)))?;
    }
    tree.leave()?;
    let actual = tar.into_drained().map_err(Reason::stream)?.into_inner().finish();
    if actual != *expected {
        return Err(Reason::Digest { expected: expected.to_string(), actual: actual.to_string() }.into());
    }
    Ok(())
}

fn apply_entry(tree: &mut Tree<'_>, entry: &Entry, tar: &mut TarReader<impl BufRead>) -> Result<(), Reason> {
    let path = path::clean(&entry.path)?;
    if path.is_empty() {
        return apply_root(tree, entry);
    }
    let whiteout = Whiteout::of(&path)?;
    if whiteout == Some(Whiteout::Aufs) {
        return Ok(());
    }
    let (directory, name) = path::split(&path);
    let (parent, made) = tree.enter(directory, entry.mtime)?;
    if let Some(whiteout) = whiteout {
        // Removes nothing of this layer, wherever in the layer the whiteout stands.
        let removed = match whiteout {
            Whiteout::Name(name) => remove::remove_lower(&parent.fd, &name, made),
            Whiteout::Opaque => remove::clear_lower(&parent.fd, made),
            Whiteout::Aufs => Ok(()),
        };
        parent.forget_path();
        return removed.map_err(Reason::system("remove what the whiteout names"));
    }
    match &entry.kind {
        Kind::File { size, sparse } => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = make(parent, name, "create the file", |directory| {
                fs::openat(directory, name, flags, Mode::RUSR | Mode::WUSR)
            })?;
            let file = File::from(file);
            contents::write(&file, tar, *size, sparse.as_deref())?;
            metadata::apply(&file, entry)?;
        }
        Kind::Directory => apply_directory(parent, name, entry)?,
        Kind::Symlink(target) => {
            make(parent, name, "make the symlink", |directory| fs::symlinkat(&target[..], directory, name))?;
            metadata::apply_at(&parent.fd, name, entry, true)?;
        }
        Kind::HardLink(target) => apply_hard_link(tree, directory, name, target, entry)?,
        Kind::CharDevice { major, minor } => {
            make_node(parent, name, FileType::CharacterDevice, (*major, *minor), entry)?;
        }
        Kind::BlockDevice { major, minor } => {
            make_node(parent, name, FileType::BlockDevice, (*major, *minor), entry)?;
        }
        Kind::Fifo => make_node(parent, name, FileType::Fifo, (0, 0), entry)?,
    }
    tree.record(name);
    Ok(())
}

/// An entry for the root itself: its attributes are taken, as those of any other directory.
fn apply_root(tree: &mut Tree<'_>, entry: &Entry) -> Result<(), Reason> {
    if !matches!(entry.kind, Kind::Directory) {
        return Err(Reason::Rule("the root is not a directory"));
    }
    tree.leave()?;
    let root = open_directory(tree.root(), b".").map_err(Reason::system("open the root"))?;
    metadata::clear_xattrs(&root, entry)?;
    metadata::apply(&root, entry)
}

fn apply_directory(parent: &mut Parent, name: &[u8], entry: &Entry) -> Result<(), Reason> {
    let existed = parent.file_type(name)? == Some(FileType::Directory);
    if !existed {
        make(parent, name, "make the directory", |above| fs::mkdirat(above, name, Mode::RWXU))?;
    }
    let directory = open_directory(&parent.fd, name).map_err(Reason::system("open the directory"))?;
    if existed {
        metadata::clear_xattrs(&directory, entry)?;
    }
    metadata::apply(&directory, entry)
}

fn make_node(
    parent: &mut Parent,
    name: &[u8],
    file_type: FileType,
    (major, minor): (u32, u32),
    entry: &Entry,
) -> Result<(), Reason> {
    if major >= 1 << 12 || minor >= 1 << 20 {
        return Err(Reason::Rule("there is no such device number"));
    }
    make(parent, name, "make the device or FIFO", |directory| {
        fs::mknodat(directory, name, file_type, Mode::empty(), fs::makedev(major, minor))
    })?;
    metadata::apply_at(&parent.fd, name, entry, false)
}

/// Links to a file of this layer or a lower one; to a symlink itself, not to what it points to.
fn apply_hard_link(
    tree: &mut Tree<'_>,
    directory: &[u8],
    name: &[u8],
    target: &[u8],
    entry: &Entry,
) -> Result<(), Reason> {
    let target = path::clean(target)
        .ok()
        .filter(|target| !target.is_empty())
        .ok_or(Reason::Rule("the hard link's target is not in the root"))?;
    let (target_directory, target_name) = path::split(&target);
    let find = || -> io::Result<(OwnedFd, fs::Stat)> {
        let fd = tree.open(target_directory)?;
        let stat = fs::statat(&fd, target_name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok((fd, stat))
    };
    let (source, stat) = find().map_err(Reason::system("find the hard link's target"))?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(Reason::Rule("the hard link's target is a directory"));
    }
    let (parent, _) = tree.enter(directory, entry.mtime)?;
    let same = fs::statat(&parent.fd, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|there| there.st_ino == stat.st_ino);
    if !same {
        make(parent, name, "make the hard link", |directory| {
            fs::linkat(&source, target_name, directory, name, AtFlags::empty())
        })?;
    }
    metadata::apply_to_link(&parent.fd, name, entry)
}

/// Makes something called `name`, in place of what had that name.
fn make<T>(
    parent: &mut Parent,
    name: &[u8],
    action: &'static str,
    create: impl Fn(&OwnedFd) -> io::Result<T>,
) -> Result<T, Reason> {
    match create(&parent.fd) {
        Err(Errno::EXIST) => {
            if matches!(parent.file_type(name)?, Some(FileType::Directory | FileType::Symlink)) {
                parent.forget_path();
            }
            remove::remove(&parent.fd, name).map_err(Reason::system("remove what was there"))?;
            create(&parent.fd)
        }
        result => result,
    }
    .map_err(Reason::system(action))
}
