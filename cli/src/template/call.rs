//! What the functions do.

use std::borrow::Cow;

use serde_json::Value;

use super::{
    compare,
    error::{CallError, Reason},
    function::Function,
    print::{self, type_name},
    printf,
    slot::Slot,
};

/// The longest run of spaces that `pad` makes.
const MAX_PAD: usize = 1 << 20;

/// Why a call failed, and the argument that is wrong, if it is one.
pub(super) type CallFailure = (Reason, Option<usize>);

/// The arguments as values, with null for what is absent.
struct Args<'s, 'a>(&'s [Slot<'a>]);

const NULL: &Value = &Value::Null;

impl Args<'_, '_> {
    fn get(&self, index: usize) -> &Value {
        self.0.get(index).and_then(Option::as_deref).unwrap_or(NULL)
    }

    fn wrong<T>(&self, index: usize, want: &'static str) -> Result<T, CallFailure> {
        Err((Reason::ArgType { want, got: type_name(self.get(index)) }, Some(index)))
    }

    fn text(&self, index: usize) -> Result<&str, CallFailure> {
        match self.get(index) {
            Value::String(text) => Ok(text),
            _ => self.wrong(index, "string"),
        }
    }

    fn int(&self, index: usize) -> Result<i64, CallFailure> {
        match self.get(index).as_i64() {
            Some(number) => Ok(number),
            None => self.wrong(index, "int"),
        }
    }
}

/// Calls a function with the right number of arguments. `and` and `or` are the evaluation's.
///
/// # Errors
/// Why it failed.
pub(super) fn call<'a>(function: Function, slots: &[Slot<'a>]) -> Result<Slot<'a>, CallFailure> {
    let args = Args(slots);
    let value = match function {
        Function::Json => Value::String(json(args.get(0))),
        Function::Join => Value::String(join(&args)?),
        Function::Split => split(args.text(0)?, args.text(1)?),
        Function::Lower => args.text(0)?.to_lowercase().into(),
        Function::Upper => args.text(0)?.to_uppercase().into(),
        Function::Title => title(args.text(0)?).into(),
        Function::Pad => {
            let (text, before, after) = (args.text(0)?, args.int(1)?, args.int(2)?);
            pad(text, before, after).map_err(|reason| failed(function, reason))?.into()
        }
        Function::Truncate => {
            let (text, length) = (args.text(0)?, args.int(1)?);
            truncate(text, length).map_err(|reason| failed(function, reason))?.into()
        }
        Function::Print => Value::String(print::joined(slots.iter().map(Option::as_deref))),
        Function::Println => Value::String(print::line(slots.iter().map(Option::as_deref))),
        Function::Printf => {
            let values: Vec<&Value> = (1..slots.len()).map(|index| args.get(index)).collect();
            Value::String(printf::printf(args.text(0)?, &values))
        }
        Function::Len => length(args.get(0)).map_err(|reason| failed(function, reason))?.into(),
        Function::Index => return index(slots).map_err(|reason| failed(function, reason)),
        Function::Slice => slice(&args)?,
        Function::Not => Value::Bool(!compare::is_true(slots[0].as_deref())),
        Function::Eq | Function::Ne | Function::Lt | Function::Le | Function::Gt | Function::Ge => {
            let values: Vec<&Value> = (0..slots.len()).map(|index| args.get(index)).collect();
            compare::compare(function, &values).map_err(|reason| failed(function, reason))?.into()
        }
        // They end at the argument that decides: `eval` does it.
        Function::And | Function::Or => return Ok(slots.last().cloned().flatten()),
    };
    Ok(Some(Cow::Owned(value)))
}

fn failed(function: Function, reason: CallError) -> CallFailure {
    (Reason::Call { name: function.name(), reason }, None)
}

fn json(value: &Value) -> String {
    // Separators that are line ends in JavaScript: Go always escapes them.
    value.to_string().replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

/// A value as JSON that may stand in HTML. Docker's lists print whole rows like that.
pub(super) fn json_for_html(value: &Value) -> String {
    json(value).replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

fn join(args: &Args<'_, '_>) -> Result<String, CallFailure> {
    let separator = args.text(1)?;
    let Value::Array(items) = args.get(0) else {
        return if args.get(0).is_null() { Ok(String::new()) } else { args.wrong(0, "[]string") };
    };
    let Some(texts) = items.iter().map(Value::as_str).collect::<Option<Vec<_>>>() else {
        return args.wrong(0, "[]string");
    };
    Ok(texts.join(separator))
}

fn split(text: &str, separator: &str) -> Value {
    if separator.is_empty() {
        return text.chars().map(|c| Value::String(c.into())).collect();
    }
    text.split(separator).map(Value::from).collect()
}

/// The first letter of each word in upper case.
fn title(text: &str) -> String {
    let mut previous = ' ';
    let mut title = String::with_capacity(text.len());
    for c in text.chars() {
        if previous.is_alphanumeric() || previous == '_' {
            title.push(c);
        } else {
            title.extend(c.to_uppercase());
        }
        previous = c;
    }
    title
}

fn pad(text: &str, before: i64, after: i64) -> Result<String, CallError> {
    if text.is_empty() {
        return Ok(String::new());
    }
    let spaces = |count: i64| match usize::try_from(count) {
        Ok(count) if count <= MAX_PAD => Ok(" ".repeat(count)),
        _ => Err(CallError::Length(count, MAX_PAD)),
    };
    Ok(spaces(before)? + text + &spaces(after)?)
}

/// The first bytes of a text, as far as they are whole characters.
fn truncate(text: &str, length: i64) -> Result<String, CallError> {
    let length = usize::try_from(length).map_err(|_| CallError::Length(length, usize::MAX))?;
    Ok(text[..text.floor_char_boundary(length)].to_owned())
}

fn length(value: &Value) -> Result<usize, CallError> {
    match value {
        Value::String(text) => Ok(text.len()),
        Value::Array(items) => Ok(items.len()),
        Value::Object(map) => Ok(map.len()),
        Value::Null => Err(CallError::LengthOfNil),
        other => Err(CallError::NoLength(type_name(other))),
    }
}

/// The element below all indices, in turn.
fn index<'a>(slots: &[Slot<'a>]) -> Result<Slot<'a>, CallError> {
    let mut value = slots[0].clone();
    for key in &slots[1..] {
        value = match value {
            None => return Err(CallError::IndexOfNil),
            Some(Cow::Borrowed(value)) => match element(value, key.as_deref())? {
                Element::Found(item) => Some(Cow::Borrowed(item)),
                Element::Made(item) => item.map(Cow::Owned),
            },
            Some(Cow::Owned(value)) => match element(&value, key.as_deref())? {
                Element::Found(item) => Some(Cow::Owned(item.clone())),
                Element::Made(item) => item.map(Cow::Owned),
            },
        };
    }
    Ok(value)
}

enum Element<'v> {
    Found(&'v Value),
    /// Not part of the value: what Go has for an absent key, and bytes.
    Made(Option<Value>),
}

fn element<'v>(value: &'v Value, key: Option<&Value>) -> Result<Element<'v>, CallError> {
    let key = key.unwrap_or(NULL);
    match value {
        Value::Array(items) => Ok(Element::Found(&items[position(key, items.len())?])),
        Value::String(text) => Ok(Element::Made(Some(text.as_bytes()[position(key, text.len())?].into()))),
        Value::Object(map) => {
            let Value::String(key) = key else { return Err(CallError::KeyType(type_name(key))) };
            let texts = map.values().all(Value::is_string);
            Ok(map.get(key).map_or(Element::Made(texts.then(|| "".into())), Element::Found))
        }
        Value::Null => Err(CallError::IndexOfNil),
        other => Err(CallError::NotIndexable(type_name(other))),
    }
}

fn position(key: &Value, length: usize) -> Result<usize, CallError> {
    let Some(number) = key.as_i64() else { return Err(CallError::IndexType(type_name(key))) };
    usize::try_from(number).ok().filter(|at| *at < length).ok_or(CallError::OutOfRange(number))
}

/// A part of a text or an array: from the first bound to the second. A third one limits what can't grow here.
fn slice(args: &Args<'_, '_>) -> Result<Value, CallFailure> {
    let failed = |reason| failed(Function::Slice, reason);
    let value = args.get(0);
    let length = match value {
        Value::String(_) if args.0.len() > 3 => return Err(failed(CallError::ThirdIndex)),
        Value::String(text) => text.len(),
        Value::Array(items) => items.len(),
        Value::Null => return Err(failed(CallError::IndexOfNil)),
        other => return Err(failed(CallError::NotSliceable(type_name(other)))),
    };
    let mut bounds = [0, length, length];
    for (index, bound) in bounds.iter_mut().enumerate().take(args.0.len() - 1) {
        let number = args.int(index + 1)?;
        let valid = usize::try_from(number).ok().filter(|at| *at <= length);
        *bound = valid.ok_or_else(|| failed(CallError::OutOfRange(number)))?;
    }
    let [from, to, _] = bounds;
    if from > to {
        let number = |at| i64::try_from(at).unwrap_or(i64::MAX);
        return Err(failed(CallError::SliceOrder(number(from), number(to))));
    }
    Ok(match value {
        Value::Array(items) => Value::Array(items[from..to].to_vec()),
        Value::String(text) => String::from_utf8_lossy(&text.as_bytes()[from..to]).into(),
        _ => Value::Null,
    })
}
