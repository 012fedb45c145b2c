//! Builds tars byte by byte, so that they can be wrong, too.

/// An archive under construction.
#[derive(Clone, Default)]
pub(super) struct Archive(Vec<u8>);

/// One entry under construction.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) header: [u8; 512],
    data: Vec<u8>,
    records: Vec<u8>,
}

impl Archive {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn add(mut self, item: Item) -> Self {
        if !item.records.is_empty() {
            let pax = Item::new("PaxHeaders/x", b'x').data(&item.records);
            self.push(&pax.header, &pax.data);
        }
        self.push(&item.header, &item.data);
        self
    }

    pub(super) fn file(self, name: &str, data: &[u8]) -> Self {
        self.add(Item::file(name, data))
    }

    pub(super) fn dir(self, name: &str) -> Self {
        self.add(Item::dir(name))
    }

    pub(super) fn symlink(self, name: &str, target: &str) -> Self {
        self.add(Item::new(name, b'2').link(target))
    }

    pub(super) fn hard_link(self, name: &str, target: &str) -> Self {
        self.add(Item::new(name, b'1').link(target))
    }

    /// A GNU long name or long link, for the next entry.
    pub(super) fn gnu_long(self, flag: u8, name: &[u8]) -> Self {
        self.add(Item::new("././@LongLink", flag).gnu().data(&[name, b"\0"].concat()))
    }

    pub(super) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// The archive with its end mark.
    pub(super) fn finish(&self) -> Vec<u8> {
        [&self.0[..], &[0; 1024]].concat()
    }

    /// The archive without one.
    pub(super) fn unfinished(&self) -> &[u8] {
        &self.0
    }

    fn push(&mut self, header: &[u8; 512], data: &[u8]) {
        let mut header = *header;
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&header);
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }
}

impl Item {
    /// A ustar entry, mode 0644, of user 0, made at second 1000.
    pub(super) fn new(name: &str, flag: u8) -> Self {
        let mut header = [0; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[156] = flag;
        header[257..265].copy_from_slice(b"ustar\x0000");
        let item = Self { header, data: Vec::new(), records: Vec::new() };
        item.mode(0o644).owner(0, 0).octal(124, 12, 0).mtime(1000)
    }

    pub(super) fn file(name: &str, data: &[u8]) -> Self {
        Self::new(name, b'0').data(data)
    }

    pub(super) fn dir(name: &str) -> Self {
        Self::new(name, b'5').mode(0o755)
    }

    pub(super) fn data(mut self, data: &[u8]) -> Self {
        self.data = data.to_vec();
        self.octal(124, 12, data.len() as u64)
    }

    pub(super) fn gnu(mut self) -> Self {
        self.header[257..265].copy_from_slice(b"ustar  \0");
        self
    }

    pub(super) fn link(mut self, target: &str) -> Self {
        self.header[157..157 + target.len()].copy_from_slice(target.as_bytes());
        self
    }

    pub(super) fn mode(self, mode: u32) -> Self {
        self.octal(100, 8, mode.into())
    }

    pub(super) fn owner(self, uid: u32, gid: u32) -> Self {
        self.octal(108, 8, uid.into()).octal(116, 8, gid.into())
    }

    pub(super) fn mtime(self, mtime: u64) -> Self {
        self.octal(136, 12, mtime)
    }

    pub(super) fn device(self, major: u64, minor: u64) -> Self {
        self.octal(329, 8, major).octal(337, 8, minor)
    }

    /// A numeric field of that offset and size.
    pub(super) fn octal(mut self, at: usize, size: usize, value: u64) -> Self {
        let digits = format!("{value:0width$o}\0", width = size - 1);
        self.header[at..at + size].copy_from_slice(digits.as_bytes());
        self
    }

    /// The same in base 256.
    pub(super) fn base256(mut self, at: usize, size: usize, value: i64) -> Self {
        let sign = if value < 0 { 0xff } else { 0 };
        self.header[at..at + size].fill(sign);
        let bytes = value.to_be_bytes();
        let keep = size.min(8);
        self.header[at + size - keep..at + size].copy_from_slice(&bytes[8 - keep..]);
        self.header[at] |= 0x80;
        self
    }

    pub(super) fn pax(mut self, key: &str, value: &[u8]) -> Self {
        let body = key.len() + value.len() + 3;
        let mut length = body + 1;
        while length.to_string().len() + body != length {
            length += 1;
        }
        self.records.extend_from_slice(format!("{length} {key}=").as_bytes());
        self.records.extend_from_slice(value);
        self.records.push(b'\n');
        self
    }

    pub(super) fn xattr(self, name: &str, value: &[u8]) -> Self {
        self.pax(&format!("SCHILY.xattr.{name}"), value)
    }
}
