//! Following while it is written.

use std::{fs, future, io::Write, path::PathBuf, thread, time::Duration};

use tokio::sync::oneshot;

use super::*;
use crate::logs::Follower;

type End = future::Pending<()>;

fn follow(path: &Path, options: &ReadOptions) -> Follower<End> {
    Follower::open(path, options, future::pending()).unwrap()
}

/// The next record, which must come.
async fn next<E: Future<Output = ()> + Unpin>(follower: &mut Follower<E>) -> String {
    let next = tokio::time::timeout(Duration::from_secs(60), follower.next());
    next.await.expect("a record").unwrap().expect("no end").text
}

/// No record comes, however often the follower looks.
async fn assert_waits(follower: &mut Follower<End>) {
    tokio::select! {
        biased;
        next = follower.next() => panic!("{next:?}"),
        () = tokio::task::yield_now() => {}
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn log() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.log");
    (dir, path)
}

#[tokio::test]
async fn records_are_followed_across_rotations() {
    let (_dir, path) = log();
    let mut follower = follow(&path, &ReadOptions::default());
    assert_waits(&mut follower).await;
    let mut writer = writer(&path, &["max-size=1", "max-file=4"]);
    writer.write(StdioKind::Stdout, b"0\nheld", at(0));
    assert_eq!(next(&mut follower).await, "0\n");
    assert_waits(&mut follower).await;
    writer.write(StdioKind::Stdout, b" back\n", at(0));
    assert_eq!(next(&mut follower).await, "held back\n");
    // Three rotations at once.
    writer.write(StdioKind::Stdout, b"1\n2\n3\n", at(0));
    for expected in ["1\n", "2\n", "3\n"] {
        assert_eq!(next(&mut follower).await, expected);
    }
    assert_waits(&mut follower).await;
    // All files are rotated out. What is left is not doubled.
    writer.write(StdioKind::Stdout, b"a\nb\nc\nd\ne\nf\n", at(0));
    for expected in ["c\n", "d\n", "e\n", "f\n"] {
        assert_eq!(next(&mut follower).await, expected);
    }
    assert_waits(&mut follower).await;
}

#[tokio::test]
async fn the_tail_is_followed() {
    let (_dir, path) = log();
    let mut writer = writer(&path, &["max-size=200", "max-file=5"]);
    writer.write(StdioKind::Stdout, b"0\n1\n2\n3\n4\n5\n", at(0));
    let tail = |tail| follow(&path, &ReadOptions { tail: Some(tail), ..ReadOptions::default() });
    let (mut none, mut one, mut five, mut all) = (tail(0), tail(1), tail(5), tail(100));
    assert_waits(&mut none).await;
    writer.write(StdioKind::Stdout, b"6\n", at(0));
    for (follower, first) in [(&mut none, 6), (&mut one, 5), (&mut five, 1), (&mut all, 0)] {
        for number in first..=6 {
            assert_eq!(next(follower).await, format!("{number}\n"));
        }
        assert_waits(follower).await;
    }
}

#[tokio::test]
async fn all_is_delivered_before_the_end() {
    let (_dir, path) = log();
    let (end, ended) = oneshot::channel::<()>();
    let ended = Box::pin(async { drop(ended.await) });
    let mut follower = Follower::open(&path, &ReadOptions::default(), ended).unwrap();
    let mut writer = writer(&path, &["max-size=1", "max-file=9"]);
    writer.write(StdioKind::Stdout, b"0\n1\n$ ", at(0));
    writer.finish(at(0));
    end.send(()).unwrap();
    for expected in ["0\n", "1\n", "$ "] {
        assert_eq!(next(&mut follower).await, expected);
    }
    assert_eq!(follower.next().await.unwrap(), None);
    assert_eq!(follower.next().await.unwrap(), None);
}

#[tokio::test]
async fn until_ends_following() {
    let (_dir, path) = log();
    let mut writer = writer(&path, &[]);
    writer.write(StdioKind::Stdout, b"0\n", at(0));
    // By the clock,
    let mut past = follow(&path, &ReadOptions { until: Some(at(1)), ..ReadOptions::default() });
    assert_eq!(next(&mut past).await, "0\n");
    assert_eq!(past.next().await.unwrap(), None);
    // or by a record.
    let later = Timestamp::now() + jiff::SignedDuration::from_hours(1);
    let mut future = follow(&path, &ReadOptions { until: Some(later), ..ReadOptions::default() });
    assert_eq!(next(&mut future).await, "0\n");
    writer.write(StdioKind::Stdout, b"1\n", later);
    writer.write(StdioKind::Stdout, b"2\n", later + jiff::SignedDuration::from_nanos(1));
    assert_eq!(next(&mut future).await, "1\n");
    assert_eq!(future.next().await.unwrap(), None);
}

#[tokio::test]
async fn a_record_that_is_written_in_two_parts_comes_once() {
    let (_dir, path) = log();
    let mut writer = writer(&path, &[]);
    writer.write(StdioKind::Stdout, b"0\n1\n", at(0));
    writer.finish(at(0));
    let content = fs::read(&path).unwrap();
    let mut follower = follow(&path, &ReadOptions::default());
    let mut file = fs::File::create(&path).unwrap();
    for cut in [10, content.len() - 1, content.len()] {
        let at = usize::try_from(file.metadata().unwrap().len()).unwrap();
        file.write_all(&content[at..cut]).unwrap();
        if cut == 10 {
            assert_waits(&mut follower).await;
            // As a writer does that found the disk full: the part is replaced.
            file = fs::File::create(&path).unwrap();
        }
    }
    assert_eq!(next(&mut follower).await, "0\n");
    assert_eq!(next(&mut follower).await, "1\n");
    assert_waits(&mut follower).await;
}

#[tokio::test]
async fn files_that_others_empty_or_remove_are_followed() {
    let (_dir, path) = log();
    let mut writer = writer(&path, &["max-size=300", "max-file=3"]);
    // The file is rotated after the fifth.
    writer.write(StdioKind::Stdout, b"0\n1\n2\n3\n4\n5\n6\n", at(0));
    let mut follower = follow(&path, &ReadOptions::default());
    for number in 0..=6 {
        assert_eq!(next(&mut follower).await, format!("{number}\n"));
    }
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
    assert_waits(&mut follower).await;
    writer.write(StdioKind::Stdout, b"7\n", at(0));
    assert_eq!(next(&mut follower).await, "7\n");
    assert_eq!(texts(&read(&path, &ReadOptions::default())).last(), Some(&"7\n"));
    fs::remove_file(&path).unwrap();
    assert_waits(&mut follower).await;
}

#[test]
fn a_writer_and_a_follower_at_once_lose_and_double_nothing() {
    const LINES: u32 = 20_000;
    for tail in [None, Some(u64::MAX)] {
        let (_dir, path) = log();
        let (end, ended) = oneshot::channel::<()>();
        let writing = path.clone();
        let thread = thread::spawn(move || {
            let mut writer = writer(&writing, &["max-size=8k", "max-file=500"]);
            let mut chunk = Vec::new();
            for number in 0..LINES {
                writeln!(chunk, "{number}").unwrap();
                // Chunks of all sizes, which end within lines.
                if number % (1 + number / 3 % 50) == 0 {
                    let cut = chunk.len() - usize::try_from(number % 3).unwrap();
                    writer.write(StdioKind::Stdout, &chunk[..cut], at(0));
                    chunk.drain(..cut);
                }
            }
            writer.write(StdioKind::Stdout, &chunk, at(0));
            writer.finish(at(0));
            end.send(()).unwrap();
        });
        let options = ReadOptions { tail, ..ReadOptions::default() };
        runtime().block_on(async {
            let ended = Box::pin(async { drop(ended.await) });
            let mut follower = Follower::open(&path, &options, ended).unwrap();
            for number in 0..LINES {
                assert_eq!(next(&mut follower).await, format!("{number}\n"));
            }
            assert_eq!(follower.next().await.unwrap(), None);
        });
        thread.join().unwrap();
        // And so does a reader, after the end.
        assert_eq!(read(&path, &ReadOptions::default()).len(), usize::try_from(LINES).unwrap());
    }
}

#[test]
fn a_reader_meets_rotations_and_sees_no_gap() {
    let (_dir, path) = log();
    let writing = path.clone();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let thread = thread::spawn(move || {
        let mut writer = writer(&writing, &["max-size=1k", "max-file=8"]);
        let mut number = 0_u64;
        while stopped.try_recv() != Err(std::sync::mpsc::TryRecvError::Disconnected) {
            writer.write(StdioKind::Stdout, format!("{number}\n").as_bytes(), at(0));
            number += 1;
        }
    });
    let mut read_something = 0;
    while read_something < 200 {
        let records = read(&path, &ReadOptions::default());
        let numbers: Vec<u64> =
            records.iter().map(|record| record.text.trim_end().parse().unwrap()).collect();
        assert!(numbers.windows(2).all(|two| two[0] + 1 == two[1]), "{numbers:?}");
        read_something += u32::from(!numbers.is_empty());
    }
    drop(stop);
    thread.join().unwrap();
}
