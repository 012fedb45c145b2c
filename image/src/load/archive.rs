//! Reading the outer archive.

use std::cell::Cell;
use std::collections::HashMap;
use std::io::{self, Read};
use std::rc::Rc;

use flate2::read::MultiGzDecoder;

use super::contents::{Contents, Member};
use crate::store::Session;
use crate::{Compression, Error, Result};

/// Members looked at; an archive of images has a few per layer.
const MAX_MEMBERS: usize = 20_000;
/// Bytes of headers and long names between two members.
const MAX_HEADERS: u64 = 1 << 20;

/// Compressions that are not read, by their first bytes, and the programs that do.
const FOREIGN: [(&[u8], &str, &str); 3] =
    [(b"\xfd7zXZ\0", "xz", "xz"), (b"BZh", "bzip2", "bzip2"), (b"\x28\xb5\x2f\xfd", "zstd", "zstd")];

/// Stages all regular files of a tar stream.
pub(super) fn read(mut session: Session, source: &mut dyn Read, source_name: String) -> Result<Contents> {
    let bad =
        |problem: &str| Error::NotAnArchive { source_name: source_name.clone(), problem: problem.to_owned() };
    let mut first = Vec::new();
    source.take(6).read_to_end(&mut first).map_err(|e| bad(&e.to_string()))?;
    for (magic, name, program) in FOREIGN {
        if first.starts_with(magic) {
            let problem = format!(
                "it is compressed with {name}: decompress it first, as in `{program} -dc FILE | husk load`"
            );
            return Err(bad(&problem));
        }
    }
    let compression = Compression::of_magic(&first);
    let whole = io::Cursor::new(first).chain(source);
    let plain: Box<dyn Read + '_> = match compression {
        Compression::None => Box::new(whole),
        Compression::Gzip => Box::new(MultiGzDecoder::new(whole)),
        Compression::Zstd => return Err(bad("it is compressed with zstd")),
    };

    // The tar reader takes long names into memory whole: it may only read so much before it shows the next member.
    let budget = Rc::new(Cell::new(MAX_HEADERS));
    let mut archive = tar::Archive::new(Limited { inner: plain, budget: Rc::clone(&budget) });
    let mut members = HashMap::new();
    let mut entries = archive.entries().map_err(|e| bad(&e.to_string()))?;
    let mut count = 0;
    loop {
        budget.set(MAX_HEADERS);
        let Some(entry) = entries.next() else { break };
        let mut entry = entry.map_err(|e| bad(&e.to_string()))?;
        budget.set(u64::MAX);
        count += 1;
        if count > MAX_MEMBERS {
            return Err(bad(&format!("it has more than {MAX_MEMBERS} members")));
        }
        let kind = entry.header().entry_type();
        let name = std::str::from_utf8(&entry.path_bytes()).ok().and_then(|name| resolve("", name));
        if kind.is_gnu_sparse() {
            // Would grow without bound while being read.
            return Err(bad("it has a sparse member"));
        }
        match name {
            Some(name) if kind.is_file() => {
                let staged = session.stage(&mut entry, &source_name)?;
                members.insert(name, Member::File(staged));
            }
            Some(name) if kind.is_symlink() || kind.is_hard_link() => {
                let target = entry.link_name_bytes().and_then(|t| String::from_utf8(t.into_owned()).ok());
                // A symbolic link is relative to its directory, a hard link to the archive.
                let base =
                    if kind.is_symlink() { name.rsplit_once('/').map_or("", |(dir, _)| dir) } else { "" };
                if let Some(target) = target.and_then(|target| resolve(base, &target)) {
                    members.insert(name, Member::Link(target));
                }
            }
            _ => {}
        }
        io::copy(&mut entry, &mut io::sink()).map_err(|e| bad(&e.to_string()))?;
    }
    if count == 0 {
        return Err(bad("it is empty, or no tar file"));
    }
    Ok(Contents::of_archive(session, members, source_name))
}

/// A name as seen from the archive's top; `None` if it leads out of it.
pub(super) fn resolve(base: &str, name: &str) -> Option<String> {
    let mut parts: Vec<&str> = if name.starts_with('/') { Vec::new() } else { base.split('/').collect() };
    parts.retain(|part| !part.is_empty());
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// A reader that stops with an error when its budget is used up.
struct Limited<R> {
    inner: R,
    budget: Rc<Cell<u64>>,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.budget.get();
        if left == 0 && !buffer.is_empty() {
            return Err(io::Error::other("its headers are too long"));
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.inner.read(&mut buffer[..most])?;
        self.budget.set(left - count as u64);
        Ok(count)
    }
}
