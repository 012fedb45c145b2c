//! Contents of regular files.

use std::fs::File;
use std::io::BufRead;
use std::os::fd::AsFd;
use std::slice;

use rustix::io::Errno;
use rustix::{fs, io};

use super::error::Reason;
use super::tar::{Segment, TarReader};

/// Zeros are written as holes in units of this many bytes, the block size of the target.
const BLOCK: usize = 4096;

/// Writes the current entry's data to a new file of `size` bytes.
pub(super) fn write(
    file: &File,
    tar: &mut TarReader<impl BufRead>,
    size: u64,
    sparse: Option<&[Segment]>,
) -> Result<(), Reason> {
    let whole = Segment { offset: 0, len: size };
    let mut end = 0;
    for segment in sparse.unwrap_or(slice::from_ref(&whole)) {
        let Segment { mut offset, len } = *segment;
        let stop = offset + len;
        while offset < stop {
            let data = tar.data().map_err(Reason::stream)?;
            let length = usize::try_from(stop - offset).map_or(data.len(), |left| left.min(data.len()));
            end = write_data(file, &data[..length], offset)
                .map_err(Reason::system("write the file"))?
                .unwrap_or(end);
            tar.consume(length);
            offset += length as u64;
        }
    }
    // A hole at the end is made by the file's size alone.
    if end < size {
        fs::ftruncate(file, size).map_err(Reason::system("set the file's size"))?;
    }
    Ok(())
}

/// Writes what is not zero of `data`, and returns the offset behind it, if there was any.
///
/// The file is new, so what is not written reads as zeros.
fn write_data(file: impl AsFd, data: &[u8], offset: u64) -> io::Result<Option<u64>> {
    let mut end = None;
    let mut at = 0;
    while at < data.len() {
        let start = at;
        while at < data.len() && !is_zero(block(data, at, offset)) {
            at += block(data, at, offset).len();
        }
        if start < at {
            write_all(&file, &data[start..at], offset + start as u64)?;
            end = Some(offset + at as u64);
        }
        while at < data.len() && is_zero(block(data, at, offset)) {
            at += block(data, at, offset).len();
        }
    }
    Ok(end)
}

/// The part of `data` from `at` to the end of that block of the file.
fn block(data: &[u8], at: usize, offset: u64) -> &[u8] {
    // A remainder by a usize is one.
    let into = usize::try_from((offset + at as u64) % BLOCK as u64).unwrap_or_default();
    &data[at..data.len().min(at + BLOCK - into)]
}

fn is_zero(block: &[u8]) -> bool {
    let (words, rest) = block.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}

fn write_all(file: impl AsFd, mut data: &[u8], mut offset: u64) -> io::Result<()> {
    while !data.is_empty() {
        match io::pwrite(&file, data, offset) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => {
                data = &data[written..];
                offset += written as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
