//! Pulling from a real registry and from servers that misbehave, and loading what skopeo writes.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside of test functions")]

mod against_registry;
mod archives;
mod auth;
mod faults;
mod fixture;
mod hostile;
mod killed;
mod no_space;
mod registry;
mod server;
