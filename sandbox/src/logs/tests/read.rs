//! Reading what is there.

use std::{fs, io::Write};

use proptest::prelude::*;

use super::*;
use crate::logs::scan::LONGEST_LINE;

/// A log of the lines `0` to `count - 1`, each at the second of its number.
fn numbered(path: &Path, count: i64, options: &[&str]) {
    let mut writer = writer(path, options);
    for number in 0..count {
        writer.write(StdioKind::Stdout, format!("{number}\n").as_bytes(), at(number));
    }
    writer.finish(at(count));
}

fn numbers(path: &Path, options: &ReadOptions) -> Vec<i64> {
    read(path, options).iter().map(|record| record.text.trim_end().parse().unwrap()).collect()
}

#[test]
fn rotated_files_are_read_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.log");
    numbered(&path, 200, &["max-size=300", "max-file=500"]);
    assert!(dir.path().join("c.log.30").exists());
    assert_eq!(numbers(&path, &ReadOptions::default()), Vec::from_iter(0..200));
    for tail in [0, 1, 2, 7, 100, 199, 200, 201, u64::MAX] {
        let first = 200 - i64::try_from(tail.min(200)).unwrap();
        let options = ReadOptions { tail: Some(tail), ..ReadOptions::default() };
        assert_eq!(numbers(&path, &options), Vec::from_iter(first..200), "tail {tail}");
    }
}

#[test]
fn what_was_rotated_out_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.log");
    numbered(&path, 100, &["max-size=1", "max-file=3"]);
    assert_eq!(numbers(&path, &ReadOptions::default()), [97, 98, 99]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
}

#[test]
fn since_and_until_include_their_borders() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.log");
    numbered(&path, 10, &["max-size=300", "max-file=500"]);
    let between = |since, until, tail| numbers(&path, &ReadOptions { since, until, tail });
    let nano = jiff::SignedDuration::from_nanos(1);
    assert_eq!(between(Some(at(3)), Some(at(5)), None), [3, 4, 5]);
    assert_eq!(between(Some(at(3) + nano), Some(at(5) - nano), None), [4]);
    assert_eq!(between(None, Some(at(1)), None), [0, 1]);
    assert_eq!(between(Some(at(8)), None, None), [8, 9]);
    assert_eq!(between(Some(at(100)), None, None), [0_i64; 0]);
    assert_eq!(between(None, Some(at(-1)), None), [0_i64; 0]);
    // The tail is cut first, as Docker does.
    assert_eq!(between(Some(at(3)), Some(at(8)), Some(4)), [6, 7, 8]);
    assert_eq!(between(Some(at(8)), None, Some(4)), [8, 9]);
}

#[test]
fn later_parts_of_a_line_belong_to_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.log");
    let mut writer = writer(&path, &[]);
    writer.write(StdioKind::Stdout, &[b'x'; 16 * 1024], at(1));
    writer.write(StdioKind::Stderr, b"e\n", at(2));
    writer.write(StdioKind::Stdout, b"y\n", at(3));
    let options = ReadOptions { since: Some(at(2)), ..ReadOptions::default() };
    let records = read(&path, &options);
    assert_eq!(texts(&records), ["e\n", "y\n"]);
    assert_eq!(records[1].time, at(1));
}

#[test]
fn torn_and_foreign_lines_are_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.log");
    numbered(&path, 2, &[]);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 10]).unwrap();
    assert_eq!(numbers(&path, &ReadOptions::default()), [0]);
    let mut writer = writer(&path, &[]);
    writer.write(StdioKind::Stdout, b"2\n", at(2));
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(&[&vec![b'x'; LONGEST_LINE * 3][..], b"\n\n\xff\n{}\n"].concat()).unwrap();
    writer.write(StdioKind::Stdout, b"3\n", at(3));
    assert_eq!(numbers(&path, &ReadOptions::default()), [0, 2, 3]);
    assert_eq!(numbers(&path, &ReadOptions { tail: Some(2), ..ReadOptions::default() }), [2, 3]);
}

#[test]
fn a_record_that_lacks_only_its_newline_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.log");
    numbered(&path, 2, &[]);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    assert_eq!(numbers(&path, &ReadOptions::default()), [0, 1]);
    writer(&path, &[]).write(StdioKind::Stdout, b"2\n", at(2));
    assert_eq!(numbers(&path, &ReadOptions::default()), [0, 1, 2]);
}

#[test]
fn reading_ends_at_what_was_there_when_it_began() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.log");
    let mut writer = writer(&path, &["max-size=200", "max-file=2"]);
    writer.write(StdioKind::Stdout, b"0\n1\n2\n3\n", at(0));
    let reader = Reader::open(&path, &ReadOptions::default()).unwrap();
    // The files that were there are rotated out.
    for _ in 0..10 {
        writer.write(StdioKind::Stdout, b"later\n", at(0));
    }
    let records: Vec<_> = reader.map(|record| record.unwrap()).collect();
    assert_eq!(texts(&records), ["0\n", "1\n", "2\n", "3\n"]);
}

#[test]
fn a_log_that_does_not_exist_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    let tail = ReadOptions { tail: Some(5), ..ReadOptions::default() };
    for path in [dir.path().join("c.log"), dir.path().join("none/c.log")] {
        assert_eq!(read(&path, &ReadOptions::default()), []);
        assert_eq!(read(&path, &tail), []);
    }
}

/// Bytes with many newlines, some escapes and broken UTF-8, and lines around the limit of 16 KiB.
fn output() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..80),
        2 => Just(b"\n".to_vec()),
        2 => Just("<é€😀\u{2028}>\n".as_bytes().to_vec()),
        1 => (16_300_usize..16_500, any::<bool>()).prop_map(|(length, wide)| match wide {
            true => "€".repeat(length / 3).into_bytes(),
            false => vec![b'x'; length],
        }),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn output_is_read_as_it_was_written(
        chunks in prop::collection::vec((any::<bool>(), output()), 0..8),
        chunk_size in 1_usize..20_000,
        max_size in prop::option::of(1_u32..40_000),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.log");
        let options = max_size.map_or(vec![], |max| vec![format!("max-size={max}"), "max-file=500".into()]);
        let options: Vec<_> = options.iter().map(String::as_str).collect();
        let mut writer = writer(&path, &options);
        let (mut out, mut err) = (Vec::new(), Vec::new());
        for (is_out, bytes) in &chunks {
            let (stream, all) = match is_out {
                true => (StdioKind::Stdout, &mut out),
                false => (StdioKind::Stderr, &mut err),
            };
            all.extend_from_slice(bytes);
            for chunk in bytes.chunks(chunk_size) {
                writer.write(stream, chunk, at(1));
            }
        }
        let lost = writer.finish(at(1));
        prop_assert_eq!(lost.records, 0);
        let records = read(&path, &ReadOptions::default());
        let whole = fs::read_dir(dir.path()).unwrap().count() < 500;
        if whole {
            prop_assert_eq!(text(&records, StdioKind::Stdout), lossy(&out));
            prop_assert_eq!(text(&records, StdioKind::Stderr), lossy(&err));
        }
        for tail in [0, 1, 3, records.len()] {
            let options = ReadOptions { tail: Some(tail as u64), ..ReadOptions::default() };
            let first = records.len() - tail.min(records.len());
            prop_assert_eq!(&read(&path, &options)[..], &records[first..]);
        }
    }

    #[test]
    fn no_file_content_makes_reading_fail(
        files in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 0..4),
        record_at in 0_usize..400,
        tail in prop::option::of(0_u64..5),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.log");
        for (number, content) in files.iter().enumerate() {
            let mut content = content.clone();
            let record = b"\n{\"log\":\"found\",\"stream\":\"stdout\",\"time\":\"2026-12-01T02:43:05Z\"}\n";
            content.splice(record_at.min(content.len())..record_at.min(content.len()), record.iter().copied());
            fs::write(crate::logs::chain::numbered(&path, u32::try_from(number).unwrap()), content).unwrap();
        }
        let options = ReadOptions { tail, ..ReadOptions::default() };
        let expected = tail.map_or(files.len(), |tail| files.len().min(usize::try_from(tail).unwrap()));
        let records = read(&path, &options);
        prop_assert_eq!(texts(&records), vec!["found"; expected]);
    }
}
