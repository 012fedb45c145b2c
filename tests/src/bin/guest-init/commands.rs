//! What a test can ask for.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::{fd::AsRawFd, unix::fs::FileExt},
    thread,
};

use nix::sys::reboot::{RebootMode, reboot};

use crate::{net, vsock};

/// Where the driver takes the places of further devices.
const PLUG: &str = "/sys/module/virtio_mmio/parameters/device";

/// `_IO(0x12, 119)` and `_IO(0x12, 127)` of linux/fs.h.
const BLKDISCARD: libc::Ioctl = 0x1277;
const BLKZEROOUT: libc::Ioctl = 0x127f;

/// Carries out one line, and returns the answer.
pub(crate) fn execute(line: &str) -> io::Result<String> {
    let words: Vec<&str> = line.split(' ').collect();
    match *words.as_slice() {
        ["info"] => info(),
        ["random"] => random(),
        ["cpu", ref field @ ..] => cpu(&field.join(" ")),
        ["clocks"] => Ok(format!(
            "realtime={} monotonic={}",
            clock(libc::CLOCK_REALTIME)?,
            clock(libc::CLOCK_MONOTONIC)?
        )),
        ["fill", mib] => fill(number(mib)?),
        ["disk", id] => disk(id),
        ["read", id, offset, count] => read(id, number(offset)?, number(count)?),
        ["write", id, offset, ref hex @ ..] => write(id, number(offset)?, &hex.join(" ")),
        ["zero", id, offset, count] => change_range(id, BLKZEROOUT, number(offset)?, number(count)?),
        ["discard", id, offset, count] => change_range(id, BLKDISCARD, number(offset)?, number(count)?),
        ["plug", device] => fs::write(PLUG, device).map(|()| "ok".into()),
        ["queues", id] => queues(id),
        ["echo", port] => echo(number(port)?),
        ["dial", port, connections, bytes] => dial(number(port)?, number(connections)?, number(bytes)?),
        ["net", interface] => net::describe(interface),
        ["up", interface, address] => net::bring_up(interface, number(address)?),
        ["tcp", port] => net::serve_tcp(number(port)?),
        ["udp", port] => net::echo_udp(number(port)?),
        ["log", ref text @ ..] => {
            crate::log(&text.join(" "));
            Ok("ok".into())
        }
        ["reset"] => reset(),
        ["panic"] => std::process::exit(1),
        _ => Err(io::Error::other(format!("unknown command {line:?}"))),
    }
}

fn number<T: std::str::FromStr>(word: &str) -> io::Result<T> {
    word.parse().map_err(|_| io::Error::other(format!("{word:?} is no such number")))
}

/// Resets the machine, which is its clean end.
pub(crate) fn reset() -> ! {
    let error = reboot(RebootMode::RB_AUTOBOOT).unwrap_err();
    crate::log(&error);
    std::process::exit(1)
}

fn info() -> io::Result<String> {
    let cpus =
        fs::read_to_string("/proc/cpuinfo")?.lines().filter(|line| line.starts_with("processor")).count();
    let memory = fs::read_to_string("/proc/meminfo")?;
    let memory = memory.split_whitespace().nth(1).unwrap_or_default();
    Ok(format!("cpus={cpus} memory_kib={memory}"))
}

/// A field of the first processor in `/proc/cpuinfo`.
fn cpu(field: &str) -> io::Result<String> {
    let text = fs::read_to_string("/proc/cpuinfo")?;
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    let found = fields.find(|(name, _)| name.trim() == field);
    found.map(|(_, value)| value.trim().to_owned()).ok_or_else(|| io::Error::other(format!("no {field}")))
}

/// Nanoseconds of a clock.
fn clock(clock: libc::clockid_t) -> io::Result<i64> {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec that lives on.
    if unsafe { libc::clock_gettime(clock, &raw mut now) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(now.tv_sec * 1_000_000_000 + now.tv_nsec)
}

/// Writes to so much memory, and frees it.
fn fill(mib: usize) -> io::Result<String> {
    let mut memory = Vec::new();
    memory.try_reserve_exact(mib << 20).map_err(io::Error::other)?;
    memory.resize(mib << 20, 0xa5_u8);
    let sum: usize = std::hint::black_box(&memory).iter().step_by(4096).map(|byte| usize::from(*byte)).sum();
    if sum == (mib << 8) * 0xa5 { Ok("ok".into()) } else { Err(io::Error::other("memory has changed")) }
}

fn random() -> io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/hwrng")?.read_exact(&mut bytes)?;
    Ok(hex(&bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The name of the disk with this serial number.
fn disk_name(id: &str) -> io::Result<String> {
    for entry in fs::read_dir("/sys/block")?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if fs::read_to_string(entry.path().join("serial")).is_ok_and(|serial| serial == id) {
            return Ok(name);
        }
    }
    Err(io::Error::other(format!("no disk {id}")))
}

/// Length in bytes, and whether it is read-only.
fn disk(id: &str) -> io::Result<String> {
    let name = disk_name(id)?;
    let read = |file: &str| fs::read_to_string(format!("/sys/block/{name}/{file}"));
    let sectors: u64 = number(read("size")?.trim())?;
    Ok(format!("bytes={} ro={}", sectors * 512, read("ro")?.trim()))
}

fn read(id: &str, offset: u64, count: usize) -> io::Result<String> {
    let mut bytes = vec![0; count];
    File::open(format!("/dev/{}", disk_name(id)?))?.read_exact_at(&mut bytes, offset)?;
    Ok(String::from_utf8_lossy(&bytes).escape_default().to_string())
}

/// Writes text, and has it on the disk when this returns.
fn write(id: &str, offset: u64, text: &str) -> io::Result<String> {
    let disk = OpenOptions::new().write(true).open(format!("/dev/{}", disk_name(id)?))?;
    disk.write_all_at(text.as_bytes(), offset)?;
    disk.sync_all()?;
    Ok("ok".into())
}

/// Discards bytes of a disk, or makes them zero, by its own command for that.
fn change_range(id: &str, request: libc::Ioctl, offset: u64, count: u64) -> io::Result<String> {
    let disk = OpenOptions::new().read(true).write(true).open(format!("/dev/{}", disk_name(id)?))?;
    let range = [offset, count];
    // SAFETY: both requests read two numbers from the pointer, and the array lives on.
    if unsafe { libc::ioctl(disk.as_raw_fd(), request, range.as_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok("ok".into())
}

/// How many queues a disk has.
fn queues(id: &str) -> io::Result<String> {
    Ok(fs::read_dir(format!("/sys/block/{}/mq", disk_name(id)?))?.count().to_string())
}

/// Sends back whatever comes, on any number of connections, and ends each when the host does.
fn echo(port: u32) -> io::Result<String> {
    let listener = vsock::listener(port)?;
    thread::spawn(move || {
        while let Ok(mut stream) = vsock::accept_next(&listener) {
            thread::spawn(move || -> io::Result<()> {
                let mut back = stream.try_clone()?;
                io::copy(&mut stream, &mut back)?;
                vsock::end_writing(&back)
            });
        }
    });
    Ok("ok".into())
}

/// Makes so many connections at once. Sends so many bytes on each, ends its side, and expects the same bytes back.
fn dial(port: u32, connections: usize, bytes: usize) -> io::Result<String> {
    let mut streams = Vec::new();
    for _ in 0..connections {
        streams.push(vsock::dial(port)?);
    }
    let threads: Vec<_> = streams
        .into_iter()
        .enumerate()
        .map(|(number, stream)| thread::spawn(move || exchange(stream, &pattern(number, bytes))))
        .collect();
    for thread in threads {
        thread.join().map_err(|_| io::Error::other("a thread panicked"))??;
    }
    Ok("ok".into())
}

fn exchange(mut stream: File, sent: &[u8]) -> io::Result<()> {
    let mut reader = stream.try_clone()?;
    let receiving = thread::spawn(move || {
        let mut received = Vec::new();
        reader.read_to_end(&mut received).map(|_| received)
    });
    stream.write_all(sent)?;
    vsock::end_writing(&stream)?;
    let received = receiving.join().map_err(|_| io::Error::other("a thread panicked"))??;
    if received == sent {
        Ok(())
    } else {
        Err(io::Error::other(format!("sent {} bytes and got {} others back", sent.len(), received.len())))
    }
}

/// Bytes that differ from connection to connection and from place to place.
fn pattern(connection: usize, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at.wrapping_mul(31) ^ (at >> 9) ^ connection).to_le_bytes()[0]).collect()
}
