//! The serial port: what the guest writes goes to a file of bounded size, which keeps the newest output.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::Path,
};

use vm_superio::{Serial, Trigger, serial::NoEvents};
use vmm_sys_util::eventfd::EventFd;

/// Most bytes of the file. When it is full, the older half goes.
const MAX_LEN: usize = 256 << 10;
/// Most bytes held back until a line is complete.
const MAX_LINE: usize = 256;

/// A serial port with its output file.
#[derive(Debug)]
pub struct Console {
    serial: Serial<Irq, NoEvents, Output>,
}

impl Console {
    /// A serial port that interrupts by `irq` and writes to `output`.
    pub fn new(output: Output, irq: EventFd) -> Self {
        Self { serial: Serial::new(Irq(irq), output) }
    }

    /// The guest reads a register.
    pub fn read(&mut self, register: u16) -> u8 {
        u8::try_from(register).map_or(0, |register| self.serial.read(register))
    }

    /// The guest writes a register. Output that the host can't keep is lost.
    pub fn write(&mut self, register: u16, value: u8) {
        if let Ok(register) = u8::try_from(register) {
            // A full disk must not stop the guest.
            let _ = self.serial.write(register, value);
        }
    }

    /// Writes an incomplete last line, too.
    pub fn flush(&mut self) {
        // As above.
        let _ = self.serial.writer_mut().write_out();
    }
}

#[derive(Debug)]
struct Irq(EventFd);

impl Trigger for Irq {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// A file that does not grow beyond a limit.
#[derive(Debug)]
pub struct Output {
    file: File,
    len: usize,
    line: Vec<u8>,
}

impl Output {
    /// A new file, or an old one emptied.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        Ok(Self { file, len: 0, line: Vec::with_capacity(MAX_LINE) })
    }

    fn write_out(&mut self) -> io::Result<()> {
        if self.len + self.line.len() > MAX_LEN {
            self.drop_older_half()?;
        }
        let line = std::mem::take(&mut self.line);
        let result = self.file.write_all_at(&line, self.len as u64);
        if result.is_ok() {
            self.len += line.len();
        }
        self.line = line;
        self.line.clear();
        result
    }

    fn drop_older_half(&mut self) -> io::Result<()> {
        let mut newer = vec![0; MAX_LEN / 2];
        self.file.read_exact_at(&mut newer, (self.len - MAX_LEN / 2) as u64)?;
        self.file.write_all_at(&newer, 0)?;
        self.file.set_len(newer.len() as u64)?;
        self.len = newer.len();
        Ok(())
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            self.line.push(*byte);
            if *byte == b'\n' || self.line.len() >= MAX_LINE {
                self.write_out()?;
            }
        }
        Ok(bytes.len())
    }

    /// Does nothing: the serial port asks for it after each byte.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn console() -> (tempfile::TempDir, Console, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console");
        let console = Console::new(Output::create(&path).unwrap(), EventFd::new(0).unwrap());
        (dir, console, path)
    }

    #[test]
    fn lines_are_written_when_complete() {
        let (_dir, mut console, path) = console();
        b"one\ntwo".iter().for_each(|byte| console.write(0, *byte));
        assert_eq!(std::fs::read(&path).unwrap(), b"one\n");
        console.flush();
        assert_eq!(std::fs::read(&path).unwrap(), b"one\ntwo");
    }

    #[test]
    fn the_file_is_bounded_and_keeps_the_newest() {
        let (_dir, mut console, path) = console();
        let mut last = String::new();
        for number in 0..100_000 {
            last = format!("line {number}\n");
            last.bytes().for_each(|byte| console.write(0, byte));
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.len() <= MAX_LEN);
        assert!(text.len() >= MAX_LEN / 2);
        assert!(text.ends_with(&last));
        assert!(text.contains("line 99998\nline 99999\n"));
    }

    #[test]
    fn the_transmitter_is_always_ready() {
        let (_dir, mut console, _) = console();
        assert_eq!(console.read(5) & 0x60, 0x60);
    }
}
