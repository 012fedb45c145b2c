//! Templates as Docker's `--format` takes them: the part of Go's `text/template` that lists and `inspect` need.
//!
//! `lexer` makes tokens, `parser` makes nodes of them, `eval` applies the nodes to a value. Not here: named
//! templates (`define`, `template`, `block`), `break`, `continue`, and the functions that escape HTML.

mod ast;
mod call;
mod compare;
mod error;
mod eval;
mod function;
mod lexer;
mod parser;
mod print;
mod printf;
mod slot;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde_json::Value;

pub(crate) use error::Error;

/// The value that a template is applied to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Subject<'a> {
    /// A document as `inspect` prints it. `.ID` finds `Id`, as Go's names and JSON's differ in case only.
    Document(&'a Value),
    /// A row of a list. `.Label "key"` looks into the labels.
    Row {
        /// The fields that the template may name.
        fields: &'a Value,
        /// The labels of the row's object.
        labels: &'a BTreeMap<String, String>,
    },
    /// The heading of a table: a title for each field. Functions that change text leave titles as they are.
    Header(&'a Value),
}

/// A template that has been parsed.
#[derive(Debug)]
pub(crate) struct Template {
    source: String,
    nodes: Vec<ast::Node>,
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// A syntax error, with its line.
    pub(crate) fn parse(source: &str) -> Result<Self, Error> {
        let nodes = parser::parse(source)?;
        Ok(Self { source: source.to_owned(), nodes })
    }

    /// The text with all actions replaced by their results.
    ///
    /// # Errors
    /// The action that failed, its place, and why.
    pub(crate) fn render(&self, subject: Subject<'_>) -> Result<String, Error> {
        eval::render(&self.nodes, subject).map_err(|failure| failure.locate(&self.source))
    }
}
