//! What can be wrong with a template, in Go's words where scripts may look for them.

use super::ast::Span;

/// A template that can't be parsed, or not be applied to its value.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The text is not a template.
    #[error("template parsing error: template: :{line}: {reason}")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// The rule that is broken.
        reason: Syntax,
    },
    /// An action failed.
    #[error("template parsing error: template: :{line}:{column}: executing \"\" at <{context}>: {reason}")]
    Action {
        /// Counted from 1.
        line: usize,
        /// In bytes, counted from 0.
        column: usize,
        /// The part of the template that failed.
        context: String,
        /// Why it failed.
        reason: Reason,
    },
}

impl Error {
    /// The template names a field that rows don't have.
    pub(crate) fn is_unknown_field(&self) -> bool {
        matches!(self, Self::Action { reason: Reason::NoField { .. }, .. })
    }
}

/// A broken rule of the syntax.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Syntax {
    #[error("unclosed action")]
    UnclosedAction,
    #[error("unclosed comment")]
    UnclosedComment,
    #[error("comment ends before closing delimiter")]
    TextAfterComment,
    #[error("unclosed left paren")]
    UnclosedParen,
    #[error("unexpected right paren")]
    UnexpectedParen,
    #[error("unterminated quoted string")]
    UnterminatedString,
    #[error("unterminated character constant")]
    UnterminatedCharacter,
    #[error("invalid escape sequence in {0}")]
    BadEscape(String),
    #[error("bad number syntax: {0:?}")]
    BadNumber(String),
    #[error("bad character {0:?}")]
    BadCharacter(char),
    #[error("expected :=")]
    ExpectedDeclare,
    #[error("unexpected {0:?} in command")]
    Unexpected(String),
    #[error("unexpected . after term {0:?}")]
    FieldOfLiteral(String),
    #[error("unexpected {{{{{0}}}}}")]
    UnexpectedKeyword(&'static str),
    #[error("unexpected EOF")]
    UnexpectedEnd,
    #[error("missing value for {0}")]
    MissingValue(&'static str),
    #[error("too many declarations in {0}")]
    TooManyDeclarations(&'static str),
    #[error("function {0:?} not defined")]
    NoFunction(String),
    #[error("{{{{{0}}}}} is not supported here")]
    Unsupported(String),
    #[error("undefined variable {0:?}")]
    NoVariable(String),
    #[error("more than {0} actions or parentheses inside each other")]
    TooDeep(usize),
}

/// Why an action failed.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum Reason {
    #[error("can't evaluate field {field}; the fields are {known}")]
    NoField { field: String, known: String },
    #[error("can't evaluate field {field} in type {kind}")]
    NotAnObject { field: String, kind: &'static str },
    #[error("map has no entry for key {0:?}")]
    NoKey(String),
    #[error("nil pointer evaluating interface {{}}.{0}")]
    FieldOfNil(String),
    #[error("wrong number of args for {name}: want {want} got {got}")]
    ArgCount { name: String, want: String, got: usize },
    #[error("wrong type for value; expected {want}; got {got}")]
    ArgType { want: &'static str, got: &'static str },
    #[error("can't give argument to non-function")]
    NotAFunction,
    #[error("nil is not a command")]
    NilCommand,
    #[error("range can't iterate over {0}")]
    NotIterable(&'static str),
    #[error("error calling {name}: {reason}")]
    Call { name: &'static str, reason: CallError },
    #[error("the result has more than {0} MiB")]
    TooLarge(usize),
    #[error("the template takes more than {0} steps")]
    TooManySteps(usize),
}

/// Why a function failed.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum CallError {
    #[error("index out of range: {0}")]
    OutOfRange(i64),
    #[error("invalid slice index: {0} > {1}")]
    SliceOrder(i64, i64),
    #[error("index of untyped nil")]
    IndexOfNil,
    #[error("can't index item of type {0}")]
    NotIndexable(&'static str),
    #[error("cannot index slice/array with type {0}")]
    IndexType(&'static str),
    #[error("value has type {0}; should be string")]
    KeyType(&'static str),
    #[error("can't slice item of type {0}")]
    NotSliceable(&'static str),
    #[error("cannot 3-index slice a string")]
    ThirdIndex,
    #[error("len of type {0}")]
    NoLength(&'static str),
    #[error("len of nil pointer")]
    LengthOfNil,
    #[error("incompatible types for comparison")]
    Incompatible,
    #[error("invalid type for comparison")]
    NotOrdered,
    #[error("non-comparable type {0}")]
    NotComparable(&'static str),
    #[error("a length of {0} is negative or larger than {1}")]
    Length(i64, usize),
}

/// A reason with the place in the template that it belongs to.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) span: Span,
    pub(super) reason: Reason,
}

impl Failure {
    /// The error with line and column.
    pub(super) fn locate(self, source: &str) -> Error {
        let (line, column) = position(source, self.span.point);
        let context = source[self.span.start..self.span.end].to_owned();
        Error::Action { line, column, context, reason: self.reason }
    }
}

/// A syntax error at a byte of the source.
pub(super) fn syntax(source: &str, at: usize, reason: Syntax) -> Error {
    Error::Syntax { line: position(source, at).0, reason }
}

fn position(source: &str, at: usize) -> (usize, usize) {
    let before = &source[..at];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, at - line_start)
}
