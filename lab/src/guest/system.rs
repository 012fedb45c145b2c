//! What a system's init sets up beside file systems: modules, devices, clock, network, limits.

use std::{
    ffi::CString,
    fs::{self, File},
    mem,
    os::fd::{AsFd, AsRawFd},
    path::Path,
    thread,
};

use anyhow::{Context, Result, ensure};
use nix::{
    errno::Errno,
    kmod::{ModuleInitFlags, finit_module},
    mount::MsFlags,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        inotify::{AddWatchFlags, InitFlags, Inotify},
        resource::{Resource, setrlimit},
        socket::{AddressFamily, SockFlag, SockType, socket},
        stat::{Mode, SFlag, makedev, mknod},
        time::TimeSpec,
    },
    time::{ClockId, clock_settime},
};

use super::{
    mounts::{attach, modules_directory},
    power_off,
};

/// Before there is a root file system: devices and the modules that the initramfs carries, in the order of their names.
pub(super) fn early() -> Result<()> {
    attach("devtmpfs", "/dev", "devtmpfs", MsFlags::MS_NOSUID, "mode=755")?;
    let mut modules: Vec<_> =
        fs::read_dir("/modules")?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    modules.sort();
    for path in modules {
        let file = File::open(&path)?;
        match finit_module(&file, c"", ModuleInitFlags::empty()) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error).with_context(|| format!("cannot load {}", path.display())),
        }
    }
    Ok(())
}

/// Waits until a device node exists.
pub(super) fn wait_for(path: &str) -> Result<()> {
    let watch = Inotify::init(InitFlags::empty())?;
    watch.add_watch("/dev", AddWatchFlags::IN_CREATE)?;
    while !Path::new(path).exists() {
        watch.read_events()?;
    }
    Ok(())
}

pub(super) fn set_clock(now_s: i64) -> Result<()> {
    clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::new(now_s, 0)).context("cannot set the clock")
}

/// When the root and /proc are there.
pub(super) fn late() -> Result<()> {
    nix::unistd::sethostname("lab").context("cannot set the host name")?;
    loopback_up().context("cannot bring the loopback interface up")?;
    static_devices()?;
    delegate_cgroups()?;
    // What systemd gives to services.
    setrlimit(Resource::RLIMIT_NOFILE, 1024, 1 << 20).context("cannot raise the limit of open files")
}

/// Nodes whose opening makes the kernel ask modprobe for the driver (/dev/net/tun, /dev/fuse, /dev/loop-control, ...),
/// as the module tree lists them: "module path kind-and-numbers".
fn static_devices() -> Result<()> {
    let list = format!("{}/modules.devname", modules_directory()?);
    let list = fs::read_to_string(&list).with_context(|| format!("cannot read {list}"))?;
    for (path, kind, major, minor) in list.lines().filter_map(static_device) {
        let path = format!("/dev/{path}");
        if let Some(parent) = Path::new(&path).parent() {
            fs::create_dir_all(parent)?;
        }
        match mknod(path.as_str(), kind, Mode::from_bits_truncate(0o600), makedev(major, minor)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error).with_context(|| format!("cannot create {path}")),
        }
    }
    Ok(())
}

fn static_device(line: &str) -> Option<(&str, SFlag, u64, u64)> {
    let mut words = line.split_whitespace().skip(1);
    let (path, numbers) = (words.next()?, words.next()?);
    let kind = match numbers.get(..1)? {
        "c" => SFlag::S_IFCHR,
        "b" => SFlag::S_IFBLK,
        _ => return None,
    };
    let (major, minor) = numbers.get(1..)?.split_once(':')?;
    Some((path, kind, major.parse().ok()?, minor.parse().ok()?))
}

/// Makes every controller available one level down, as systemd does.
fn delegate_cgroups() -> Result<()> {
    let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers")
        .context("cannot read the cgroup controllers")?;
    let all: Vec<String> = controllers.split_whitespace().map(|name| format!("+{name}")).collect();
    fs::write("/sys/fs/cgroup/cgroup.subtree_control", all.join(" "))
        .context("cannot enable the cgroup controllers")
}

fn loopback_up() -> Result<()> {
    let any = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: ifreq is a plain C struct for which all-zero bytes are a valid value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(CString::new("lo")?.as_bytes()) {
        *to = libc::c_char::try_from(*from)?;
    }
    // IFF_UP is 1 and IFF_RUNNING 64.
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING)?;
    // SAFETY: the descriptor is open, and the kernel reads one ifreq from the pointer.
    let result = unsafe { libc::ioctl(any.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    ensure!(result == 0, std::io::Error::last_os_error());
    Ok(())
}

/// Waits until the host has closed its end: then nobody is left to run anything for.
pub(super) fn wait_for_hang_up(control: &File) -> Result<()> {
    loop {
        let mut polled = [PollFd::new(control.as_fd(), PollFlags::empty())];
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Ends the machine as soon as the host is gone, whatever is running.
pub(super) fn die_with_host(control: &File) -> Result<()> {
    let control = control.try_clone()?;
    thread::spawn(move || {
        let _ = wait_for_hang_up(&control);
        power_off()
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_static_devices_is_understood() {
        assert_eq!(static_device("tun net/tun c10:200"), Some(("net/tun", SFlag::S_IFCHR, 10, 200)));
        assert_eq!(static_device("loop loop-control b7:1"), Some(("loop-control", SFlag::S_IFBLK, 7, 1)));
        for line in
            ["", "# Device nodes to trigger on-demand module loading.", "tun net/tun", "a b p1:2", "a b c1"]
        {
            assert_eq!(static_device(line), None, "{line}");
        }
    }
}
