//! Cuts a template into tokens.

use serde_json::Value;

use super::error::{Error, Syntax, syntax};

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Text(String),
    /// `{{`
    Open,
    /// `}}`
    Close,
    Space,
    Dot,
    /// The name without its dot.
    Field(String),
    /// The name with its dollar sign.
    Variable(String),
    Word(String),
    Literal(Value),
    Nil,
    Declare,
    Assign,
    Bar,
    Comma,
    LeftParen,
    RightParen,
}

#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) start: usize,
    pub(super) end: usize,
}

const OPEN: &str = "{{";
const CLOSE: &str = "}}";
const SPACES: [char; 4] = [' ', '\t', '\r', '\n'];

/// All tokens of a template.
///
/// # Errors
/// The first text that is not a token, and delimiters without their other half.
pub(super) fn lex(source: &str) -> Result<Vec<Token>, Error> {
    let mut lexer = Lexer { source, at: 0, tokens: Vec::new(), parens: 0, trim_text: false };
    while lexer.at < source.len() {
        lexer.text();
        if lexer.at < source.len() {
            lexer.action()?;
        }
    }
    Ok(lexer.tokens)
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    tokens: Vec<Token>,
    parens: usize,
    /// The last action ended with `-}}`.
    trim_text: bool,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn fail<T>(&self, reason: Syntax) -> Result<T, Error> {
        Err(syntax(self.source, self.at, reason))
    }

    fn push(&mut self, kind: Kind, length: usize) {
        self.tokens.push(Token { kind, start: self.at, end: self.at + length });
        self.at += length;
    }

    /// Text up to the next action, without the spaces that trim markers take away.
    fn text(&mut self) {
        let rest = self.rest();
        let length = rest.find(OPEN).unwrap_or(rest.len());
        let mut text = &rest[..length];
        if self.trim_text {
            text = text.trim_start_matches(SPACES);
        }
        if trims(&rest[length..]) {
            text = text.trim_end_matches(SPACES);
        }
        if !text.is_empty() {
            let kind = Kind::Text(text.to_owned());
            self.tokens.push(Token { kind, start: self.at, end: self.at + length });
        }
        self.at += length;
    }

    /// One action, from its opening to its closing delimiter.
    fn action(&mut self) -> Result<(), Error> {
        let marker = usize::from(trims(self.rest())) * 2;
        self.trim_text = false;
        if self.rest()[OPEN.len() + marker..].starts_with("/*") {
            self.at += OPEN.len() + marker;
            return self.comment();
        }
        self.push(Kind::Open, OPEN.len() + marker);
        self.parens = 0;
        loop {
            let (length, trim) = closing(self.rest());
            if length > 0 {
                if self.parens > 0 {
                    return self.fail(Syntax::UnclosedParen);
                }
                self.push(Kind::Close, length);
                self.trim_text = trim;
                return Ok(());
            }
            self.token()?;
        }
    }

    fn comment(&mut self) -> Result<(), Error> {
        let Some(end) = self.rest().find("*/") else { return self.fail(Syntax::UnclosedComment) };
        self.at += end + 2;
        let (length, trim) = closing(self.rest());
        if length == 0 {
            return self.fail(Syntax::TextAfterComment);
        }
        self.at += length;
        self.trim_text = trim;
        Ok(())
    }

    /// One token inside an action.
    fn token(&mut self) -> Result<(), Error> {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return self.fail(Syntax::UnclosedAction) };
        let second = rest[first.len_utf8()..].chars().next();
        match first {
            ' ' | '\t' | '\r' | '\n' => self.space(),
            '"' => return self.quoted(),
            '`' => return self.raw(),
            '\'' => return self.character(),
            '.' if second.is_some_and(|c| c.is_ascii_digit()) => return self.number(),
            '.' => return self.field(),
            '$' => return self.variable(),
            '+' | '-' | '0'..='9' => return self.number(),
            ':' if second == Some('=') => self.push(Kind::Declare, 2),
            ':' => return self.fail(Syntax::ExpectedDeclare),
            '=' => self.push(Kind::Assign, 1),
            '|' => self.push(Kind::Bar, 1),
            ',' => self.push(Kind::Comma, 1),
            '(' => {
                self.parens += 1;
                self.push(Kind::LeftParen, 1);
            }
            ')' if self.parens == 0 => return self.fail(Syntax::UnexpectedParen),
            ')' => {
                self.parens -= 1;
                self.push(Kind::RightParen, 1);
            }
            _ if is_word(first) => return self.word(),
            _ => return self.fail(Syntax::Unexpected(first.into())),
        }
        Ok(())
    }

    fn space(&mut self) {
        let rest = self.rest();
        let mut length = rest.len() - rest.trim_start_matches(SPACES).len();
        // The last space may belong to the closing delimiter's trim marker.
        if length > 1 && closing(&rest[length - 1..]).0 > 0 {
            length -= 1;
        }
        self.push(Kind::Space, length);
    }

    fn word_length(text: &str) -> usize {
        text.find(|c| !is_word(c)).unwrap_or(text.len())
    }

    /// A name must end where a token may begin.
    fn name(&mut self, prefix: usize, kind: impl FnOnce(&'a str) -> Kind) -> Result<(), Error> {
        let rest = self.rest();
        let length = prefix + Self::word_length(&rest[prefix..]);
        self.push(kind(&rest[..length]), length);
        match self.rest().chars().next() {
            Some(next) if !(SPACES.contains(&next) || ".,|:()=".contains(next) || self.closes()) => {
                self.fail(Syntax::BadCharacter(next))
            }
            _ => Ok(()),
        }
    }

    fn closes(&self) -> bool {
        self.rest().starts_with(CLOSE)
    }

    fn field(&mut self) -> Result<(), Error> {
        self.name(1, |text| match text {
            "." => Kind::Dot,
            _ => Kind::Field(text[1..].to_owned()),
        })
    }

    fn variable(&mut self) -> Result<(), Error> {
        self.name(1, |text| Kind::Variable(text.to_owned()))
    }

    fn word(&mut self) -> Result<(), Error> {
        self.name(0, |text| match text {
            "true" | "false" => Kind::Literal(Value::Bool(text == "true")),
            "nil" => Kind::Nil,
            _ => Kind::Word(text.to_owned()),
        })
    }

    fn raw(&mut self) -> Result<(), Error> {
        let Some(length) = self.rest()[1..].find('`') else { return self.fail(Syntax::UnterminatedString) };
        let text = self.rest()[1..=length].to_owned();
        self.push(Kind::Literal(Value::String(text)), length + 2);
        Ok(())
    }

    /// The text between two quotes, with the quotes.
    fn between(&self, quote: char) -> Option<&'a str> {
        let rest = self.rest();
        let mut escaped = false;
        for (at, c) in rest.char_indices().skip(1) {
            match c {
                '\n' => return None,
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                _ if c == quote => return Some(&rest[..=at]),
                _ => {}
            }
        }
        None
    }

    fn quoted(&mut self) -> Result<(), Error> {
        let Some(text) = self.between('"') else { return self.fail(Syntax::UnterminatedString) };
        let Some(value) = unescape(&text[1..text.len() - 1], '"') else {
            return self.fail(Syntax::BadEscape(text.into()));
        };
        self.push(Kind::Literal(Value::String(value)), text.len());
        Ok(())
    }

    fn character(&mut self) -> Result<(), Error> {
        let Some(text) = self.between('\'') else { return self.fail(Syntax::UnterminatedCharacter) };
        let value = unescape(&text[1..text.len() - 1], '\'').unwrap_or_default();
        let mut chars = value.chars();
        match (chars.next(), chars.next()) {
            (Some(only), None) => self.push(Kind::Literal(u32::from(only).into()), text.len()),
            _ => return self.fail(Syntax::BadEscape(text.into())),
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), Error> {
        let rest = self.rest();
        let mut last = ' ';
        let length = rest
            .find(|c: char| {
                let sign = "+-".contains(c) && (last == ' ' || "eE".contains(last));
                last = c;
                !(sign || c == '.' || is_word(c))
            })
            .unwrap_or(rest.len());
        let text = &rest[..length];
        let Some(value) = parse_number(text) else { return self.fail(Syntax::BadNumber(text.into())) };
        self.push(Kind::Literal(value), length);
        Ok(())
    }
}

/// The action that begins here takes the spaces before it away.
fn trims(action: &str) -> bool {
    action.strip_prefix(OPEN).and_then(|rest| rest.strip_prefix('-')).is_some_and(|r| r.starts_with(SPACES))
}

/// The length of the closing delimiter that begins here, with its trim marker, and whether it has one.
fn closing(text: &str) -> (usize, bool) {
    if text.starts_with(CLOSE) {
        (CLOSE.len(), false)
    } else if text.starts_with(SPACES) && text[1..].starts_with("-}}") {
        (CLOSE.len() + 2, true)
    } else {
        (0, false)
    }
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

fn parse_number(text: &str) -> Option<Value> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let digits = digits.replace('_', "").to_ascii_lowercase();
    let (radix, body) = match digits.get(..2) {
        Some("0x") => (16, &digits[2..]),
        Some("0o") => (8, &digits[2..]),
        Some("0b") => (2, &digits[2..]),
        Some(start) if start.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit()) => {
            (8, &digits[1..])
        }
        _ => (10, &digits[..]),
    };
    if !body.starts_with(['+', '-'])
        && let Ok(number) = i64::from_str_radix(body, radix)
    {
        return Some(Value::from(if negative { -number } else { number }));
    }
    // Words that Rust takes for floats begin with a letter.
    if radix != 10 || !digits.starts_with(|c: char| c == '.' || c.is_ascii_digit()) {
        return None;
    }
    let number: f64 = digits.parse().ok()?;
    serde_json::Number::from_f64(if negative { -number } else { number }).map(Value::Number)
}

/// The value of what stands between Go's quotes. `None`: an escape sequence that Go does not know.
fn unescape(text: &str, quote: char) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at + 1..];
        let letter = rest.chars().next()?;
        let simple = match letter {
            'a' => Some(7),
            'b' => Some(8),
            'f' => Some(12),
            'n' => Some(b'\n'),
            'r' => Some(b'\r'),
            't' => Some(b'\t'),
            'v' => Some(11),
            _ if letter == '\\' || letter == quote => u8::try_from(letter).ok(),
            _ => None,
        };
        if let Some(byte) = simple {
            bytes.push(byte);
            rest = &rest[1..];
            continue;
        }
        let (skip, length, radix) = match letter {
            'x' => (1, 2, 16),
            'u' => (1, 4, 16),
            'U' => (1, 8, 16),
            '0'..='7' => (0, 3, 8),
            _ => return None,
        };
        let digits = rest.get(skip..skip + length).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
        let number = u32::from_str_radix(digits, radix).ok()?;
        if matches!(letter, 'u' | 'U') {
            let mut buffer = [0; 4];
            bytes.extend_from_slice(char::from_u32(number)?.encode_utf8(&mut buffer).as_bytes());
        } else {
            bytes.push(u8::try_from(number).ok()?);
        }
        rest = &rest[skip + length..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
