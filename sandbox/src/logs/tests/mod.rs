//! Writer, reader and follower together.

mod follow;
mod full_disk;
mod read;

use std::{collections::BTreeMap, path::Path};

use husk_protocol::StdioKind;
use jiff::Timestamp;

use super::{LogConfig, ReadOptions, Reader, Record, Writer};

fn writer(path: &Path, options: &[&str]) -> Writer {
    let config = LogConfig::parse("", options).unwrap();
    Writer::open(path, &config, &BTreeMap::new()).unwrap().unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn read(path: &Path, options: &ReadOptions) -> Vec<Record> {
    Reader::open(path, options).unwrap().map(|record| record.unwrap()).collect()
}

/// What is read, one stream or the other, in one piece.
fn text(records: &[Record], stream: StdioKind) -> String {
    records.iter().filter(|record| record.stream == stream).map(|record| record.text.as_str()).collect()
}

fn texts(records: &[Record]) -> Vec<&str> {
    records.iter().map(|record| record.text.as_str()).collect()
}

/// `bytes` with each byte that is not UTF-8 replaced, as in the log.
fn lossy(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| '\u{fffd}'));
    }
    text
}
