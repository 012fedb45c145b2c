//! What locks a process up: namespaces, an empty root, users, capabilities, Landlock and filters of system
//! calls.
//!
//! `husk-vmm` and `husk-fs` have each a jail that is made of these pieces, in this order, and why it is this
//! one:
//!
//! 1. [`inherited`]: the environment is wiped, and descriptors that the process was not passed by number are
//!    closed, before there are any of its own.
//! 2. The process opens what it needs by path. Afterwards no path means anything.
//! 3. [`split`]: a child in new user (without root), mount, network, IPC, UTS and PID namespaces, in its
//!    cgroup, with a cgroup namespace that hides all others. The parent stays outside and waits.
//! 4. [`root`]: the child leaves the host's root.
//! 5. [`rights`]: limits, then its own user id, then capabilities: as root it could undo what came before.
//! 6. [`landlock`], which needs no_new_privs and no rights.
//! 7. [`seccomp`] last: its filters forbid all of the above.
//!
//! Which descriptors, paths, capabilities and system calls a program needs is the program's to say.

use std::{io, path::PathBuf};

pub mod inherited;
pub mod landlock;
mod outside;
pub mod rights;
pub mod root;
pub mod seccomp;
mod split;
#[cfg(feature = "trial")]
pub mod trial;

pub use outside::Outside;
pub use split::{Plan, split};

/// The jail can't be made.
#[derive(Debug, thiserror::Error)]
pub enum JailError {
    /// The host's kernel refused something.
    #[error("cannot {what} for the jail{hint}")]
    Os {
        /// What was tried.
        what: &'static str,
        /// What to do, with punctuation before it; or nothing.
        hint: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The cgroup can't be joined.
    #[error("cannot open the cgroup {path}")]
    Cgroup {
        /// Its directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A filter of system calls can't be built, or the host's kernel refuses it.
    #[error("cannot filter system calls")]
    Filter(#[from] seccompiler::Error),
}

impl JailError {
    /// The error of a step, for `map_err`.
    pub fn os<E: Into<io::Error>>(what: &'static str) -> impl Fn(E) -> Self {
        move |source| Self::Os { what, hint: "", source: source.into() }
    }

    /// The result of a system call that returns a negative number when it fails.
    fn check(result: libc::c_long, what: &'static str) -> Result<(), Self> {
        if result < 0 { Err(Self::os(what)(io::Error::last_os_error())) } else { Ok(()) }
    }
}
