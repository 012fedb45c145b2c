//! The PID namespace that containers of a pod share when they are asked to. It needs a first process: one that does nothing but
//! take up the orphans.

use std::{fs, io, path::Path};

use husk_protocol::shared;
use nix::mount::{MsFlags, mount};
use oci_spec::runtime::{LinuxNamespaceType, Spec};

use crate::failure::Failure;

/// As `ps` shows it.
const NAME: &std::ffi::CStr = c"pause";

/// Makes the namespace if the spec wants it and it is not there.
pub(super) fn provide(spec: &Spec) -> Result<(), Failure> {
    let path = Path::new(shared::PID_NAMESPACE);
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    let wanted = namespaces.into_iter().flatten().any(|namespace| {
        namespace.typ() == LinuxNamespaceType::Pid && namespace.path().as_deref() == Some(path)
    });
    if !wanted || path.exists() {
        return Ok(());
    }
    make(path).map_err(|e| Failure::io("cannot make the pod's PID namespace", &e))
}

fn make(path: &Path) -> io::Result<()> {
    let flags = libc::c_ulong::from((libc::CLONE_NEWPID | libc::SIGCHLD).cast_unsigned());
    // SAFETY: without a stack of its own this is a fork(2), of a process with one thread; the child returns nowhere.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    if pid == 0 {
        first_process();
    }
    fs::File::create_new(path)?;
    let namespace = format!("/proc/{pid}/ns/pid");
    let bound = mount(Some(namespace.as_str()), path, None::<&str>, MsFlags::MS_BIND, None::<&str>);
    bound.map_err(|error| {
        let _ = fs::remove_file(path);
        error.into()
    })
}

/// Reaps for as long as the namespace is there. It ends with the machine.
fn first_process() -> ! {
    // SAFETY: the name lives on; the other calls take no pointers but to `set`, which is initialised before it is read. Nothing in
    // this process uses the descriptors that are closed.
    unsafe {
        libc::prctl(libc::PR_SET_NAME, NAME.as_ptr());
        libc::close_range(0, libc::c_uint::MAX, 0);
        let mut set = std::mem::zeroed();
        libc::sigfillset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
        loop {
            if libc::waitpid(-1, std::ptr::null_mut(), 0) < 0 {
                // There are none: until one dies.
                libc::sigwaitinfo(&raw const set, std::ptr::null_mut());
            }
        }
    }
}
