//! The 512-byte header.

use super::{BLOCK, TarError};

/// One header block with a correct checksum.
pub(super) struct Header {
    block: [u8; BLOCK],
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    V7,
    /// POSIX, pax included.
    Ustar,
    Star,
    Gnu,
}

impl Header {
    /// Checks the block's checksum. Some old writers summed signed bytes.
    pub(super) fn new(block: [u8; BLOCK]) -> Result<Self, TarError> {
        let field = 148..156;
        let stated = number(&block[field.clone()])?;
        let (mut unsigned, mut signed) = (0i64, 0i64);
        for (at, byte) in block.iter().enumerate() {
            let byte = if field.contains(&at) { b' ' } else { *byte };
            unsigned += i64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
        if stated != unsigned && stated != signed {
            return Err(TarError::Malformed("the header's checksum does not match"));
        }
        let format = match &block[257..265] {
            b"ustar  \0" => Format::Gnu,
            [b'u', b's', b't', b'a', b'r', 0, ..] if &block[508..] == b"tar\0" => Format::Star,
            [b'u', b's', b't', b'a', b'r', 0, ..] => Format::Ustar,
            _ => Format::V7,
        };
        Ok(Self { block, format })
    }

    pub(super) fn type_flag(&self) -> u8 {
        self.block[156]
    }

    pub(super) fn is_gnu(&self) -> bool {
        self.format == Format::Gnu
    }

    pub(super) fn name(&self) -> Vec<u8> {
        let name = text(&self.block[..100]);
        let prefix = match self.format {
            Format::Ustar => text(&self.block[345..500]),
            Format::Star => text(&self.block[345..476]),
            Format::V7 | Format::Gnu => b"",
        };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    pub(super) fn link_name(&self) -> Vec<u8> {
        text(&self.block[157..257]).to_vec()
    }

    pub(super) fn mode(&self) -> Result<i64, TarError> {
        number(&self.block[100..108])
    }

    pub(super) fn uid(&self) -> Result<i64, TarError> {
        number(&self.block[108..116])
    }

    pub(super) fn gid(&self) -> Result<i64, TarError> {
        number(&self.block[116..124])
    }

    /// Bytes of data after the header.
    pub(super) fn size(&self) -> Result<u64, TarError> {
        u64::try_from(number(&self.block[124..136])?).map_err(|_| TarError::Malformed("the size is negative"))
    }

    pub(super) fn mtime(&self) -> Result<i64, TarError> {
        number(&self.block[136..148])
    }

    /// Major and minor number of a device.
    pub(super) fn device(&self) -> Result<(i64, i64), TarError> {
        Ok((number(&self.block[329..337])?, number(&self.block[337..345])?))
    }

    /// The start of an old GNU sparse file's map: four entries and whether more blocks of them follow.
    pub(super) fn gnu_sparse_map(&self) -> (&[u8], bool) {
        (&self.block[386..482], self.block[482] != 0)
    }

    /// Length of an old GNU sparse file, holes included.
    pub(super) fn gnu_real_size(&self) -> Result<u64, TarError> {
        u64::try_from(number(&self.block[483..495])?).map_err(|_| TarError::Malformed("the size is negative"))
    }
}

/// A field up to its first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    field.split(|b| *b == 0).next().unwrap_or_default()
}

/// A numeric field: octal digits among spaces and NULs, or GNU's base 256, a big-endian two's complement number whose
/// top bit is set to mark it.
pub(super) fn number(field: &[u8]) -> Result<i64, TarError> {
    const BAD: TarError = TarError::Malformed("a number in the header is not one");
    let first = *field.first().ok_or(BAD)?;
    if first & 0x80 != 0 {
        // Sign-extend from the second-highest bit.
        let start = i128::from((first << 1).cast_signed() >> 1);
        let value = field[1..]
            .iter()
            .try_fold(start, |value, byte| value.checked_mul(256).map(|value| value | i128::from(*byte)));
        return value.and_then(|value| i64::try_from(value).ok()).ok_or(BAD);
    }
    let blank = |b: &u8| matches!(*b, b' ' | 0);
    let Some(start) = field.iter().position(|b| !blank(b)) else { return Ok(0) };
    let end = field.iter().rposition(|b| !blank(b)).map_or(start, |at| at + 1);
    text(&field[start..end]).iter().try_fold(0i64, |value, digit| match digit {
        b'0'..=b'7' => {
            value.checked_mul(8).and_then(|value| value.checked_add(i64::from(digit - b'0'))).ok_or(BAD)
        }
        _ => Err(BAD),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        for (field, expected) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"77777777", Some(0o77_777_777)),
            (b"\x80\0\0\0\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\0\0\0\0\0\0\x02\x54\x0b\xe4\0", Some(10_000_000_000)),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"0000648\0", None),
            (b"-1\0\0\0\0\0\0", None),
            (b"12 34\0\0\0", None),
        ] {
            assert_eq!(number(field).ok(), expected, "{}", field.escape_ascii());
        }
    }
}
