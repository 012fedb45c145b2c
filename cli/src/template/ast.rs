//! The nodes of a parsed template.

use serde_json::Value;

use super::function::Function;

/// A part of the template's source, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
    /// The byte that errors point at: in `.A.B` and `.A.B.C`, the second dot.
    pub(super) point: usize,
}

#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    Action(Pipe),
    If(Branch),
    With(Branch),
    Range(Branch),
}

/// A condition with the nodes for both outcomes.
#[derive(Debug)]
pub(super) struct Branch {
    pub(super) pipe: Pipe,
    pub(super) then: Vec<Node>,
    pub(super) otherwise: Vec<Node>,
}

/// Commands in a row, each passing its result to the next as the last argument.
#[derive(Debug)]
pub(super) struct Pipe {
    /// Variables that receive the result: one, or two in a `range`.
    pub(super) variables: Vec<String>,
    /// `=` rather than `:=`
    pub(super) assign: bool,
    pub(super) commands: Vec<Command>,
}

/// A value, a field or a function, with arguments.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) first: Operand,
    pub(super) args: Vec<Operand>,
    pub(super) span: Span,
}

#[derive(Debug)]
pub(super) struct Operand {
    pub(super) kind: Kind,
    /// Fields that follow the operand: `.Name` has the operand [`Kind::Dot`] and one field.
    pub(super) fields: Vec<String>,
    pub(super) span: Span,
}

#[derive(Debug)]
pub(super) enum Kind {
    Dot,
    Nil,
    Literal(Value),
    Variable(String),
    Function(Function),
    Pipe(Box<Pipe>),
}
