//! Pulling from a real registry, and from servers that misbehave.

mod against_registry;
mod auth;
mod faults;
mod fixture;
mod hostile;
mod no_space;
mod registry;
mod server;
