//! Applies nodes to a value.

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::{Map, Value};

use super::{
    Subject,
    ast::{Branch, Command, Kind, Node, Operand, Pipe, Span},
    call,
    compare::is_true,
    error::{Failure, Reason},
    function::Function,
    print::{self, type_name},
    slot::Slot,
};

/// The largest result, in bytes.
const MAX_OUTPUT: usize = 64 << 20;
/// Commands and elements of ranges that one rendering may visit: ranges inside each other multiply.
const MAX_STEPS: usize = 250_000;

/// The text that the nodes make of a subject.
///
/// # Errors
/// The node that failed, and why.
pub(super) fn render(nodes: &[Node], subject: Subject<'_>) -> Result<String, Failure> {
    let root = match subject {
        Subject::Document(value) | Subject::Header(value) | Subject::Row { fields: value, .. } => value,
    };
    let variables = vec![("$", Some(Cow::Borrowed(root)))];
    let mut eval = Eval { subject, root, variables, output: String::new(), steps: 0 };
    eval.nodes(nodes, &Some(Cow::Borrowed(root)))?;
    Ok(eval.output)
}

struct Eval<'a> {
    subject: Subject<'a>,
    root: &'a Value,
    variables: Vec<(&'a str, Slot<'a>)>,
    output: String,
    steps: usize,
}

fn fail<T>(span: Span, reason: Reason) -> Result<T, Failure> {
    Err(Failure { span, reason })
}

impl<'a> Eval<'a> {
    fn nodes(&mut self, nodes: &'a [Node], dot: &Slot<'a>) -> Result<(), Failure> {
        for node in nodes {
            match node {
                Node::Text(text) => self.output.push_str(text),
                Node::Action(pipe) => {
                    let value = self.pipe(pipe, dot)?;
                    if pipe.variables.is_empty() {
                        print::value(&mut self.output, value.as_deref());
                    }
                }
                Node::If(branch) => self.condition(branch, dot, false)?,
                Node::With(branch) => self.condition(branch, dot, true)?,
                Node::Range(branch) => self.range(branch, dot)?,
            }
        }
        Ok(())
    }

    fn step(&mut self, span: Span) -> Result<(), Failure> {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            return fail(span, Reason::TooManySteps(MAX_STEPS));
        }
        if self.output.len() > MAX_OUTPUT {
            return fail(span, Reason::TooLarge(MAX_OUTPUT >> 20));
        }
        Ok(())
    }

    fn condition(&mut self, branch: &'a Branch, dot: &Slot<'a>, with: bool) -> Result<(), Failure> {
        let scope = self.variables.len();
        let value = self.pipe(&branch.pipe, dot)?;
        let result = match is_true(value.as_deref()) {
            true if with => self.nodes(&branch.then, &value),
            true => self.nodes(&branch.then, dot),
            false => self.nodes(&branch.otherwise, dot),
        };
        self.variables.truncate(scope);
        result
    }

    fn range(&mut self, branch: &'a Branch, dot: &Slot<'a>) -> Result<(), Failure> {
        let scope = self.variables.len();
        let value = self.pipe(&branch.pipe, dot)?;
        // The variables that `pipe` has declared.
        let declared = self.variables.len().saturating_sub(branch.pipe.variables.len());
        let entries = match value.as_deref() {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(_) | Value::Object(_)) => entries(value),
            Some(other) => return fail(span(&branch.pipe), Reason::NotIterable(type_name(other))),
        };
        if entries.is_empty() {
            self.nodes(&branch.otherwise, dot)?;
        }
        for (key, element) in entries {
            self.step(span(&branch.pipe))?;
            let element = Some(element);
            match (branch.pipe.assign, &branch.pipe.variables[..]) {
                (_, []) => {}
                (true, [one]) => self.assign(one, element.clone()),
                (true, [first, second, ..]) => {
                    self.assign(first, Some(Cow::Owned(key)));
                    self.assign(second, element.clone());
                }
                (false, [_]) => self.variables[declared].1.clone_from(&element),
                (false, _) => {
                    self.variables[declared].1 = Some(Cow::Owned(key));
                    self.variables[declared + 1].1.clone_from(&element);
                }
            }
            let inner = self.variables.len();
            self.nodes(&branch.then, &element)?;
            self.variables.truncate(inner);
        }
        self.variables.truncate(scope);
        Ok(())
    }

    fn assign(&mut self, name: &str, value: Slot<'a>) {
        if let Some((_, slot)) = self.variables.iter_mut().rev().find(|(known, _)| *known == name) {
            *slot = value;
        }
    }

    fn pipe(&mut self, pipe: &'a Pipe, dot: &Slot<'a>) -> Result<Slot<'a>, Failure> {
        let mut value = None;
        for (index, command) in pipe.commands.iter().enumerate() {
            let last = if index == 0 { None } else { Some(value) };
            value = self.command(command, dot, last)?;
        }
        for name in &pipe.variables {
            if pipe.assign {
                self.assign(name, value.clone());
            } else {
                self.variables.push((name, value.clone()));
            }
        }
        Ok(value)
    }

    /// Runs a command; `piped` is the result of the one before.
    fn command(
        &mut self,
        command: &'a Command,
        dot: &Slot<'a>,
        piped: Option<Slot<'a>>,
    ) -> Result<Slot<'a>, Failure> {
        self.step(command.span)?;
        let first = &command.first;
        match &first.kind {
            Kind::Function(function) if first.fields.is_empty() => self.call(*function, command, dot, piped),
            _ if !first.fields.is_empty() => {
                let mut args = Vec::with_capacity(command.args.len());
                for arg in &command.args {
                    args.push(self.operand(arg, dot)?);
                }
                args.extend(piped);
                self.fields(first, dot, &args)
            }
            Kind::Nil => fail(first.span, Reason::NilCommand),
            _ if !command.args.is_empty() || piped.is_some() => fail(first.span, Reason::NotAFunction),
            _ => self.operand(first, dot),
        }
    }

    fn operand(&mut self, operand: &'a Operand, dot: &Slot<'a>) -> Result<Slot<'a>, Failure> {
        self.fields(operand, dot, &[])
    }

    /// The operand's value before its fields.
    fn base(&mut self, operand: &'a Operand, dot: &Slot<'a>) -> Result<Slot<'a>, Failure> {
        Ok(match &operand.kind {
            Kind::Dot => dot.clone(),
            Kind::Nil => Some(Cow::Owned(Value::Null)),
            Kind::Literal(value) => Some(Cow::Borrowed(value)),
            Kind::Variable(name) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                found.and_then(|(_, value)| value.clone())
            }
            Kind::Pipe(pipe) => self.pipe(pipe, dot)?,
            Kind::Function(function) => match function.arity() {
                (0, _) => call::call(*function, &[])
                    .map_err(|(reason, _)| Failure { span: operand.span, reason })?,
                (want, most) => {
                    let reason = arg_count(function.name(), want, most, 0);
                    return fail(operand.span, reason);
                }
            },
        })
    }

    /// The operand's value; the arguments are for the last of its fields.
    fn fields(
        &mut self,
        operand: &'a Operand,
        dot: &Slot<'a>,
        args: &[Slot<'a>],
    ) -> Result<Slot<'a>, Failure> {
        let mut value = self.base(operand, dot)?;
        for (index, name) in operand.fields.iter().enumerate() {
            let args = if index + 1 == operand.fields.len() { args } else { &[] };
            value = self.field(value, name, args).map_err(|reason| Failure { span: operand.span, reason })?;
        }
        Ok(value)
    }

    fn field(&self, value: Slot<'a>, name: &str, args: &[Slot<'a>]) -> Result<Slot<'a>, Reason> {
        let Some(value) = value else { return Ok(None) };
        let root = matches!(&value, Cow::Borrowed(value) if std::ptr::eq(*value, self.root));
        if root && name == "Label" {
            match self.subject {
                Subject::Row { labels, .. } => return label(args, |key| labels.get(key).cloned()),
                Subject::Header(_) => return label(args, |key| Some(label_title(key))),
                Subject::Document(_) => {}
            }
        }
        if !args.is_empty() {
            return Err(arg_count(name, 0, 0, args.len()));
        }
        match &*value {
            Value::Object(map) => match (find(map, name), self.subject) {
                (Some(key), _) => Ok(entry(value, key)),
                (None, Subject::Document(_)) if is_struct(map) => Err(Reason::NoKey(name.into())),
                (None, Subject::Row { .. } | Subject::Header(_)) if root => {
                    let known = map.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                    Err(Reason::NoField { field: name.into(), known })
                }
                _ => Ok(None),
            },
            Value::Null => Err(Reason::FieldOfNil(name.into())),
            other => Err(Reason::NotAnObject { field: name.into(), kind: type_name(other) }),
        }
    }

    fn call(
        &mut self,
        function: Function,
        command: &'a Command,
        dot: &Slot<'a>,
        piped: Option<Slot<'a>>,
    ) -> Result<Slot<'a>, Failure> {
        let got = command.args.len() + usize::from(piped.is_some());
        let (least, most) = function.arity();
        if got < least || got > most {
            return fail(command.first.span, arg_count(function.name(), least, most, got));
        }
        if matches!(function, Function::And | Function::Or) {
            return self.and_or(function, command, dot, piped);
        }
        let mut args = Vec::with_capacity(got);
        for arg in &command.args {
            args.push(self.operand(arg, dot)?);
        }
        args.extend(piped);
        if matches!(self.subject, Subject::Header(_)) && function.keeps_titles() {
            return Ok(args.swap_remove(0));
        }
        let whole_row = matches!(&args[..], [Some(Cow::Borrowed(value))] if std::ptr::eq(*value, self.root));
        if whole_row && function == Function::Json && matches!(self.subject, Subject::Row { .. }) {
            return Ok(Some(Cow::Owned(Value::String(call::json_for_html(self.root)))));
        }
        call::call(function, &args).map_err(|(reason, arg)| {
            let operand = arg.map(|index| command.args.get(index).unwrap_or(&command.first));
            Failure { span: operand.map_or(command.span, |operand| operand.span), reason }
        })
    }

    /// The first argument that decides; those after it are not looked at.
    fn and_or(
        &mut self,
        function: Function,
        command: &'a Command,
        dot: &Slot<'a>,
        piped: Option<Slot<'a>>,
    ) -> Result<Slot<'a>, Failure> {
        let mut value = None;
        for arg in &command.args {
            value = self.operand(arg, dot)?;
            if is_true(value.as_deref()) == (function == Function::Or) {
                return Ok(value);
            }
        }
        Ok(piped.unwrap_or(value))
    }
}

fn span(pipe: &Pipe) -> Span {
    match &pipe.commands[..] {
        [only] if only.args.is_empty() => only.first.span,
        commands => Span { end: commands[commands.len() - 1].span.end, ..commands[0].span },
    }
}

fn arg_count(name: &str, least: usize, most: usize, got: usize) -> Reason {
    let want = match most {
        _ if least == most => least.to_string(),
        usize::MAX => format!("at least {least}"),
        _ => format!("{least} to {most}"),
    };
    Reason::ArgCount { name: name.into(), want, got }
}

/// Keys or indices with elements, in order of the keys.
fn entries(value: Slot<'_>) -> Vec<(Value, Cow<'_, Value>)> {
    match value {
        Some(Cow::Borrowed(Value::Array(items))) => {
            (0_u64..).zip(items).map(|(index, item)| (index.into(), Cow::Borrowed(item))).collect()
        }
        Some(Cow::Owned(Value::Array(items))) => {
            (0_u64..).zip(items).map(|(index, item)| (index.into(), Cow::Owned(item))).collect()
        }
        Some(Cow::Borrowed(Value::Object(map))) => {
            let sorted: BTreeMap<_, _> = map.iter().collect();
            sorted.into_iter().map(|(key, item)| (Value::from(key.as_str()), Cow::Borrowed(item))).collect()
        }
        Some(Cow::Owned(Value::Object(map))) => {
            let sorted: BTreeMap<_, _> = map.into_iter().collect();
            sorted.into_iter().map(|(key, item)| (Value::String(key), Cow::Owned(item))).collect()
        }
        _ => Vec::new(),
    }
}

/// The key that a field's name means. Names of Go's fields and of JSON's differ in case only.
fn find(map: &Map<String, Value>, name: &str) -> Option<String> {
    if map.contains_key(name) {
        return Some(name.to_owned());
    }
    let capital = |text: &str| text.starts_with(|c: char| c.is_ascii_uppercase());
    map.keys().find(|key| capital(name) && capital(key) && key.eq_ignore_ascii_case(name)).cloned()
}

/// An object with fixed fields rather than a map with the user's keys.
fn is_struct(map: &Map<String, Value>) -> bool {
    !map.is_empty() && map.keys().all(|key| key.starts_with(|c: char| c.is_ascii_uppercase()))
}

/// The element of an object, borrowed where the object is.
fn entry(value: Cow<'_, Value>, key: String) -> Slot<'_> {
    match value {
        Cow::Borrowed(value) => value.get(&key).map(Cow::Borrowed),
        Cow::Owned(mut value) => value.get_mut(&key).map(|item| Cow::Owned(item.take())),
    }
}

fn label<'a>(args: &[Slot<'_>], find: impl Fn(&str) -> Option<String>) -> Result<Slot<'a>, Reason> {
    match args {
        [Some(key)] => match &**key {
            Value::String(key) => Ok(Some(Cow::Owned(find(key).unwrap_or_default().into()))),
            other => Err(Reason::ArgType { want: "string", got: type_name(other) }),
        },
        _ => Err(arg_count("Label", 1, 1, args.len())),
    }
}

/// A label's title in a table: what follows the last dot, with spaces.
fn label_title(key: &str) -> String {
    key.rsplit('.').next().unwrap_or(key).replace(['-', '_'], " ")
}
