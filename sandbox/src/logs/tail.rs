//! Finds where a file's last records begin, backwards, in bounded memory.

use std::{fs::File, io, os::unix::fs::FileExt};

use super::{record::Record, scan::LONGEST_LINE};

const BLOCK: u64 = 64 * 1024;

/// Where a file's last records begin.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tail {
    /// In bytes from the file's begin.
    pub(super) offset: u64,
    /// How many records are there: as many as were wanted, or all.
    pub(super) records: u64,
}

/// Where the last `wanted` records in the first `size` bytes of `file` begin. With none wanted, the begin of the line
/// that has no end yet. What is not a record is not counted.
pub(super) fn find(file: &File, size: u64, wanted: u64) -> io::Result<Tail> {
    let mut records = 0;
    let mut block = vec![0; usize::try_from(BLOCK.min(size)).unwrap_or_default()];
    let mut line_end = size;
    let mut block_end = size;
    while block_end > 0 {
        let block_start = block_end.saturating_sub(BLOCK);
        let bytes = &mut block[..usize::try_from(block_end - block_start).unwrap_or_default()];
        if !read(file, bytes, block_start)? {
            return Ok(Tail { offset: 0, records });
        }
        for (at, _) in bytes.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let newline = block_start + at as u64;
            if wanted > 0 && is_record(file, newline + 1, line_end)? {
                records += 1;
            }
            if records == wanted {
                return Ok(Tail { offset: newline + 1, records });
            }
            line_end = newline;
        }
        block_end = block_start;
    }
    if wanted > 0 && is_record(file, 0, line_end)? {
        records += 1;
    }
    Ok(Tail { offset: 0, records })
}

fn is_record(file: &File, start: u64, end: u64) -> io::Result<bool> {
    let length = usize::try_from(end - start).unwrap_or(usize::MAX);
    if length == 0 || length > LONGEST_LINE {
        return Ok(false);
    }
    let mut line = vec![0; length];
    Ok(read(file, &mut line, start)? && Record::decode(&line).is_some())
}

/// `false`: the file has become shorter meanwhile.
fn read(file: &File, bytes: &mut [u8], at: u64) -> io::Result<bool> {
    match file.read_exact_at(bytes, at) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const LINE: &str = "{\"log\":\"x\\n\",\"stream\":\"stdout\",\"time\":\"2026-12-01T02:43:05Z\"}\n";

    fn tail(content: &[u8], wanted: u64) -> (u64, u64) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        let found = find(&file, content.len() as u64, wanted).unwrap();
        (found.offset, found.records)
    }

    #[test]
    fn the_last_records_are_found() {
        let line = LINE.len() as u64;
        let many = LINE.repeat(5000);
        let end = many.len() as u64;
        for wanted in [0, 1, 2, 1024, 4999, 5000] {
            assert_eq!(tail(many.as_bytes(), wanted), (end - wanted * line, wanted));
        }
        assert_eq!(tail(many.as_bytes(), 5001), (0, 5000));
        assert_eq!(tail(b"", 0), (0, 0));
        assert_eq!(tail(b"", 3), (0, 0));
    }

    #[test]
    fn lines_that_are_not_records_are_not_counted() {
        let line = LINE.len() as u64;
        let content = format!("torn{LINE}{LINE}foreign\n\n{LINE}{{\"log\":\"to");
        let end = content.len() as u64;
        let last = end - 10 - line;
        assert_eq!(tail(content.as_bytes(), 0), (end - 10, 0));
        assert_eq!(tail(content.as_bytes(), 1), (last, 1));
        assert_eq!(tail(content.as_bytes(), 2), (last - 9 - line, 2));
        assert_eq!(tail(content.as_bytes(), 3), (0, 2));
        // A record that lacks nothing but its newline is one.
        let content = [LINE, LINE.trim_end()].concat();
        assert_eq!(tail(content.as_bytes(), 1), (line, 1));
        let long = [vec![b'x'; LONGEST_LINE + 1], b"\n".to_vec(), LINE.into()].concat();
        assert_eq!(tail(&long, 2), (0, 1));
    }
}
