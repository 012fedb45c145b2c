//! From a stream to its entries.

use std::io::{self, BufRead};
use std::mem;

use rustix::fs::Timespec;

use super::header::{self, Header};
use super::pax::{Pax, PaxSparse};
use super::sparse::{self, Segment, TextMap};
use super::{BLOCK, Entry, Kind, TarError};

/// Longest extended header or GNU long name accepted, in bytes; Go's limit too.
const MAX_SPECIAL: u64 = 1 << 20;

/// An archive being read: [`next_entry`](Self::next_entry), then that entry's data, and so on.
pub(in super::super) struct TarReader<R> {
    inner: R,
    /// Bytes of the stream taken so far.
    position: u64,
    /// Where the latest header began.
    header_at: u64,
    /// Bytes left of the current entry's data.
    left: u64,
    /// Bytes that fill up the last block of the data.
    padding: u64,
}

impl<R: BufRead> TarReader<R> {
    pub(in super::super) fn new(inner: R) -> Self {
        Self { inner, position: 0, header_at: 0, left: 0, padding: 0 }
    }

    /// Where in the stream the latest header began, in bytes.
    pub(in super::super) fn header_at(&self) -> u64 {
        self.header_at
    }

    /// Skips what is left of the current entry and reads the next one's headers. None at the end of the archive.
    pub(in super::super) fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let (mut pax, mut long_name, mut long_link) = (Pax::default(), None, None);
        loop {
            self.skip_entry()?;
            let Some(block) = self.header_block()? else { return Ok(None) };
            let header = Header::new(block)?;
            self.set_size(header.size()?);
            match header.type_flag() {
                b'x' => pax = Pax::parse(&self.special()?)?,
                // containerd and Docker ignore global headers too; what writes them (git) puts a comment there.
                b'g' => {}
                b'L' => long_name = Some(header::text(&self.special()?).to_vec()),
                b'K' => long_link = Some(header::text(&self.special()?).to_vec()),
                _ => return self.entry(&header, pax, long_name, long_link).map(Some),
            }
        }
    }

    /// The next piece of the current entry's data, as much of it as is buffered; empty at its end.
    pub(in super::super) fn data(&mut self) -> io::Result<&[u8]> {
        if self.left == 0 {
            return Ok(&[]);
        }
        let buffer = self.inner.fill_buf()?;
        if buffer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let length = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        Ok(&buffer[..length])
    }

    /// Marks `length` bytes of [`data`](Self::data) as done with.
    pub(in super::super) fn consume(&mut self, length: usize) {
        self.inner.consume(length);
        self.position += length as u64;
        self.left -= length as u64;
    }

    /// Reads the stream to its end, past the end of the archive, and hands it back.
    pub(in super::super) fn into_drained(mut self) -> io::Result<R> {
        loop {
            let length = self.inner.fill_buf()?.len();
            if length == 0 {
                return Ok(self.inner);
            }
            self.inner.consume(length);
        }
    }

    fn entry(
        &mut self,
        header: &Header,
        mut pax: Pax,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry, TarError> {
        if let Some(size) = pax.size {
            self.set_size(size);
        }
        let mut path = long_name.or(pax.path.take()).unwrap_or_else(|| header.name());
        let link = long_link.or(pax.link_path.take()).unwrap_or_else(|| header.link_name());
        let kind = match header.type_flag() {
            // V7 had no type for directories.
            0 if path.ends_with(b"/") => Kind::Directory,
            0 | b'0' | b'7' => {
                let kind = self.file(&mut pax.sparse)?;
                if let (Kind::File { sparse: Some(_), .. }, Some(name)) = (&kind, pax.sparse.name) {
                    path = name;
                }
                kind
            }
            b'S' => self.old_gnu_sparse(header)?,
            b'1' => Kind::HardLink(link),
            b'2' => Kind::Symlink(link),
            flag @ (b'3' | b'4') => {
                let (major, minor) = header.device()?;
                let device = |n| u32::try_from(n).map_err(|_| TarError::Malformed("bad device number"));
                let (major, minor) = (device(major)?, device(minor)?);
                if flag == b'3' {
                    Kind::CharDevice { major, minor }
                } else {
                    Kind::BlockDevice { major, minor }
                }
            }
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            _ => return Err(TarError::Malformed("unknown type of entry")),
        };
        if !matches!(kind, Kind::File { .. }) {
            // Whatever their size field says, these have no data.
            self.set_size(0);
        }
        Ok(Entry {
            path,
            kind,
            mode: u32::try_from(header.mode()? & 0o7777).unwrap_or_default(),
            uid: id(pax.uid.map_or_else(|| header.uid(), Ok)?)?,
            gid: id(pax.gid.map_or_else(|| header.gid(), Ok)?)?,
            mtime: match pax.mtime {
                Some(mtime) => mtime,
                None => Timespec { tv_sec: header.mtime()?, tv_nsec: 0 },
            },
            atime: pax.atime,
            xattrs: pax.xattrs,
        })
    }

    /// A regular file, perhaps of one of the pax sparse formats.
    fn file(&mut self, sparse: &mut PaxSparse) -> Result<Kind, TarError> {
        let numbers = match sparse.version {
            (Some(1), Some(0)) => self.text_map()?,
            (None, None) | (Some(0), Some(0 | 1)) if sparse.map.is_empty() && sparse.real_size.is_none() => {
                return Ok(Kind::File { size: self.left, sparse: None });
            }
            (None, None) | (Some(0), Some(0 | 1)) => mem::take(&mut sparse.map),
            _ => return Err(TarError::Malformed("unknown version of the sparse format")),
        };
        let size = sparse.real_size.ok_or(TarError::Malformed("the sparse file's size is missing"))?;
        Ok(Kind::File { size, sparse: Some(sparse::segments(&numbers, size, self.left)?) })
    }

    /// Reads the sparse map of format 1.0, which stands before the data.
    fn text_map(&mut self) -> Result<Vec<u64>, TarError> {
        let mut map = TextMap::default();
        loop {
            if self.left < BLOCK as u64 {
                return Err(TarError::Malformed("the sparse map is cut short"));
            }
            let mut block = [0; BLOCK];
            self.read(&mut block)?;
            self.left -= BLOCK as u64;
            if map.add(&block)? {
                return Ok(map.into_numbers());
            }
        }
    }

    /// A sparse file of GNU's old format. The rest of the map is in blocks between header and data.
    fn old_gnu_sparse(&mut self, header: &Header) -> Result<Kind, TarError> {
        if !header.is_gnu() {
            return Err(TarError::Malformed("unknown type of entry"));
        }
        let mut numbers = Vec::new();
        let (map, mut more) = header.gnu_sparse_map();
        sparse::add_old_gnu(map, &mut numbers)?;
        while more {
            let mut block = [0; BLOCK];
            self.read(&mut block)?;
            sparse::add_old_gnu(&block[..504], &mut numbers)?;
            more = block[504] != 0;
        }
        let size = header.gnu_real_size()?;
        let segments: Vec<Segment> = sparse::segments(&numbers, size, self.left)?;
        Ok(Kind::File { size, sparse: Some(segments) })
    }

    fn set_size(&mut self, size: u64) {
        self.left = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    fn skip_entry(&mut self) -> io::Result<()> {
        while self.left > 0 {
            let length = self.data()?.len();
            self.consume(length);
        }
        // Some writers leave out the padding of the last entry; so the archive may end within it.
        while self.padding > 0 {
            let available = self.inner.fill_buf()?.len();
            if available == 0 {
                break;
            }
            let length = usize::try_from(self.padding).map_or(available, |padding| padding.min(available));
            self.inner.consume(length);
            self.position += length as u64;
            self.padding -= length as u64;
        }
        self.padding = 0;
        Ok(())
    }

    /// The next header. None at the end: two blocks of zeros, or, as some writers have it, fewer and no more data.
    fn header_block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        self.header_at = self.position;
        let mut block = [0; BLOCK];
        for _ in 0..2 {
            if self.inner.fill_buf()?.is_empty() {
                return Ok(None);
            }
            let was_zero = self.position != self.header_at;
            self.read(&mut block)?;
            if block != [0; BLOCK] {
                if was_zero {
                    return Err(TarError::Malformed("a single block of zeros stands between entries"));
                }
                return Ok(Some(block));
            }
        }
        Ok(None)
    }

    /// The data of an extended header or long name.
    fn special(&mut self) -> Result<Vec<u8>, TarError> {
        if self.left > MAX_SPECIAL {
            return Err(TarError::Malformed("an extended header is too long"));
        }
        let mut data = Vec::new();
        while self.left > 0 {
            let piece = self.data()?;
            let length = piece.len();
            data.extend_from_slice(piece);
            self.consume(length);
        }
        Ok(data)
    }

    fn read(&mut self, block: &mut [u8; BLOCK]) -> io::Result<()> {
        self.inner.read_exact(block)?;
        self.position += BLOCK as u64;
        Ok(())
    }
}

/// A user or group id. The highest value means "unchanged" to the kernel, so no file can have it.
fn id(value: i64) -> Result<u32, TarError> {
    u32::try_from(value).ok().filter(|id| *id != u32::MAX).ok_or(TarError::Malformed("bad user or group id"))
}
