//! Values as Go prints them.

use std::collections::BTreeMap;

use serde_json::{Number, Value};

use crate::go_text;

/// The name that errors have for a value's type.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// The result of an action: what is absent or null prints as `<no value>`.
pub(super) fn value(out: &mut String, value: Option<&Value>) {
    match value {
        None | Some(Value::Null) => out.push_str("<no value>"),
        Some(value) => default(out, value),
    }
}

/// A value in its default form: `map[a:1 b:2]`, `[a b]`, `<nil>`.
pub(super) fn default(out: &mut String, value: &Value) {
    nested(out, value, &mut |out, scalar| match scalar {
        Value::Null => out.push_str("<nil>"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(value) => out.push_str(&number(value)),
        Value::String(text) => out.push_str(text),
        Value::Array(_) | Value::Object(_) => {}
    });
}

/// A value with brackets around arrays and maps; `scalar` prints all that is neither.
pub(super) fn nested(out: &mut String, value: &Value, scalar: &mut dyn FnMut(&mut String, &Value)) {
    match value {
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(' ');
                }
                nested(out, item, scalar);
            }
            out.push(']');
        }
        Value::Object(map) => {
            out.push_str("map[");
            let sorted: BTreeMap<_, _> = map.iter().collect();
            for (index, (key, item)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    out.push(' ');
                }
                scalar(out, &Value::String(key.clone()));
                out.push(':');
                nested(out, item, scalar);
            }
            out.push(']');
        }
        other => scalar(out, other),
    }
}

/// Whole numbers as they are, all others in Go's default form.
pub(super) fn number(number: &Number) -> String {
    match number.as_f64() {
        Some(value) if number.is_f64() => go_text::float(value, None),
        _ => number.to_string(),
    }
}

/// `print`: a space between two values unless one of them is a text.
pub(super) fn joined<'v>(values: impl Iterator<Item = Option<&'v Value>>) -> String {
    let mut out = String::new();
    let mut after_text = true;
    for value in values {
        let value = value.unwrap_or(&Value::Null);
        if !after_text && !value.is_string() {
            out.push(' ');
        }
        default(&mut out, value);
        after_text = value.is_string();
    }
    out
}

/// `println`: a space between all values, and a newline.
pub(super) fn line<'v>(values: impl Iterator<Item = Option<&'v Value>>) -> String {
    let mut out = String::new();
    for (index, value) in values.enumerate() {
        if index > 0 {
            out.push(' ');
        }
        default(&mut out, value.unwrap_or(&Value::Null));
    }
    out.push('\n');
    out
}
