//! From a layer's disk to its uncompressed tar.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;

/// Size of the reads from the layer's disk, in bytes.
const READ_SIZE: usize = 256 * 1024;

/// How a layer's blob is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    /// A plain tar.
    None,
    /// gzip, of one or several members (RFC 1952).
    Gzip,
    /// zstd, of one or several frames (RFC 8878).
    Zstd,
}

/// The first `size` bytes of a disk that is longer than the blob it holds.
pub(super) struct Blob<'a> {
    file: File,
    left: u64,
    read_bytes: &'a AtomicU64,
}

impl<'a> Blob<'a> {
    /// Counts what is read in `read_bytes`.
    pub(super) fn new(file: File, size: u64, read_bytes: &'a AtomicU64) -> Self {
        Self { file, left: size, read_bytes }
    }
}

impl Read for Blob<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.left).map_or(buf.len(), |left| left.min(buf.len()));
        let n = self.file.read(&mut buf[..want])?;
        if n == 0 && want > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= n as u64;
        self.read_bytes.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// Decompresses `blob` up to its end.
///
/// Whatever follows a gzip member must be another member, and whatever follows a zstd frame another frame: the reader
/// fails on anything else, and on a member or frame that is cut short.
pub(super) fn decompress<'a>(
    blob: impl Read + 'a,
    compression: Compression,
) -> io::Result<Box<dyn Read + 'a>> {
    let blob = BufReader::with_capacity(READ_SIZE, blob);
    Ok(match compression {
        Compression::None => Box::new(blob),
        Compression::Gzip => Box::new(MultiGzDecoder::new(blob)),
        Compression::Zstd => Box::new(zstd::Decoder::with_buffer(blob)?),
    })
}
