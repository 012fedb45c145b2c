//! End-to-end tests: husk and its VMM as a user meets them. A file per subject.
#![allow(clippy::unwrap_used)]

mod exit_codes;
mod images;
mod kill9;
mod run_options;
mod signals;
mod stdio;
mod tty;
