//! Which system calls each kind of thread makes, once it is at work.

use husk_jail::seccomp::{
    Allowed::{self, Call, Values},
    number,
};

/// What a thread is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Reads the guest's kernel and initramfs into its memory.
    Loader,
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

/// `_IO(KVMIO, 0x80)`.
const KVM_RUN: u32 = 0xae80;
/// `_IO(KVMIO, 0xad)`.
const KVM_KVMCLOCK_CTRL: u32 = 0xaead;
/// `_IOW(KVMIO, 0x76, struct kvm_irqfd)` and `_IOW(KVMIO, 0x79, struct kvm_ioeventfd)`.
const KVM_IRQFD: u32 = 0x4020_ae76;
const KVM_IOEVENTFD: u32 = 0x4040_ae79;
/// What a network interface's driver has agreed to is told to its tap (linux/if_tun.h).
const TUNSETOFFLOAD: u32 = 0x4004_54d0;
const TUNSETQUEUE: u32 = 0x4004_54d9;
/// What a tap is that is to be attached, and the length of its frames' headers.
const TUNGETIFF: u32 = 0x8004_54d2;
const TUNSETVNETHDRSZ: u32 = 0x4004_54d8;
/// Whether calls on a connection wait (asm-generic/ioctls.h).
const FIONBIO: u32 = 0x5421;

/// Reads files that are open, at the places where their own headers say.
const LOADER: &[Allowed] =
    &[Call(libc::SYS_statx), Call(libc::SYS_fstat), Call(libc::SYS_lseek), Call(libc::SYS_pread64)];

/// Wakes vCPUs, serves the control socket, and takes the VM apart.
const MAIN: &[Allowed] = &[
    // A disk to be attached: what is it, and how may it be used?
    Values(libc::SYS_fcntl, 1, &[number(libc::F_GETFL), number(libc::F_SETFD)]),
    Call(libc::SYS_fstat),
    Call(libc::SYS_statx),
    Call(libc::SYS_lseek),
    Call(libc::SYS_accept4),
    Call(libc::SYS_recvfrom),
    Call(libc::SYS_recvmsg),
    Call(libc::SYS_sendto),
    // A file system's server that does not answer is hung up on.
    Call(libc::SYS_shutdown),
    Call(libc::SYS_getpid),
    Call(libc::SYS_tgkill),
    Call(libc::SYS_pwrite64),
    Call(libc::SYS_pread64),
    Call(libc::SYS_ftruncate),
    // An interface to be attached: its tap, and what tells of a changed rate limit.
    Values(libc::SYS_fcntl, 1, &[number(libc::F_SETFL)]),
    Values(libc::SYS_eventfd2, 1, &[number(libc::EFD_NONBLOCK)]),
    Values(libc::SYS_ioctl, 1, &[FIONBIO, TUNGETIFF, TUNSETVNETHDRSZ, TUNSETOFFLOAD]),
    // Either is then made known to KVM.
    Values(libc::SYS_ioctl, 1, &[KVM_IRQFD, KVM_IOEVENTFD]),
];

/// Runs the guest, activates and resets devices, and writes the console.
const VCPU: &[Allowed] = &[
    Values(libc::SYS_ioctl, 1, &[KVM_RUN, KVM_KVMCLOCK_CTRL, TUNSETOFFLOAD, TUNSETQUEUE]),
    Call(libc::SYS_epoll_create1),
    Call(libc::SYS_eventfd2),
    Call(libc::SYS_timerfd_create),
    Call(libc::SYS_pwrite64),
    Call(libc::SYS_pread64),
    Call(libc::SYS_ftruncate),
    // A file system's server that does not answer is hung up on.
    Call(libc::SYS_shutdown),
];

/// Starts threads and binds them.
const SPAWNER: &[Allowed] = &[
    Call(libc::SYS_clone3),
    Call(libc::SYS_set_robust_list),
    Call(libc::SYS_rseq),
    Call(libc::SYS_sched_getaffinity),
    Values(libc::SYS_prctl, 0, &[number(libc::PR_SET_NAME), number(libc::PR_SET_NO_NEW_PRIVS)]),
    Call(libc::SYS_seccomp),
];

/// Letting the vCPU go first, or not.
const TAKE_TURNS: Allowed =
    Values(libc::SYS_sched_setscheduler, 1, &[number(libc::SCHED_OTHER), number(libc::SCHED_BATCH)]);

/// Moves data by calls of its own, or by a ring that was made and restricted before.
const BLOCK: &[Allowed] = &[
    Call(libc::SYS_preadv),
    Call(libc::SYS_preadv2),
    Call(libc::SYS_pwritev),
    Call(libc::SYS_pwritev2),
    Call(libc::SYS_pwrite64),
    Call(libc::SYS_fdatasync),
    Call(libc::SYS_fallocate),
    Call(libc::SYS_io_uring_enter),
    Call(libc::SYS_timerfd_settime),
    TAKE_TURNS,
];

const NET: &[Allowed] = &[
    Call(libc::SYS_readv),
    Call(libc::SYS_writev),
    Values(libc::SYS_ioctl, 1, &[TUNSETQUEUE]),
    Call(libc::SYS_timerfd_settime),
    TAKE_TURNS,
];

/// Streams to unix sockets in the visible directory, and nothing else of the network.
const VSOCK: &[Allowed] = &[
    Values(libc::SYS_socket, 0, &[number(libc::AF_UNIX)]),
    Call(libc::SYS_connect),
    Call(libc::SYS_accept4),
    Call(libc::SYS_shutdown),
    Call(libc::SYS_recvfrom),
    Call(libc::SYS_sendto),
    Values(libc::SYS_ioctl, 1, &[FIONBIO]),
];

const BALLOON: &[Allowed] = &[];

/// Messages on a socket that was connected before.
const FS: &[Allowed] = &[Call(libc::SYS_epoll_create1), Call(libc::SYS_sendmsg), Call(libc::SYS_recvmsg)];

/// The lists of a thread, beside that of all threads.
pub(super) fn of(role: Role) -> &'static [&'static [Allowed]] {
    match role {
        Role::Loader => &[LOADER],
        Role::Main => &[MAIN],
        Role::Vcpu => &[VCPU],
        Role::Spawner => &[SPAWNER, BLOCK, NET, VSOCK, BALLOON, FS],
        Role::Block => &[BLOCK],
        Role::Net => &[NET],
        Role::Vsock => &[VSOCK],
        Role::Rng => &[],
        Role::Balloon => &[BALLOON],
        Role::Fs => &[FS],
    }
}
