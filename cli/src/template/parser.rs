//! Makes nodes of tokens.

use super::{
    ast::{Branch, Command, Kind, Node, Operand, Pipe, Span},
    error::{Error, Syntax, syntax},
    function::Function,
    lexer::{self, Kind as Lexeme, Token, lex},
};

/// Actions and parentheses inside each other.
const MAX_DEPTH: usize = 100;
/// Go's keywords that have no place here.
const UNSUPPORTED: [&str; 5] = ["block", "break", "continue", "define", "template"];

/// The nodes of a template.
///
/// # Errors
/// The first broken rule of the syntax.
pub(super) fn parse(source: &str) -> Result<Vec<Node>, Error> {
    let tokens = lex(source)?;
    let mut parser = Parser { source, tokens, at: 0, depth: 0, variables: vec!["$".into()] };
    let (nodes, end) = parser.list()?;
    match end {
        End::Source => Ok(nodes),
        End::Keyword(keyword) => parser.fail_before(Syntax::UnexpectedKeyword(keyword)),
        End::ElseIf => parser.fail_before(Syntax::UnexpectedKeyword("else")),
    }
}

/// What ends a list of nodes.
#[derive(PartialEq)]
enum End {
    Source,
    /// `end` or `else`
    Keyword(&'static str),
    ElseIf,
}

struct Parser<'a> {
    source: &'a str,
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
    /// The variables that may be used here.
    variables: Vec<String>,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Lexeme> {
        self.tokens.get(self.at).map(|token| &token.kind)
    }

    fn skip_space(&mut self) {
        if self.peek() == Some(&Lexeme::Space) {
            self.at += 1;
        }
    }

    fn accept(&mut self, kind: &Lexeme) -> bool {
        let found = self.peek() == Some(kind);
        self.at += usize::from(found);
        found
    }

    /// The byte where the next token begins.
    fn start(&self) -> usize {
        self.tokens.get(self.at).map_or(self.source.len(), |token| token.start)
    }

    /// The byte where the last token ended.
    fn end(&self) -> usize {
        self.at.checked_sub(1).map_or(0, |last| self.tokens[last].end)
    }

    fn fail<T>(&self, reason: Syntax) -> Result<T, Error> {
        Err(syntax(self.source, self.start(), reason))
    }

    /// Fails at the token before.
    fn fail_before<T>(&self, reason: Syntax) -> Result<T, Error> {
        Err(syntax(self.source, self.end(), reason))
    }

    fn unexpected<T>(&self) -> Result<T, Error> {
        match self.tokens.get(self.at) {
            Some(token) => self.fail(Syntax::Unexpected(self.source[token.start..token.end].to_owned())),
            None => self.fail(Syntax::UnexpectedEnd),
        }
    }

    fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        if self.depth == MAX_DEPTH {
            return self.fail(Syntax::TooDeep(MAX_DEPTH));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    /// Nodes up to the end of the source, `{{end}}` or `{{else}}`.
    fn list(&mut self) -> Result<(Vec<Node>, End), Error> {
        let mut nodes = Vec::new();
        loop {
            let Some(kind) = self.peek().cloned() else { return Ok((nodes, End::Source)) };
            self.at += 1;
            if let Lexeme::Text(text) = kind {
                nodes.push(Node::Text(text));
                continue;
            }
            self.skip_space();
            let word = match self.peek() {
                Some(Lexeme::Word(word)) => word.clone(),
                _ => String::new(),
            };
            match word.as_str() {
                "end" => return self.keyword("end").map(|end| (nodes, end)),
                "else" => return self.keyword("else").map(|end| (nodes, end)),
                "if" => nodes.push(Node::If(self.branch("if")?)),
                "with" => nodes.push(Node::With(self.branch("with")?)),
                "range" => nodes.push(Node::Range(self.branch("range")?)),
                word if UNSUPPORTED.contains(&word) => return self.fail(Syntax::Unsupported(word.into())),
                _ => {
                    let pipe = self.pipe("command", 1)?;
                    self.close()?;
                    nodes.push(Node::Action(pipe));
                }
            }
        }
    }

    fn keyword(&mut self, keyword: &'static str) -> Result<End, Error> {
        self.at += 1;
        self.skip_space();
        if keyword == "else" && self.peek() == Some(&Lexeme::Word("if".into())) {
            return Ok(End::ElseIf);
        }
        self.close()?;
        Ok(End::Keyword(keyword))
    }

    fn close(&mut self) -> Result<(), Error> {
        self.skip_space();
        if self.accept(&Lexeme::Close) { Ok(()) } else { self.unexpected() }
    }

    /// What follows `if`, `with` or `range`, up to its `end`.
    fn branch(&mut self, keyword: &'static str) -> Result<Branch, Error> {
        self.deeper(|parser| {
            parser.at += 1;
            let scope = parser.variables.len();
            let pipe = parser.pipe(keyword, if keyword == "range" { 2 } else { 1 })?;
            parser.close()?;
            let (then, end) = parser.list()?;
            let (otherwise, end) = match end {
                End::Keyword("else") => parser.list()?,
                // The inner `if` takes the `end` of both.
                End::ElseIf if keyword == "if" => (vec![Node::If(parser.branch("if")?)], End::Keyword("end")),
                end => (Vec::new(), end),
            };
            parser.variables.truncate(scope);
            match end {
                End::Keyword("end") => Ok(Branch { pipe, then, otherwise }),
                End::Source => parser.fail(Syntax::UnexpectedEnd),
                _ => parser.fail_before(Syntax::UnexpectedKeyword("else")),
            }
        })
    }

    /// A pipeline, with up to `declarations` variables that receive its result.
    fn pipe(&mut self, context: &'static str, declarations: usize) -> Result<Pipe, Error> {
        self.skip_space();
        let (variables, assign) = self.declarations(context, declarations)?;
        let mut commands = Vec::new();
        loop {
            self.skip_space();
            if matches!(self.peek(), Some(Lexeme::Close | Lexeme::RightParen | Lexeme::Bar) | None) {
                return self.fail(Syntax::MissingValue(context));
            }
            commands.push(self.command()?);
            self.skip_space();
            if !self.accept(&Lexeme::Bar) {
                break;
            }
        }
        if !assign {
            self.variables.extend(variables.iter().cloned());
        }
        Ok(Pipe { variables, assign, commands })
    }

    /// `$x :=`, `$x =` or `$i, $x :=`. Nothing is consumed when variables are only used.
    fn declarations(&mut self, context: &'static str, most: usize) -> Result<(Vec<String>, bool), Error> {
        let begin = self.at;
        let mut names = Vec::new();
        while let Some(Lexeme::Variable(name)) = self.peek() {
            names.push(name.clone());
            self.at += 1;
            self.skip_space();
            match self.peek() {
                Some(Lexeme::Declare) if names.len() > most => {
                    return self.fail(Syntax::TooManyDeclarations(context));
                }
                Some(Lexeme::Declare) => {
                    self.at += 1;
                    return Ok((names, false));
                }
                Some(Lexeme::Assign) => {
                    if let Some(name) = names.iter().find(|name| !self.variables.contains(name)) {
                        return self.fail(Syntax::NoVariable(name.clone()));
                    }
                    self.at += 1;
                    return Ok((names, true));
                }
                Some(Lexeme::Comma) => {
                    self.at += 1;
                    self.skip_space();
                }
                _ => break,
            }
        }
        self.at = begin;
        Ok((Vec::new(), false))
    }

    fn command(&mut self) -> Result<Command, Error> {
        let begin = self.start();
        let first = self.operand()?;
        let mut args = Vec::new();
        while self.peek() == Some(&Lexeme::Space) {
            self.at += 1;
            if matches!(self.peek(), Some(Lexeme::Close | Lexeme::RightParen | Lexeme::Bar) | None) {
                break;
            }
            args.push(self.operand()?);
        }
        let end = args.last().map_or(first.span.end, |last| last.span.end);
        Ok(Command { first, args, span: Span { start: begin, end, point: begin } })
    }

    /// A term with the fields that follow it.
    fn operand(&mut self) -> Result<Operand, Error> {
        let start = self.start();
        let Some(lexeme) = self.peek().cloned() else { return self.fail(Syntax::UnexpectedEnd) };
        let mut fields = Vec::new();
        let kind = match lexeme {
            Lexeme::Dot => Kind::Dot,
            Lexeme::Field(name) => {
                fields.push(name);
                Kind::Dot
            }
            Lexeme::Nil => Kind::Nil,
            Lexeme::Literal(value) => Kind::Literal(value),
            Lexeme::Variable(name) if self.variables.contains(&name) => Kind::Variable(name),
            Lexeme::Variable(name) => return self.fail(Syntax::NoVariable(name)),
            Lexeme::Word(name) => match Function::from_name(&name) {
                Some(function) => Kind::Function(function),
                None => return self.fail(Syntax::NoFunction(name)),
            },
            Lexeme::LeftParen => {
                self.at += 1;
                let pipe = self.deeper(|parser| parser.pipe("parenthesized pipeline", 1))?;
                self.skip_space();
                if self.peek() != Some(&Lexeme::RightParen) {
                    return self.unexpected();
                }
                Kind::Pipe(Box::new(pipe))
            }
            _ => return self.unexpected(),
        };
        self.at += 1;
        let mut point = start;
        while let Some(lexer::Kind::Field(name)) = self.peek().cloned() {
            if matches!(kind, Kind::Literal(_) | Kind::Nil) {
                return self.fail(Syntax::FieldOfLiteral(self.source[start..self.end()].to_owned()));
            }
            // As in Go, errors point at the first of these, whichever fails.
            if point == start {
                point = self.start();
            }
            fields.push(name);
            self.at += 1;
        }
        Ok(Operand { kind, fields, span: Span { start, end: self.end(), point } })
    }
}
