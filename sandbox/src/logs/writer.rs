//! The process that holds a container's streams writes its log.

use std::{collections::BTreeMap, io, path::Path};

use husk_protocol::StdioKind;
use jiff::Timestamp;

use super::{
    Driver, LogConfig, Lost,
    lines::{Lines, Piece},
    loss, record,
    rotate::{Failed, RotatingFile},
};
use crate::{Error, Result};

/// Records are written at this size at the latest, in bytes.
const BATCH: usize = 32 * 1024;
/// The most that `labels`, `env` and `tag` may add to each record, in bytes.
const MOST_ATTRIBUTES: usize = 16 * 1024;

/// Writes the log of one container.
///
/// It holds no output but lines without an end, of 16 KiB per stream at most. Each call writes what it completes at
/// once: one write for all records, or for each 32 KiB of them. It waits for nothing but the disk.
///
/// Output that can't be written, for example to a full disk, is lost: it is counted, the next output is tried again,
/// and when writing works again a record says how much is missing.
#[derive(Debug)]
pub struct Writer {
    stdout: Lines,
    stderr: Lines,
    sink: Sink,
}

#[derive(Debug)]
struct Sink {
    file: RotatingFile,
    attributes: Vec<u8>,
    batch: Batch,
    lost: Lost,
    /// The part of `lost` that the log says nothing of yet.
    unreported: Lost,
}

/// Records that are written together.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    /// Of each record: where it ends in `bytes`, and how many bytes of output it holds.
    records: Vec<(usize, u64)>,
    /// Where the notice ends that output was lost; 0: there is none.
    notice: usize,
}

impl Writer {
    /// Opens the log file at `path` to append to it, or creates it. `None` with the driver `none`.
    /// `attributes` are [`LogConfig::attributes`].
    ///
    /// A disk that is full or broken is no error here: what is written is lost until that has changed.
    ///
    /// # Errors
    /// The file can't be opened, or the attributes are larger than 16 KiB.
    pub fn open(
        path: &Path,
        config: &LogConfig,
        attributes: &BTreeMap<String, String>,
    ) -> Result<Option<Self>> {
        if config.driver() == Driver::None {
            return Ok(None);
        }
        let error = |source| Error::Io { what: "open log file", path: path.to_owned(), source };
        let attributes = record::encode_attributes(attributes);
        if attributes.len() > MOST_ATTRIBUTES {
            let reason = "the log options labels, env and tag add more than 16 KiB to each line: name fewer";
            return Err(error(io::Error::new(io::ErrorKind::InvalidInput, reason)));
        }
        let file = RotatingFile::open(path, config).map_err(error)?;
        let sink = Sink {
            file,
            attributes,
            batch: Batch::default(),
            lost: Lost::default(),
            unreported: Lost::default(),
        };
        Ok(Some(Self { stdout: Lines::default(), stderr: Lines::default(), sink }))
    }

    /// Writes the lines that `bytes`, the next of `stream`, complete. A container's input is not logged.
    pub fn write(&mut self, stream: StdioKind, bytes: &[u8], now: Timestamp) {
        let Self { stdout, stderr, sink } = self;
        let lines = match stream {
            StdioKind::Stdin => return,
            StdioKind::Stdout => stdout,
            StdioKind::Stderr => stderr,
        };
        lines.push(bytes, now, |piece| sink.add(stream, &piece, now));
        sink.flush(now);
        sink.batch = Batch::default();
    }

    /// Writes the lines without an end, and what there is to say of lost output: the container has ended.
    pub fn finish(mut self, now: Timestamp) -> Lost {
        let Self { stdout, stderr, sink } = &mut self;
        stdout.finish(now, |piece| sink.add(StdioKind::Stdout, &piece, now));
        stderr.finish(now, |piece| sink.add(StdioKind::Stderr, &piece, now));
        sink.begin(now);
        sink.flush(now);
        self.sink.lost
    }

    /// What could not be written since the writer was opened.
    #[must_use]
    pub fn lost(&self) -> &Lost {
        &self.sink.lost
    }
}

impl Sink {
    /// Begins a batch, with a notice if output was lost.
    fn begin(&mut self, now: Timestamp) {
        if self.batch.bytes.is_empty() && self.unreported.records > 0 {
            let notice = self.unreported.notice();
            let (bytes, attributes) = (&mut self.batch.bytes, &self.attributes);
            record::encode(bytes, StdioKind::Stderr, notice.as_bytes(), true, attributes, now);
            self.batch.notice = bytes.len();
        }
    }

    fn add(&mut self, stream: StdioKind, piece: &Piece<'_>, now: Timestamp) {
        self.begin(now);
        let Batch { bytes, records, .. } = &mut self.batch;
        record::encode(bytes, stream, piece.text, piece.whole, &self.attributes, piece.time);
        records.push((bytes.len(), piece.text.len() as u64 + u64::from(piece.whole)));
        if bytes.len() >= BATCH || self.file.is_full_with(bytes.len()) {
            self.flush(now);
        }
    }

    /// Writes the batch, and counts what of it is lost.
    fn flush(&mut self, now: Timestamp) {
        if self.batch.bytes.is_empty() {
            return;
        }
        let failed = self.file.append(&self.batch.bytes).err();
        let kept = failed.as_ref().map_or(self.batch.bytes.len(), |failed| failed.kept);
        if self.batch.notice > 0 && kept >= self.batch.notice {
            self.unreported = Lost::default();
        }
        if let Some(Failed { error, .. }) = failed {
            let reason = loss::reason(&error);
            for (_, bytes) in self.batch.records.iter().filter(|(end, _)| *end > kept) {
                self.lost.count(*bytes, now);
                self.unreported.count(*bytes, now);
            }
            self.lost.reason.clone_from(&reason);
            self.unreported.reason = reason;
        }
        self.batch.bytes.clear();
        self.batch.records.clear();
        self.batch.notice = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn open(path: &Path, options: &[&str]) -> Writer {
        let config = LogConfig::parse("", options).unwrap();
        Writer::open(path, &config, &BTreeMap::new()).unwrap().unwrap()
    }

    #[test]
    fn each_line_is_a_record() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.log");
        let mut writer = open(&path, &[]);
        writer.write(StdioKind::Stdout, b"a\nb", NOW);
        writer.write(StdioKind::Stdin, b"never\n", NOW);
        writer.write(StdioKind::Stderr, b"e\n$ ", NOW);
        writer.write(StdioKind::Stdout, b"c\n", NOW);
        let tail = "\"time\":\"1970-01-01T00:00:00Z\"}\n";
        let before_end = format!(
            "{{\"log\":\"a\\n\",\"stream\":\"stdout\",{tail}{{\"log\":\"e\\n\",\"stream\":\"stderr\",{tail}\
             {{\"log\":\"bc\\n\",\"stream\":\"stdout\",{tail}"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), before_end);
        assert_eq!(writer.finish(NOW), Lost::default());
        let expected = format!("{before_end}{{\"log\":\"$ \",\"stream\":\"stderr\",{tail}");
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    }

    #[test]
    fn one_chunk_may_fill_several_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.log");
        let mut writer = open(&path, &["max-size=1", "max-file=4"]);
        writer.write(StdioKind::Stdout, b"1\n2\n3\n4\n5\n", NOW);
        for (name, line) in [("c.log", "5"), ("c.log.1", "4"), ("c.log.2", "3"), ("c.log.3", "2")] {
            let text = fs::read_to_string(dir.path().join(name)).unwrap();
            assert!(text.starts_with(&format!("{{\"log\":\"{line}\\n\"")), "{text}");
        }
        assert!(!dir.path().join("c.log.4").exists());
    }

    #[test]
    fn nothing_is_kept_in_memory_but_lines_without_an_end() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = open(&dir.path().join("c.log"), &[]);
        writer.write(StdioKind::Stdout, &vec![b'\n'; 1 << 20], NOW);
        assert_eq!((writer.sink.batch.bytes.capacity(), writer.sink.batch.records.capacity()), (0, 0));
    }

    #[test]
    fn what_opens_no_file_says_so() {
        let none = LogConfig::parse("none", &[""; 0]).unwrap();
        assert!(Writer::open(Path::new("/nowhere/c.log"), &none, &BTreeMap::new()).unwrap().is_none());
        let error = |attributes| {
            let opened = Writer::open(Path::new("/nowhere/c.log"), &LogConfig::default(), &attributes);
            opened.unwrap_err().to_string()
        };
        assert_eq!(error(BTreeMap::new()), "cannot open log file /nowhere/c.log");
        let large = BTreeMap::from([("a".to_owned(), "b".repeat(MOST_ATTRIBUTES))]);
        assert_eq!(error(large), "cannot open log file /nowhere/c.log");
    }
}
