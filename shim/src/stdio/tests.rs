use std::{fs, io::Read, path::PathBuf};

use nix::{sys::stat::Mode, unistd::mkfifo};
use tokio::task::spawn_blocking;

use super::*;

fn fifo(dir: &tempfile::TempDir, name: &str) -> PathBuf {
    let path = dir.path().join(name);
    mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    path
}

#[tokio::test]
async fn output_waits_for_a_reader_that_comes_late() {
    let dir = tempfile::tempdir().unwrap();
    let path = fifo(&dir, "out");
    let (ours, mut guests) = UnixStream::pair().unwrap();
    let copying = tokio::spawn(copy_out(ours, b"early ".to_vec(), Output::Fifo(path.clone())));
    guests.write_all(b"late").await.unwrap();
    drop(guests);
    let read = spawn_blocking(move || fs::read(path)).await.unwrap();
    assert_eq!(read.unwrap(), b"early late");
    copying.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_reader_that_leaves_breaks_nothing_and_the_next_one_reads_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = fifo(&dir, "out");
    let (ours, mut guests) = UnixStream::pair().unwrap();
    let copying = tokio::spawn(copy_out(ours, Vec::new(), Output::Fifo(path.clone())));
    guests.write_all(b"one").await.unwrap();
    let first = path.clone();
    let read = spawn_blocking(move || {
        let mut got = [0; 3];
        fs::File::open(first).unwrap().read_exact(&mut got).unwrap();
        got
    });
    assert_eq!(&read.await.unwrap(), b"one");
    guests.write_all(b"two").await.unwrap();
    let (mut second, got) = spawn_blocking(move || {
        let mut file = fs::File::open(path).unwrap();
        let mut got = [0; 3];
        file.read_exact(&mut got).unwrap();
        (file, got)
    })
    .await
    .unwrap();
    assert_eq!(&got, b"two");
    drop(guests);
    copying.await.unwrap().unwrap();
    assert_eq!(second.read(&mut [0]).unwrap(), 0);
}

#[tokio::test]
async fn input_ends_when_both_ends_are_closed() {
    let dir = tempfile::tempdir().unwrap();
    let path = fifo(&dir, "in");
    let (reader, keeper) = open_stdin(&path).unwrap();
    let (ours, mut guests) = UnixStream::pair().unwrap();
    let copying = tokio::spawn(copy_in(reader, ours));
    for text in ["a", "b"] {
        // Each client closes its end.
        let path = path.clone();
        spawn_blocking(move || fs::write(path, text).unwrap()).await.unwrap();
        let mut got = [0; 1];
        guests.read_exact(&mut got).await.unwrap();
        assert_eq!(got, text.as_bytes());
    }
    drop(keeper);
    assert_eq!(guests.read(&mut [0]).await.unwrap(), 0);
    copying.await.unwrap().unwrap();
}

#[tokio::test]
async fn much_output_arrives_whole_at_a_slow_reader() {
    let dir = tempfile::tempdir().unwrap();
    let path = fifo(&dir, "out");
    let (ours, mut guests) = UnixStream::pair().unwrap();
    let copying = tokio::spawn(copy_out(ours, Vec::new(), Output::Fifo(path.clone())));
    let block: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    let sent = block.clone();
    let writing = tokio::spawn(async move {
        for _ in 0..8 {
            guests.write_all(&sent).await.unwrap();
        }
    });
    let read = spawn_blocking(move || {
        let mut file = fs::File::open(path).unwrap();
        let mut whole = Vec::new();
        let mut piece = [0; 1000];
        loop {
            match file.read(&mut piece).unwrap() {
                0 => return whole,
                n => whole.extend_from_slice(&piece[..n]),
            }
        }
    });
    let whole = read.await.unwrap();
    assert!(whole == block.repeat(8), "{} bytes of {}", whole.len(), 8 * block.len());
    writing.await.unwrap();
    copying.await.unwrap().unwrap();
}

#[tokio::test]
async fn files_are_added_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("logs/c1");
    for text in ["one ", "two"] {
        let output = open_output(&format!("file://{}", path.display())).unwrap().unwrap();
        let (ours, mut guests) = UnixStream::pair().unwrap();
        guests.write_all(text.as_bytes()).await.unwrap();
        drop(guests);
        copy_out(ours, Vec::new(), output).await.unwrap();
    }
    assert_eq!(fs::read(&path).unwrap(), b"one two");
}

#[tokio::test]
async fn a_logging_program_gets_both_outputs_and_its_container() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("log");
    let script = "exec 5>&-; { cat <&3; cat <&4; echo $CONTAINER_NAMESPACE/$CONTAINER_ID; } >$0";
    let args = ["-c", script, file.to_str().unwrap()].map(str::to_owned);
    let (logger, mut out, mut err) = Logger::start(Path::new("/bin/sh"), &args, "c1", "ns").await.unwrap();
    err.write_all(b"err ").await.unwrap();
    out.write_all(b"out ").await.unwrap();
    drop((out, err));
    logger.finish().await;
    assert_eq!(fs::read(&file).unwrap(), b"out err ns/c1\n");
    assert!(Logger::start(Path::new("/nonexistent"), &[], "c1", "ns").await.is_err());
}

#[tokio::test]
async fn what_can_not_be_opened_is_told() {
    let stdio = Stdio { stdin: "/nonexistent".into(), ..Stdio::default() };
    assert!(prepare(&stdio, "c1", "ns").await.is_err());
    let stdio = Stdio { stderr: "binary:///bin/true".into(), ..Stdio::default() };
    assert!(prepare(&stdio, "c1", "ns").await.is_err());
    let nothing = prepare(&Stdio::default(), "c1", "ns").await.unwrap();
    assert!(nothing.stdin.is_none() && nothing.stdout.is_none() && nothing.stderr.is_none());
}
