//! What the user should know, and is not a failure: kept until a client takes it.

use std::sync::{Mutex, PoisonError};

/// More are left out.
const MOST: usize = 32;

static NOTES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Keeps a note.
pub(crate) fn keep(text: &str) {
    let mut notes = NOTES.lock().unwrap_or_else(PoisonError::into_inner);
    if notes.len() < MOST {
        notes.push(text.to_owned());
    }
}

/// All notes since the last call.
pub(crate) fn take() -> Vec<String> {
    std::mem::take(&mut *NOTES.lock().unwrap_or_else(PoisonError::into_inner))
}
