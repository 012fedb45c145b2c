//! Maps of sparse files (GNU tar manual, "Storing Sparse Files").

use super::{TarError, decimal::decimal, header};

/// Longest map accepted, in segments.
pub(super) const MAX_SEGMENTS: usize = 1 << 17;

const BAD: TarError = TarError::Malformed("the sparse map is broken or too long");

/// A stretch of a sparse file that is not a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Segment {
    /// Where in the file it is, in bytes.
    pub(in super::super) offset: u64,
    /// Length in bytes.
    pub(in super::super) len: u64,
}

/// Makes a map of offsets and lengths in turn, and checks that it is in order, fits a file of `size` bytes, and
/// accounts for exactly `stored` bytes of data.
pub(super) fn segments(numbers: &[u64], size: u64, stored: u64) -> Result<Vec<Segment>, TarError> {
    let (pairs, []) = numbers.as_chunks::<2>() else { return Err(BAD) };
    let (mut end, mut total) = (0, 0u64);
    let mut map = Vec::with_capacity(pairs.len());
    for [offset, len] in pairs.iter().copied() {
        if offset < end {
            return Err(BAD);
        }
        end = offset.checked_add(len).filter(|end| *end <= size).ok_or(BAD)?;
        total += len;
        map.push(Segment { offset, len });
    }
    if total != stored {
        return Err(TarError::Malformed("the sparse map does not match the data"));
    }
    Ok(map)
}

/// Adds the entries of one block of an old GNU map to `numbers`.
pub(super) fn add_old_gnu(block: &[u8], numbers: &mut Vec<u64>) -> Result<(), TarError> {
    let (fields, _) = block.as_chunks::<12>();
    let (pairs, _) = fields.as_chunks::<2>();
    for [offset, len] in pairs {
        if offset[0] == 0 {
            break;
        }
        if numbers.len() >= 2 * MAX_SEGMENTS {
            return Err(BAD);
        }
        for field in [offset, len] {
            numbers.push(u64::try_from(header::number(field)?).map_err(|_| BAD)?);
        }
    }
    Ok(())
}

/// Parses a map of format 1.0: a count of segments, then offsets and lengths, each decimal number on its own line.
#[derive(Default)]
pub(super) struct TextMap {
    digits: Vec<u8>,
    numbers: Vec<u64>,
    /// Numbers to come, once the count is known.
    left: Option<usize>,
}

impl TextMap {
    /// Takes one block of the map. Returns whether it was the last.
    pub(super) fn add(&mut self, block: &[u8]) -> Result<bool, TarError> {
        for byte in block {
            if *byte != b'\n' {
                // 19 digits hold any file offset.
                if self.digits.len() >= 19 {
                    return Err(BAD);
                }
                self.digits.push(*byte);
                continue;
            }
            let number = decimal(&self.digits)?;
            self.digits.clear();
            match &mut self.left {
                None => {
                    let count = usize::try_from(number).ok().filter(|n| *n <= MAX_SEGMENTS).ok_or(BAD)?;
                    self.left = Some(2 * count);
                }
                Some(left) => {
                    self.numbers.push(number);
                    *left -= 1;
                }
            }
            if self.left == Some(0) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn into_numbers(self) -> Vec<u64> {
        self.numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_ordered_and_complete() {
        let map = segments(&[0, 512, 4096, 100, 8192, 0], 8192, 612).unwrap();
        assert_eq!(map[1], Segment { offset: 4096, len: 100 });
        assert_eq!(map.len(), 3);
        for (numbers, size, stored) in [
            (&[0, 512, 100, 100][..], 8192, 612),
            (&[0, 512], 511, 512),
            (&[u64::MAX, 2], u64::MAX, 2),
            (&[0, 512], 512, 511),
            (&[0, 512], 512, 513),
            (&[0], 512, 0),
        ] {
            assert!(segments(numbers, size, stored).is_err(), "{numbers:?}");
        }
    }

    #[test]
    fn a_text_map_may_span_blocks() {
        let mut map = TextMap::default();
        assert!(!map.add(b"2\n0\n51").unwrap());
        assert!(map.add(b"2\n4096\n100\n\0\0\0").unwrap());
        assert_eq!(map.into_numbers(), [0, 512, 4096, 100]);
        assert!(TextMap::default().add(b"0\n\0").unwrap());
        for bad in [&b"\n"[..], b"x\n", b"\0\n", b"131073\n", b"00000000000000000001\n", b"1\n-1\n"] {
            assert!(TextMap::default().add(bad).is_err(), "{}", bad.escape_ascii());
        }
    }
}
