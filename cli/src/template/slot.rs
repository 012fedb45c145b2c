//! What a template's commands work on.

use std::borrow::Cow;

use serde_json::Value;

/// A value under way. `None` is the absent entry of a map, which prints as `<no value>`.
pub(super) type Slot<'a> = Option<Cow<'a, Value>>;
