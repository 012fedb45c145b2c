//! A disk that is full.

use std::{fs, path::PathBuf, thread};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use super::*;

/// Runs `test` in a thread that sees a file system of 64 KiB at the path it is passed.
fn on_tiny_disk(test: fn(PathBuf)) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: mounting a tiny tmpfs needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let thread = thread::spawn(move || {
        // The mount is this thread's alone, and ends with it.
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).unwrap();
        let nothing = None::<&str>;
        mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).unwrap();
        mount(Some("tiny"), &path, Some("tmpfs"), MsFlags::empty(), Some("size=64k")).unwrap();
        test(path);
    });
    thread.join().unwrap();
}

#[test]
fn what_a_full_disk_does_not_take_is_counted_and_reported() {
    on_tiny_disk(|dir| {
        let path = dir.join("c.log");
        fs::write(dir.join("filler"), [0; 16 * 1024]).unwrap();
        let mut writer = writer(&path, &[]);
        let line = [&[b'x'; 99][..], b"\n"].concat();
        let mut written = 0;
        while writer.lost().records < 50 {
            writer.write(StdioKind::Stdout, &line.repeat(7), at(written));
            written += 7;
        }
        let lost = writer.lost().clone();
        assert_eq!((lost.bytes, lost.reason.as_str()), (lost.records * 100, "no space left on device"));
        assert!(lost.first.unwrap() < at(written));
        let kept = u64::try_from(written).unwrap() - lost.records;
        // The file ends with a whole record, and all that was not counted is there.
        assert!(fs::read(&path).unwrap().ends_with(b"}\n"));
        let count =
            |records: &[Record]| records.iter().filter(|record| record.text.starts_with('x')).count() as u64;
        assert_eq!(count(&read(&path, &ReadOptions::default())), kept);

        fs::remove_file(dir.join("filler")).unwrap();
        writer.write(StdioKind::Stdout, b"again\n", at(written));
        writer.write(StdioKind::Stdout, b"and on\n", at(written));
        let records = read(&path, &ReadOptions::default());
        assert_eq!(count(&records), kept);
        let notices: Vec<_> = records.iter().filter(|record| record.text.starts_with("husk: ")).collect();
        let (last, earlier) = notices.split_last().unwrap();
        assert_eq!(last.stream, StdioKind::Stderr);
        // Small records may have fitted after a larger one did not. The notices together name all.
        let named = |notice: &Record| notice.text.split(' ').nth(1).unwrap().parse::<u64>().unwrap();
        assert_eq!(named(last) + earlier.iter().map(|notice| named(notice)).sum::<u64>(), lost.records);
        assert!(last.text.ends_with(" bytes) were lost: no space left on device\n"), "{}", last.text);
        assert_eq!(texts(&records[records.len() - 2..]), ["again\n", "and on\n"]);
        assert_eq!(writer.finish(at(written)), lost);
    });
}

#[test]
fn a_full_disk_stops_neither_the_begin_nor_the_end() {
    on_tiny_disk(|dir| {
        let path = dir.join("c.log");
        fs::write(&path, "to").unwrap();
        fs::write(dir.join("filler"), [0; 60 * 1024]).unwrap();
        let mut writer = writer(&path, &[]);
        // More than the page that "to" has begun.
        let long = [b'x'; 10_000];
        writer.write(StdioKind::Stdout, &[&long[..], b"\n"].concat(), at(1));
        writer.write(StdioKind::Stderr, &long, at(1));
        assert_eq!(writer.lost().records, 1);
        fs::remove_file(dir.join("filler")).unwrap();
        assert_eq!(writer.finish(at(2)).records, 1);
        let records = read(&path, &ReadOptions::default());
        assert_eq!(records.len(), 2);
        assert_eq!(records[0].text, "husk: 1 log lines (10001 bytes) were lost: no space left on device\n");
        assert_eq!(records[1].text.as_bytes(), long);
        assert!(fs::read(&path).unwrap().starts_with(b"to\n{"));
    });
}

#[test]
fn a_full_disk_is_rotated() {
    on_tiny_disk(|dir| {
        let path = dir.join("c.log");
        let mut writer = writer(&path, &["max-size=30000"]);
        for number in 0..2000 {
            writer.write(StdioKind::Stdout, format!("{number}\n").as_bytes(), at(0));
        }
        assert_eq!(writer.finish(at(0)).records, 0);
        assert_eq!(read(&path, &ReadOptions::default()).last().unwrap().text, "1999\n");
    });
}

#[test]
fn a_disk_that_is_read_only_at_the_begin_is_tried_again() {
    on_tiny_disk(|dir| {
        let path = dir.join("c.log");
        let remount = |flags: MsFlags| {
            mount(None::<&str>, &dir, None::<&str>, MsFlags::MS_REMOUNT | flags, None::<&str>).unwrap();
        };
        remount(MsFlags::MS_RDONLY);
        let mut writer = writer(&path, &[]);
        writer.write(StdioKind::Stdout, b"lost\n", at(1));
        assert_eq!((writer.lost().records, writer.lost().first), (1, Some(at(1))));
        assert_eq!(writer.lost().reason, "read-only file system");
        remount(MsFlags::empty());
        writer.write(StdioKind::Stdout, b"kept\n", at(2));
        let expected = ["husk: 1 log lines (5 bytes) were lost: read-only file system\n", "kept\n"];
        assert_eq!(texts(&read(&path, &ReadOptions::default())), expected);
    });
}
