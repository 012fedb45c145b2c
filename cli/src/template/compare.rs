//! Truth, equality and order of values.

use std::cmp::Ordering;

use serde_json::Value;

use super::{error::CallError, function::Function, print::type_name};

/// False are: what is absent, null, false, zero, and what has no elements.
pub(super) fn is_true(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => false,
        Some(Value::Bool(value)) => *value,
        Some(Value::Number(number)) => number.as_f64() != Some(0.0),
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::Object(map)) => !map.is_empty(),
    }
}

/// The result of `eq`, `ne`, `lt`, `le`, `gt` or `ge`. `eq` takes several values to compare the first with.
///
/// # Errors
/// The values are of kinds that can't be compared.
pub(super) fn compare(function: Function, values: &[&Value]) -> Result<bool, CallError> {
    let [first, others @ ..] = values else { return Err(CallError::Incompatible) };
    match function {
        Function::Eq => {
            for other in others {
                if equal(first, other)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Function::Ne => Ok(!equal(first, others[0])?),
        Function::Lt => Ok(order(first, others[0])?.is_lt()),
        Function::Le => Ok(order(first, others[0])?.is_le()),
        Function::Gt => Ok(order(first, others[0])?.is_gt()),
        _ => Ok(order(first, others[0])?.is_ge()),
    }
}

fn equal(first: &Value, second: &Value) -> Result<bool, CallError> {
    match (first, second) {
        (Value::Null, other) | (other, Value::Null) => Ok(other.is_null()),
        (Value::Bool(first), Value::Bool(second)) => Ok(first == second),
        (Value::Array(_) | Value::Object(_), _) => Err(CallError::NotComparable(type_name(first))),
        (_, Value::Array(_) | Value::Object(_)) => Err(CallError::NotComparable(type_name(second))),
        (Value::Bool(_), _) | (_, Value::Bool(_)) => Err(CallError::Incompatible),
        _ => Ok(order(first, second)?.is_eq()),
    }
}

fn order(first: &Value, second: &Value) -> Result<Ordering, CallError> {
    match (first, second) {
        (Value::String(first), Value::String(second)) => Ok(first.cmp(second)),
        (Value::Number(a), Value::Number(b)) => match (a.as_i128(), b.as_i128(), a.as_f64(), b.as_f64()) {
            (Some(a), Some(b), ..) => Ok(a.cmp(&b)),
            (None, None, Some(a), Some(b)) => Ok(a.total_cmp(&b)),
            _ => Err(CallError::Incompatible),
        },
        (Value::String(_) | Value::Number(_), Value::String(_) | Value::Number(_)) => {
            Err(CallError::Incompatible)
        }
        _ => Err(CallError::NotOrdered),
    }
}
