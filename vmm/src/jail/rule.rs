//! What a filter of system calls is made of.

/// What a thread is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The event loop of control socket, signals and lifeline.
    Main,
    /// A vCPU.
    Vcpu,
    /// Starts device threads.
    Spawner,
    /// A disk's queue.
    Block,
    /// A network interface's queues.
    Net,
    /// The vsock device.
    Vsock,
    /// The source of random numbers.
    Rng,
    /// The balloon.
    Balloon,
    /// A file system's, which only speaks with the server.
    Fs,
}

/// A system call, and what its arguments must be.
pub(super) enum Allowed {
    /// Any arguments.
    Call(libc::c_long),
    /// The argument with this number has one of these values in its lower half.
    Values(libc::c_long, u8, &'static [u32]),
    /// The argument with this number has none of these bits.
    Without(libc::c_long, u8, u64),
}
