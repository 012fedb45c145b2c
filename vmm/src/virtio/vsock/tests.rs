//! Tests of the device against a guest that lives in plain memory, and real unix sockets.

mod bad_input;
mod data;
mod driver;
mod ends;
mod hello;
mod lifecycle;
mod limits;
mod random;
