//! Requests of the FUSE protocol (linux/fuse.h), version 7.38.

use crate::driver::Guest;

pub(crate) const ROOT: u64 = 1;
const LOOKUP: u32 = 1;
const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const SETXATTR: u32 = 21;
const GETXATTR: u32 = 22;
const INIT: u32 = 26;
const CREATE: u32 = 35;
/// FUSE_SUBMOUNTS.
const SUBMOUNTS: u32 = 1 << 27;
/// FUSE_ATTR_SUBMOUNT.
const IS_SUBMOUNT: u32 = 1;
const O_RDWR: u32 = 2;
const ENTRY_LEN: usize = 128;
/// Of an answer.
const HEADER_LEN: u32 = 16;

/// What a lookup finds.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) node: u64,
    /// How long its name may be kept, in seconds.
    pub(crate) valid_s: u64,
    pub(crate) size: u64,
    pub(crate) is_submount: bool,
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().unwrap()
}

impl Entry {
    fn parse(bytes: &[u8]) -> Self {
        let long = |at| u64::from_le_bytes(number(bytes, at));
        let flags = u32::from_le_bytes(number(bytes, 124));
        Self { node: long(0), valid_s: long(16), size: long(48), is_submount: flags & IS_SUBMOUNT != 0 }
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn with_name(mut body: Vec<u8>, name: &str) -> Vec<u8> {
    body.extend(name.bytes().chain([0]));
    body
}

impl Guest {
    /// The answer to a request without its header, or its error number.
    fn request(&mut self, opcode: u32, node: u64, body: &[u8]) -> Result<Vec<u8>, i32> {
        self.request_up_to(4096, opcode, node, body)
    }

    /// The same, for an answer of at most so many bytes.
    fn request_up_to(&mut self, room: u32, opcode: u32, node: u64, body: &[u8]) -> Result<Vec<u8>, i32> {
        self.unique += 2;
        let unique = self.unique;
        let len = u32::try_from(40 + body.len()).unwrap();
        let mut request = words(&[len, opcode]);
        request.extend(unique.to_le_bytes());
        request.extend(node.to_le_bytes());
        request.extend(words(&[self.uid, self.uid, 1, 0]));
        request.extend(body);
        let answer = self.ask(&request, HEADER_LEN + room);
        assert_eq!(u32::from_le_bytes(number(&answer, 0)) as usize, answer.len());
        assert_eq!(u64::from_le_bytes(number(&answer, 8)), unique);
        match i32::from_le_bytes(number(&answer, 4)) {
            0 => Ok(answer[16..].to_vec()),
            error => Err(-error),
        }
    }

    pub(crate) fn init(&mut self) {
        let mut body = words(&[7, 38, 0x2_0000, SUBMOUNTS]);
        body.resize(64, 0);
        let answer = self.request(INIT, 0, &body).unwrap();
        assert_eq!(u32::from_le_bytes(number(&answer, 0)), 7);
    }

    pub(crate) fn lookup(&mut self, parent: u64, name: &str) -> Result<Entry, i32> {
        self.request(LOOKUP, parent, &with_name(Vec::new(), name)).map(|answer| Entry::parse(&answer))
    }

    /// Opens a file for reading.
    pub(crate) fn open(&mut self, node: u64) -> Result<u64, i32> {
        let answer = self.request(OPEN, node, &words(&[0, 0]))?;
        Ok(u64::from_le_bytes(number(&answer, 0)))
    }

    pub(crate) fn read(&mut self, node: u64, handle: u64, offset: u64, len: u32) -> Result<Vec<u8>, i32> {
        let mut body = handle.to_le_bytes().to_vec();
        body.extend(offset.to_le_bytes());
        body.extend(words(&[len, 0, 0, 0, 0, 0]));
        self.request_up_to(len, READ, node, &body)
    }

    pub(crate) fn create(&mut self, parent: u64, name: &str, mode: u32) -> Result<(Entry, u64), i32> {
        let body = with_name(words(&[O_RDWR, 0o100_000 | mode, 0, 0]), name);
        let answer = self.request(CREATE, parent, &body)?;
        Ok((Entry::parse(&answer), u64::from_le_bytes(number(&answer, ENTRY_LEN))))
    }

    pub(crate) fn write(&mut self, node: u64, handle: u64, data: &[u8]) -> Result<(), i32> {
        let mut body = handle.to_le_bytes().to_vec();
        body.extend(0_u64.to_le_bytes());
        body.extend(words(&[u32::try_from(data.len()).unwrap(), 0, 0, 0, 0, 0]));
        body.extend(data);
        self.request(WRITE, node, &body).map(drop)
    }

    /// Makes a request of every kind that virtio-fs knows, or nearly. All must succeed.
    pub(crate) fn all_requests(&mut self) {
        let long =
            |numbers: &[u64]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>();
        let (file, handle) = self.create(ROOT, "file", 0o644).unwrap();
        let (copy, copy_handle) = self.create(ROOT, "copy", 0o644).unwrap();
        self.write(file.node, handle, b"content").unwrap();
        let write_and_drop_setuid =
            [long(&[handle, 0]), words(&[7, 4, 0, 0, 0, 0]), b"content".to_vec()].concat();
        let copy_range = long(&[handle, 0, copy.node, copy_handle, 0, 7, 0]);
        // Mode, user, group, size and modification time.
        let mut attributes = words(&[0b10_1111, 0]);
        attributes.extend(long(&[0, 8192, 0, 0, 1000, 0]));
        attributes.extend(words(&[0, 0, 0, 0o100_604, 0, 7, 8, 0]));
        let requests: Vec<(&str, u32, u64, Vec<u8>)> = vec![
            ("WRITE", WRITE, file.node, write_and_drop_setuid),
            ("COPY_FILE_RANGE", 47, file.node, copy_range),
            ("GETATTR", 3, file.node, words(&[0, 0, 0, 0])),
            ("FALLOCATE", 43, file.node, [long(&[handle, 0, 100]), words(&[0, 0])].concat()),
            ("SETATTR", 4, file.node, attributes),
            ("ACCESS", 34, file.node, words(&[4, 0])),
            ("LSEEK", 46, file.node, [long(&[handle, 0]), words(&[3, 0])].concat()),
            ("FSYNC", 20, file.node, [long(&[handle]), words(&[0, 0])].concat()),
            ("FSYNC, data", 20, file.node, [long(&[handle]), words(&[1, 0])].concat()),
            ("FLUSH", 25, file.node, long(&[handle, 0, 0])),
            ("SETXATTR", SETXATTR, file.node, [with_name(words(&[1, 0]), "user.a"), vec![1]].concat()),
            ("LISTXATTR", 23, file.node, words(&[100, 0])),
            ("REMOVEXATTR", 24, file.node, with_name(Vec::new(), "user.a")),
            ("LINK", 13, ROOT, with_name(long(&[file.node]), "hard")),
            ("MKDIR", 9, ROOT, with_name(words(&[0o755, 0]), "dir")),
            ("SYMLINK", 6, ROOT, with_name(with_name(Vec::new(), "link"), "target")),
            ("MKNOD, pipe", 8, ROOT, with_name(words(&[0o10_644, 0, 0, 0]), "pipe")),
            ("MKNOD, whiteout", 8, ROOT, with_name(words(&[0o20_000, 0, 0, 0]), "whiteout")),
            ("RENAME", 12, ROOT, with_name(with_name(long(&[ROOT]), "link"), "moved")),
            ("RENAME2", 45, ROOT, with_name(with_name(long(&[ROOT, 0]), "moved"), "link")),
            ("STATFS", 17, ROOT, Vec::new()),
            ("SYNCFS", 50, ROOT, long(&[0])),
            ("UNLINK", 10, ROOT, with_name(Vec::new(), "link")),
            ("RMDIR", 11, ROOT, with_name(Vec::new(), "dir")),
            ("RELEASE", 18, file.node, [long(&[handle]), words(&[0, 0]), long(&[0])].concat()),
        ];
        for (name, opcode, node, body) in requests {
            if name == "STATFS" {
                self.list(ROOT);
            }
            if name == "UNLINK" {
                let link = self.lookup(ROOT, "link").unwrap();
                assert_eq!(self.request(5, link.node, &[]).unwrap(), b"target", "READLINK");
            }
            let answer = self.request(opcode, node, &body);
            assert!(answer.is_ok(), "{name}: {answer:?}");
        }
    }

    /// Opens, reads and closes a directory.
    fn list(&mut self, node: u64) {
        let answer = self.request(27, node, &words(&[0, 0])).unwrap();
        let handle = number::<8>(&answer, 0);
        let body = |len| [&handle[..], &[0; 8], &words(&[len, 0, 0, 0, 0, 0])].concat();
        for opcode in [28, 44] {
            assert!(!self.request_up_to(4096, opcode, node, &body(4096)).unwrap().is_empty());
        }
        let release = [&handle[..], &[0; 16]].concat();
        self.request(29, node, &release).unwrap();
    }

    pub(crate) fn set_attribute(&mut self, node: u64, name: &str, value: &[u8]) -> Result<(), i32> {
        let mut body = with_name(words(&[u32::try_from(value.len()).unwrap(), 0]), name);
        body.extend(value);
        self.request(SETXATTR, node, &body).map(drop)
    }

    pub(crate) fn attribute(&mut self, node: u64, name: &str) -> Result<Vec<u8>, i32> {
        self.request(GETXATTR, node, &with_name(words(&[100, 0]), name))
    }
}
