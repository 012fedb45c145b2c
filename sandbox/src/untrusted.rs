//! Texts that a guest has made: bounded, and harmless to print.

/// The text on one line of at most `most` bytes, three dots at its end where it was cut. Characters that control a terminal,
/// or the order or place in which other characters are shown, are escaped.
pub(crate) fn line(text: &str, most: usize) -> String {
    const DOTS: &str = "...";
    let mut line = String::new();
    // Where to cut, if the text turns out to be too long.
    let mut room = 0;
    for c in text.chars() {
        if is_harmless(c) {
            line.push(c);
        } else {
            line.extend(c.escape_default());
        }
        if line.len() + DOTS.len() <= most {
            room = line.len();
        }
        if line.len() > most {
            line.truncate(room);
            line.push_str(&DOTS[..DOTS.len().min(most)]);
            break;
        }
    }
    line
}

fn is_harmless(c: char) -> bool {
    let moves = |c| matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    !c.is_control() && !moves(c)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_text_stays_as_it_is() {
        let text = "executable not found: \"ü\": no such file";
        assert_eq!(line(text, text.len()), text);
        assert_eq!(line("", 0), "");
    }

    #[test]
    fn what_controls_a_terminal_is_escaped() {
        assert_eq!(line("a\x1b[2J\nb\u{9b}\u{202e}c", 100), "a\\u{1b}[2J\\nb\\u{9b}\\u{202e}c");
    }

    #[test]
    fn long_text_is_cut() {
        assert_eq!(line("abcdefgh", 7), "abcd...");
        assert_eq!(line("abcdefgh", 2), "..");
        assert_eq!(line("\x07\x07", 7), "...");
        assert_eq!(line(&"x".repeat(5000), 1024).len(), 1024);
    }

    proptest! {
        #[test]
        fn any_text_becomes_a_short_line(text: String, most in 0_usize..64) {
            let line = line(&text, most);
            prop_assert!(line.len() <= most);
            prop_assert!(line.chars().all(is_harmless));
        }
    }
}
