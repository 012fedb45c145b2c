//! Gives listeners of ours every TCP connection to the loopback addresses of a namespace, on whatever port.
//!
//! A BPF program at the socket lookup (`BPF_PROG_TYPE_SK_LOOKUP`, Linux 5.9) picks the listener. Other than with a
//! `redirect` rule there is no table to clean up (all goes with its descriptors, however we die), no connection
//! tracking, and the accepted connection's own address is the one that was dialled.

use std::{
    ffi::c_int,
    io,
    mem::size_of,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

// linux/bpf.h
const BPF_MAP_CREATE: c_int = 0;
const BPF_MAP_UPDATE_ELEM: c_int = 2;
const BPF_PROG_LOAD: c_int = 5;
const BPF_LINK_CREATE: c_int = 28;
const BPF_MAP_TYPE_SOCKMAP: u32 = 15;
const BPF_PROG_TYPE_SK_LOOKUP: u32 = 30;
const BPF_SK_LOOKUP: u32 = 36;
const BPF_PSEUDO_MAP_FD: u8 = 1;
const FUNC_MAP_LOOKUP_ELEM: i32 = 1;
const FUNC_SK_RELEASE: i32 = 86;
const FUNC_SK_ASSIGN: i32 = 124;
const SK_PASS: i32 = 1;

// Offsets in struct bpf_sk_lookup.
const FAMILY: i16 = 8;
const PROTOCOL: i16 = 12;
const LOCAL_IP4: i16 = 40;
const LOCAL_IP6: i16 = 44;

const V4_SLOT: u32 = 0;
const V6_SLOT: u32 = 1;
const SLOTS: u32 = 2;

/// The steering, until it is dropped.
#[derive(Debug)]
pub(super) struct Steering {
    _link: OwnedFd,
}

impl Steering {
    /// Steers connections to 127.0.0.0/8 to `v4` and those to ::1 to `v6`; both listen in the namespace.
    ///
    /// # Errors
    /// `EPERM` without CAP_NET_ADMIN and CAP_BPF in the machine's first user namespace, `EINVAL` before Linux 5.9.
    pub(super) fn begin(
        netns: BorrowedFd<'_>,
        v4: BorrowedFd<'_>,
        v6: Option<BorrowedFd<'_>>,
    ) -> io::Result<Self> {
        let map = create_map()?;
        insert(&map, V4_SLOT, v4)?;
        if let Some(v6) = v6 {
            insert(&map, V6_SLOT, v6)?;
        }
        let program = load(&program(map.as_raw_fd()))?;
        let attr = LinkCreate {
            prog_fd: program.as_raw_fd(),
            target_fd: netns.as_raw_fd(),
            attach_type: BPF_SK_LOOKUP,
            flags: 0,
        };
        // SAFETY: the fields are those of BPF_LINK_CREATE; no pointers.
        Ok(Self { _link: owned(unsafe { bpf(BPF_LINK_CREATE, &attr) }?) })
    }
}

#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

#[repr(C)]
struct MapUpdate {
    map_fd: RawFd,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

#[repr(C)]
struct LinkCreate {
    prog_fd: RawFd,
    target_fd: RawFd,
    attach_type: u32,
    flags: u32,
}

/// bpf(2).
///
/// # Safety
/// `attr` must be what `command` takes, and its pointers good for as long as the call lasts.
unsafe fn bpf<T>(command: c_int, attr: &T) -> io::Result<RawFd> {
    // SAFETY: the kernel reads size_of::<T>() bytes of attr, and what the caller vouches for.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(result).map_err(io::Error::other)
}

fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: callers pass descriptors that bpf(2) has just made for us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn create_map() -> io::Result<OwnedFd> {
    let attr = MapCreate { map_type: BPF_MAP_TYPE_SOCKMAP, key_size: 4, value_size: 8, max_entries: SLOTS };
    // SAFETY: the fields are those of BPF_MAP_CREATE; no pointers.
    Ok(owned(unsafe { bpf(BPF_MAP_CREATE, &attr) }?))
}

fn insert(map: &OwnedFd, slot: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
    let value = i64::from(socket.as_raw_fd());
    let attr = MapUpdate {
        map_fd: map.as_raw_fd(),
        pad: 0,
        key: address_of(&slot),
        value: address_of(&value),
        flags: 0,
    };
    // SAFETY: the fields are those of BPF_MAP_UPDATE_ELEM; key and value are as long as the map's, and outlive the call.
    unsafe { bpf(BPF_MAP_UPDATE_ELEM, &attr) }.map(|_| ())
}

fn load(instructions: &[Instruction]) -> io::Result<OwnedFd> {
    let license = c"Apache-2.0";
    let mut prog_name = [0; 16];
    for (to, from) in prog_name.iter_mut().zip(b"husk_loopback") {
        *to = *from;
    }
    let attr = ProgLoad {
        prog_type: BPF_PROG_TYPE_SK_LOOKUP,
        insn_cnt: u32::try_from(instructions.len()).map_err(io::Error::other)?,
        insns: instructions.as_ptr().expose_provenance() as u64,
        license: license.as_ptr().expose_provenance() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name,
        prog_ifindex: 0,
        expected_attach_type: BPF_SK_LOOKUP,
    };
    // SAFETY: the fields are those of BPF_PROG_LOAD; instructions and licence outlive the call.
    Ok(owned(unsafe { bpf(BPF_PROG_LOAD, &attr) }?))
}

fn address_of<T>(value: &T) -> u64 {
    std::ptr::from_ref(value).expose_provenance() as u64
}

/// struct bpf_insn.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Instruction {
    code: u8,
    /// Destination in the low half, source in the high one.
    registers: u8,
    offset: i16,
    immediate: i32,
}

fn instruction(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: dst | src << 4, offset, immediate }
}

/// `dst = *(u32 *)(src + offset)`
fn load_word(dst: u8, src: u8, offset: i16) -> Instruction {
    instruction(0x61, dst, src, offset, 0)
}

/// `dst = src`
fn copy(dst: u8, src: u8) -> Instruction {
    instruction(0xbf, dst, src, 0, 0)
}

/// `dst = immediate`
fn set(dst: u8, immediate: i32) -> Instruction {
    instruction(0xb7, dst, 0, 0, immediate)
}

/// `if dst != immediate, skip that many instructions`
fn skip_unless(dst: u8, immediate: i32, skipped: i16) -> Instruction {
    instruction(0x55, dst, 0, skipped, immediate)
}

fn call(function: i32) -> Instruction {
    instruction(0x85, 0, 0, 0, function)
}

/// The program: TCP to 127.0.0.0/8 or ::1 goes to the listener in the family's slot, everything else where it would go
/// anyway.
fn program(map: RawFd) -> [Instruction; 36] {
    // ::1 as four words, as they lie in memory.
    let one = 1u32.to_be().cast_signed();
    [
        /*  0 */ copy(6, 1),
        /*  1 */ load_word(2, 6, PROTOCOL),
        /*  2 */ skip_unless(2, libc::IPPROTO_TCP, 31),
        /*  3 */ load_word(2, 6, FAMILY),
        /*  4 */ skip_unless(2, libc::AF_INET, 5),
        /*  5 */ load_word(2, 6, LOCAL_IP4),
        // r2 &= the address's first byte
        /*  6 */
        instruction(0x57, 2, 0, 0, i32::from_ne_bytes([0xff, 0, 0, 0])),
        /*  7 */ skip_unless(2, i32::from_ne_bytes([127, 0, 0, 0]), 26),
        /*  8 */ set(7, V4_SLOT.cast_signed()),
        // goto lookup
        /*  9 */ instruction(0x05, 0, 0, 10, 0),
        /* 10 */ skip_unless(2, libc::AF_INET6, 23),
        /* 11 */ load_word(2, 6, LOCAL_IP6),
        /* 12 */ skip_unless(2, 0, 21),
        /* 13 */ load_word(2, 6, LOCAL_IP6 + 4),
        /* 14 */ skip_unless(2, 0, 19),
        /* 15 */ load_word(2, 6, LOCAL_IP6 + 8),
        /* 16 */ skip_unless(2, 0, 17),
        /* 17 */ load_word(2, 6, LOCAL_IP6 + 12),
        /* 18 */ skip_unless(2, one, 15),
        /* 19 */ set(7, V6_SLOT.cast_signed()),
        // lookup: the slot's number goes on the stack
        /* 20 */
        instruction(0x63, 10, 7, -4, 0),
        /* 21 */ instruction(0x18, 1, BPF_PSEUDO_MAP_FD, 0, map),
        /* 22 */ instruction(0, 0, 0, 0, 0),
        /* 23 */ copy(2, 10),
        /* 24 */ instruction(0x07, 2, 0, 0, -4),
        /* 25 */ call(FUNC_MAP_LOOKUP_ELEM),
        // nobody listens: pass
        /* 26 */ instruction(0x15, 0, 0, 7, 0),
        /* 27 */ copy(7, 0),
        /* 28 */ copy(1, 6),
        /* 29 */ copy(2, 0),
        /* 30 */ set(3, 0),
        /* 31 */ call(FUNC_SK_ASSIGN),
        /* 32 */ copy(1, 7),
        /* 33 */ call(FUNC_SK_RELEASE),
        // pass
        /* 34 */ set(0, SK_PASS),
        /* 35 */ instruction(0x95, 0, 0, 0, 0),
    ]
}
