//! The text of an error with its causes.

use std::error::Error;

/// The error's text and those of all its causes, joined by ": ".
///
/// A cause is left out if the text before it already ends with the cause's text.
pub fn text(error: &dyn Error) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |&cause| cause.source()) {
        let cause = cause.to_string();
        if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::num::ParseIntError;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Outer {
        #[error("cannot start")]
        Plain(#[source] Inner),
        #[error("cannot start: {0}")]
        Repeating(#[source] Inner),
        #[error(transparent)]
        Transparent(Inner),
    }

    #[derive(Debug, thiserror::Error)]
    #[error("bad number")]
    struct Inner(#[from] ParseIntError);

    fn inner() -> Inner {
        "x".parse::<u8>().unwrap_err().into()
    }

    #[test]
    fn each_cause_is_there_once() {
        let causes = "bad number: invalid digit found in string";
        assert_eq!(text(&inner()), causes);
        assert_eq!(text(&Outer::Transparent(inner())), causes);
        for error in [Outer::Plain(inner()), Outer::Repeating(inner())] {
            assert_eq!(text(&error), format!("cannot start: {causes}"));
        }
    }
}
