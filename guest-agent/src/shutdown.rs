//! The VM's clean end, when the host's connection has ended.

use std::fs;

use nix::{
    mount::{MntFlags, umount2},
    sys::{
        reboot::{RebootMode, reboot},
        signal::{Signal, kill},
    },
    unistd::{Pid, sync},
};

use crate::{kmsg, paths};

/// Kills every process, unmounts every disk, and resets the machine, which the VMM takes for a clean power-off.
pub(crate) fn power_off() -> ! {
    // Everything but PID 1. Fails when there is nothing else.
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    // Until no child is left; processes that are not children become so.
    // SAFETY: a null status pointer is allowed.
    while unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) } > 0 {}
    unmount();
    let Err(error) = reboot(RebootMode::RB_AUTOBOOT);
    kmsg::fatal(&format!("cannot reset the machine: {error}"))
}

fn unmount() {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut clean = true;
    for target in below(paths::RUN, &mounts).iter().rev() {
        clean &= umount2(target.as_str(), MntFlags::empty()).is_ok();
    }
    if !clean {
        sync();
    }
}

/// The mount points below `top`, in the order of mounting.
fn below(top: &str, mounts: &str) -> Vec<String> {
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    // Nothing that the agent mounts has a name that the kernel would escape.
    points
        .filter(|point| point.strip_prefix(top).is_some_and(|rest| rest.starts_with('/')))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_its_own_mounts() {
        let mounts = "proc /proc proc rw 0 0\n/dev/vda /run/husk/d/base ext4 ro 0 0\n\
            overlay /run/husk/c/a/rootfs overlay rw 0 0\ntmpfs /run/huskies tmpfs rw 0 0\n\
            tmpfs /run/husk tmpfs rw 0 0\nbroken\n";
        assert_eq!(below("/run/husk", mounts), ["/run/husk/d/base", "/run/husk/c/a/rootfs"]);
    }
}
