//! One command in one machine, from the command line to the exit code.

use std::{
    env,
    ffi::CString,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::OpenOptionsExt, net::UnixStream},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::{
    memfd::{MFdFlags, memfd_create},
    signal::{SigSet, Signal},
};

use super::{
    cache::Cache,
    emulator, initramfs, kernel,
    machine::{Descriptors, Machine},
    qemu::Qemu,
    relay::{self, Event, Tail},
};
use crate::{
    args::RunArgs,
    wire::{self, Report, Request},
};

const TIMED_OUT: u8 = 124;
/// What the command inherits from outside, beside what `--env` says.
const INHERITED: &[&str] = &["PATH", "HOME", "TERM", "LANG", "LC_ALL", "XDG_CACHE_HOME", "HUSK_CACHE"];
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// `husk-lab run`: gives the exit code.
pub(crate) fn run(args: RunArgs) -> Result<u8> {
    let root = directory(&args.root)?;
    let out = args.out.as_deref().map(results).transpose()?;
    let request = request(&args, &root)?;
    let cache = Cache::find()?;
    let emulator = emulator::ensure(&cache)?;
    let kernel = kernel::ensure(&cache)?;

    let initramfs = in_memory("initramfs", &initramfs::build(&kernel, args.disk_size.is_some())?)?;
    let disk = args.disk_size.map(scratch_disk).transpose()?;
    let (console, qemu_console) = UnixStream::pair()?;
    let (control, qemu_control) = UnixStream::pair()?;
    let (stdout, qemu_stdout) = UnixStream::pair()?;
    let (stderr, qemu_stderr) = UnixStream::pair()?;
    let (pulse, qemu_pulse) = UnixStream::pair()?;

    let machine = Machine {
        deterministic: args.deterministic,
        cpus: args.cpus,
        memory_mib: args.memory,
        kernel: kernel.image(),
        modules: kernel.modules(),
        root,
        out,
        descriptors: Descriptors {
            initramfs: initramfs.as_raw_fd(),
            console: qemu_console.as_raw_fd(),
            ports: [&qemu_control, &qemu_stdout, &qemu_stderr, &qemu_pulse].map(AsRawFd::as_raw_fd),
            disk: disk.as_ref().map(AsRawFd::as_raw_fd),
        },
    };
    let mut inherited: Vec<&dyn AsRawFd> =
        vec![&initramfs, &qemu_console, &qemu_control, &qemu_stdout, &qemu_stderr, &qemu_pulse];
    inherited.extend(disk.as_ref().map(|disk| disk as &dyn AsRawFd));

    // Blocked before there is any other thread, so that only the one that waits for them gets them.
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
        signals.add(signal);
    }
    signals.thread_block()?;
    let (qemu, complaints) = Qemu::start(&emulator, &machine, &inherited)?;
    // The other ends now belong to QEMU alone, so that its end is seen here.
    drop((qemu_console, qemu_control, qemu_stdout, qemu_stderr, qemu_pulse, initramfs, disk));

    let (events, received) = mpsc::channel();
    relay::signals(events.clone(), signals);
    let tail = Tail::default();
    let followers = [tail.follow(complaints, args.console), tail.follow(console, args.console)];
    relay::output(events.clone(), 0, stdout, &io::stdout())?;
    relay::output(events.clone(), 1, stderr, &io::stderr())?;
    relay::report(events, control.try_clone()?);
    if !args.deterministic {
        relay::pulse(pulse);
    }
    let mut feed = control.try_clone()?;
    let stdin = io::stdin().as_fd().try_clone_to_owned()?;
    // A machine that is already gone is reported as such below.
    if wire::send(&mut feed, &request).is_ok() {
        relay::input(feed, stdin);
    }

    let deadline = Instant::now() + Duration::from_secs(args.timeout);
    let ended = wait(&received, deadline);
    drop(qemu);
    match ended {
        Ended::Exited(code) => Ok(code),
        Ended::NotRun(code, reason) => {
            eprintln!("husk-lab: {reason}");
            Ok(code)
        }
        Ended::Signal(signal) => Ok(u8::try_from(128 + signal as i32).unwrap_or(TIMED_OUT)),
        Ended::TimedOut => {
            eprintln!(
                "husk-lab: the command had not ended after {} s (--timeout), so its machine was ended",
                args.timeout
            );
            Ok(TIMED_OUT)
        }
        Ended::OutputFailed(error) => Err(error).context("cannot pass the command's output on"),
        Ended::Gone => {
            for follower in followers {
                // A thread that panicked has nothing to add.
                let _ = follower.join();
            }
            let lines = tail.lines(100);
            let last = if lines.is_empty() {
                " and said nothing".to_owned()
            } else {
                format!("; its last lines:\n{}", lines.join("\n"))
            };
            bail!("the machine ended before the command did{last}")
        }
    }
}

enum Ended {
    Exited(u8),
    NotRun(u8, String),
    Signal(Signal),
    OutputFailed(io::Error),
    TimedOut,
    Gone,
}

/// Waits until the command has ended and all of its output has been passed on.
fn wait(events: &Receiver<Event>, deadline: Instant) -> Ended {
    let mut passed = [0_u64; 2];
    let mut expected = None;
    loop {
        if let Some((code, bytes)) = expected
            && passed == bytes
        {
            return Ended::Exited(code);
        }
        match events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Event::Output(stream, Ok(length))) => passed[stream] += length as u64,
            Ok(Event::Output(_, Err(error))) => return Ended::OutputFailed(error),
            Ok(Event::Signal(signal)) => return Ended::Signal(signal),
            Ok(Event::Report(Ok(Report::Exited { code, stdout_bytes, stderr_bytes }))) => {
                expected = Some((code, [stdout_bytes, stderr_bytes]));
            }
            Ok(Event::Report(Ok(Report::NotRun { code, reason }))) => return Ended::NotRun(code, reason),
            Ok(Event::Report(Err(_))) | Err(RecvTimeoutError::Disconnected) => return Ended::Gone,
            Err(RecvTimeoutError::Timeout) => return Ended::TimedOut,
        }
    }
}

fn request(args: &RunArgs, root: &Path) -> Result<Request> {
    let cwd = match &args.cwd {
        Some(cwd) => cwd.clone(),
        None if root == Path::new("/") => env::current_dir().context("cannot tell the working directory")?,
        None => PathBuf::from("/"),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?;
    Ok(Request {
        command: args.command.iter().map(|argument| argument.as_bytes().to_vec()).collect(),
        env: environment(&args.env, root),
        cwd: cwd.as_os_str().as_bytes().to_vec(),
        now_s: i64::try_from(now.as_secs()).context("the clock is absurd")?,
        out: args.out.is_some(),
        disk: args.disk_size.is_some(),
    })
}

fn environment(given: &[(String, String)], root: &Path) -> Vec<(String, String)> {
    let mut all = vec![("PATH".to_owned(), DEFAULT_PATH.to_owned()), ("HOME".to_owned(), "/root".to_owned())];
    all.push(("HUSK_LAB".to_owned(), "1".to_owned()));
    // Paths of the outside mean nothing in another root.
    if root == Path::new("/") {
        all.extend(INHERITED.iter().filter_map(|name| Some(((*name).to_owned(), env::var(name).ok()?))));
    }
    all.extend_from_slice(given);
    all
}

fn directory(path: &Path) -> Result<PathBuf> {
    let path = path.canonicalize().with_context(|| format!("cannot find {}", path.display()))?;
    ensure!(path.is_dir(), "{} is not a directory", path.display());
    Ok(path)
}

fn results(path: &Path) -> Result<PathBuf> {
    fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))?;
    directory(path)
}

fn in_memory(name: &str, data: &[u8]) -> Result<OwnedFd> {
    let name = CString::new(name)?;
    let descriptor =
        memfd_create(name.as_c_str(), MFdFlags::MFD_CLOEXEC).context("cannot create a file in memory")?;
    File::from(descriptor.try_clone()?).write_all(data)?;
    Ok(descriptor)
}

/// An ext4 disk in a file without a name, which is gone with the last process that has it open.
fn scratch_disk(size_mib: u64) -> Result<OwnedFd> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .open(env::temp_dir())
        .context("cannot create the scratch disk")?;
    file.set_len(size_mib << 20).context("cannot size the scratch disk")?;
    let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    let made = Command::new("mkfs.ext4")
        .args(["-q", "-F", "-E", "lazy_itable_init=1,nodiscard", &path])
        .env("PATH", format!("{}:/usr/sbin:/sbin", env::var("PATH").unwrap_or_default()))
        .stdin(Stdio::null())
        .stdout(io::stderr())
        .status()
        .context("cannot run mkfs.ext4 (Debian's package e2fsprogs)")?;
    ensure!(made.success(), "mkfs.ext4 failed ({made})");
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: Duration = Duration::from_secs(60);

    #[test]
    fn the_end_waits_for_output_still_on_its_way() {
        let (events, received) = mpsc::channel();
        events.send(Event::Output(0, Ok(3))).unwrap();
        events.send(Event::Report(Ok(Report::Exited { code: 9, stdout_bytes: 5, stderr_bytes: 1 }))).unwrap();
        events.send(Event::Output(1, Ok(1))).unwrap();
        events.send(Event::Output(0, Ok(2))).unwrap();
        events.send(Event::Signal(Signal::SIGTERM)).unwrap();
        assert!(matches!(wait(&received, Instant::now() + LATER), Ended::Exited(9)));
        assert!(matches!(received.try_recv(), Ok(Event::Signal(_))), "more was taken than needed");
    }

    #[test]
    fn a_passed_deadline_is_told_from_a_machine_that_is_gone() {
        let (events, received) = mpsc::channel();
        assert!(matches!(wait(&received, Instant::now()), Ended::TimedOut));
        events.send(Event::Report(Err(io::ErrorKind::UnexpectedEof.into()))).unwrap();
        assert!(matches!(wait(&received, Instant::now() + LATER), Ended::Gone));
    }

    #[test]
    fn another_root_gets_no_paths_of_this_one_but_what_is_asked_for() {
        let given = [("A".to_owned(), "b".to_owned())];
        let env = environment(&given, Path::new("/elsewhere"));
        assert!(env.contains(&("PATH".to_owned(), DEFAULT_PATH.to_owned())));
        assert!(env.contains(&given[0]));
        assert_eq!(env.iter().filter(|(name, _)| name == "HOME").count(), 1);
    }
}
