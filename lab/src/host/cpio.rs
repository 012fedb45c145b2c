//! Writes cpio archives in the "newc" format, which the kernel unpacks as its initramfs
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

/// An archive being written. Parents must be added before what they hold.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_600;

impl Archive {
    /// Adds a directory, mode 755.
    pub(crate) fn directory(&mut self, name: &str) {
        self.entry(name, DIRECTORY, (0, 0), &[]);
    }

    /// Adds a regular file, mode 755.
    pub(crate) fn file(&mut self, name: &str, data: &[u8]) {
        self.entry(name, FILE, (0, 0), data);
    }

    /// Adds a character device, mode 600.
    pub(crate) fn character_device(&mut self, name: &str, device: (u32, u32)) {
        self.entry(name, CHARACTER_DEVICE, device, &[]);
    }

    /// Ends the archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, (major, minor): (u32, u32), data: &[u8]) {
        self.entries += 1;
        // magic inode mode uid gid links mtime size dev(2) rdev(2) name-length checksum
        let header = format!(
            "070701{:08X}{mode:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{major:08X}{minor:08X}{:08X}{:08X}",
            self.entries,
            0,
            0,
            1,
            0,
            data.len(),
            0,
            0,
            name.len() + 1,
            0
        );
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        os::unix::fs::PermissionsExt,
        process::{Command, Stdio},
    };

    use super::*;

    /// What Debian's own reader makes of an archive.
    #[test]
    fn cpio_reads_what_was_written() {
        let mut archive = Archive::default();
        archive.directory("a");
        archive.file("a/odd", b"12345");
        archive.file("a/empty", b"");
        let archive = archive.finish();
        assert_eq!(archive.len() % 4, 0);

        let dir = tempfile::tempdir().unwrap();
        let mut cpio = Command::new("cpio")
            .args(["--extract", "--quiet"])
            .current_dir(dir.path())
            .stdin(Stdio::piped())
            .spawn()
            .expect("cpio is installed by `make setup`");
        cpio.stdin.take().unwrap().write_all(&archive).unwrap();
        assert!(cpio.wait().unwrap().success());
        assert_eq!(std::fs::read(dir.path().join("a/odd")).unwrap(), b"12345");
        assert_eq!(std::fs::read(dir.path().join("a/empty")).unwrap(), b"");
        let mode = std::fs::metadata(dir.path().join("a/odd")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755);
    }

    #[test]
    fn a_device_carries_its_numbers() {
        let mut archive = Archive::default();
        archive.character_device("console", (5, 1));
        let text = String::from_utf8(archive.finish()).unwrap();
        assert_eq!(&text[14..22], "00002180");
        assert_eq!(&text[78..94], "0000000500000001");
    }
}
