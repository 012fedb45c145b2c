//! Divides a stream into lines, as Docker's copier does.

use jiff::Timestamp;

/// The longest text of a record, in bytes.
pub(super) const LONGEST: usize = 16 * 1024;

/// A part of a stream that makes one record.
pub(super) struct Piece<'a> {
    /// Without the newline.
    pub(super) text: &'a [u8],
    /// A newline followed.
    pub(super) whole: bool,
    /// When it was complete; for the parts of a long line, when the first part was.
    pub(super) time: Timestamp,
}

/// The part of a stream that is not written yet: the begin of a line.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// Shorter than [`LONGEST`], without a newline.
    held: Vec<u8>,
    /// When the line's first part was complete, if it has parts.
    since: Option<Timestamp>,
}

impl Lines {
    /// Takes `bytes`, and passes to `emit` the pieces that are complete.
    pub(super) fn push(&mut self, mut bytes: &[u8], now: Timestamp, mut emit: impl FnMut(Piece<'_>)) {
        while !bytes.is_empty() {
            let room = LONGEST - self.held.len();
            let window = &bytes[..bytes.len().min(room)];
            if let Some(end) = window.iter().position(|byte| *byte == b'\n') {
                let time = self.since.take().unwrap_or(now);
                if self.held.is_empty() {
                    emit(Piece { text: &window[..end], whole: true, time });
                } else {
                    let mut text = std::mem::take(&mut self.held);
                    text.extend_from_slice(&window[..end]);
                    emit(Piece { text: &text, whole: true, time });
                }
                bytes = &bytes[end + 1..];
                continue;
            }
            self.held.extend_from_slice(window);
            bytes = &bytes[window.len()..];
            if self.held.len() == LONGEST {
                let time = *self.since.get_or_insert(now);
                let mut text = std::mem::take(&mut self.held);
                self.held = text.split_off(whole_characters(&text));
                emit(Piece { text: &text, whole: false, time });
            }
        }
    }

    /// Passes to `emit` what is left: the stream has ended.
    pub(super) fn finish(&mut self, now: Timestamp, emit: impl FnOnce(Piece<'_>)) {
        let text = std::mem::take(&mut self.held);
        let time = self.since.take().unwrap_or(now);
        if !text.is_empty() {
            emit(Piece { text: &text, whole: false, time });
        }
    }
}

/// How many bytes of `text` are before a UTF-8 character that is cut off at its end. (Docker cuts characters.)
fn whole_characters(text: &[u8]) -> usize {
    for back in 1..=text.len().min(3) {
        let at = text.len() - back;
        let length = match text[at] {
            0x80..0xc0 => continue,
            0xc0..0xe0 => 2,
            0xe0..0xf0 => 3,
            0xf0..0xf8 => 4,
            _ => 1,
        };
        return if length > back { at } else { text.len() };
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pieces of `chunks`: text, whether it is whole, and the number of the chunk that its time is of.
    fn pieces(chunks: &[&[u8]]) -> Vec<(Vec<u8>, bool, i64)> {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        let mut emit =
            |piece: Piece<'_>| found.push((piece.text.to_vec(), piece.whole, piece.time.as_second()));
        let at = |second: usize| Timestamp::from_second(i64::try_from(second).unwrap()).unwrap();
        for (number, chunk) in chunks.iter().enumerate() {
            lines.push(chunk, at(number), &mut emit);
        }
        lines.finish(at(chunks.len()), &mut emit);
        found
    }

    #[test]
    fn lines_are_divided_at_newlines() {
        assert_eq!(
            pieces(&[b"a\n\nb", b"c", b"d\ne"]),
            [
                (b"a".to_vec(), true, 0),
                (b"".to_vec(), true, 0),
                (b"bcd".to_vec(), true, 2),
                (b"e".to_vec(), false, 3)
            ]
        );
        assert_eq!(pieces(&[b"", b"a\n", b""]), [(b"a".to_vec(), true, 1)]);
    }

    #[test]
    fn long_lines_have_parts_with_the_time_of_the_first() {
        let long = vec![b'x'; LONGEST];
        assert_eq!(pieces(&[&long[1..], b"\n"]), [(long[1..].to_vec(), true, 1)]);
        assert_eq!(
            pieces(&[&long, b"\n", b"y\n"]),
            [(long.clone(), false, 0), (vec![], true, 0), (b"y".to_vec(), true, 2)]
        );
        let twice = [&long[..], &long, b"end\n"].concat();
        assert_eq!(
            pieces(&[&twice[..100], &twice[100..]]),
            [(long.clone(), false, 1), (long.clone(), false, 1), (b"end".to_vec(), true, 1)]
        );
        assert_eq!(pieces(&[&long]), [(long.clone(), false, 0)]);
    }

    #[test]
    fn characters_are_not_cut() {
        for character in ["é", "€", "😀"] {
            let before = vec![b'x'; LONGEST - 1];
            let text = [&before, character.as_bytes(), b"\n"].concat();
            let character = character.as_bytes().to_vec();
            assert_eq!(pieces(&[&text]), [(before, false, 0), (character, true, 0)]);
        }
        for end in [&b"\xff"[..], b"\xc3\xa9", b"\xe2\x82\xac", b"\x80\x80\x80\x80", b"\xc3a"] {
            let mut text = vec![b'x'; LONGEST - end.len()];
            text.extend_from_slice(end);
            assert_eq!(pieces(&[&text]), [(text.clone(), false, 0)]);
        }
    }
}
