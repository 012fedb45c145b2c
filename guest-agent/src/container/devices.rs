//! Which devices a container may use: the rules of `linux.resources.devices`, as a BPF program on its cgroup
//! (runtime-spec config-linux.md, "Allowed Device list"; <linux/bpf.h>, `bpf_cgroup_dev_ctx`).

use std::{
    fs::File,
    io,
    mem::size_of_val,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::Path,
};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType, Spec};

const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;
const ALL: i32 = MKNOD | READ | WRITE;
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;

/// A rule. None matches any.
#[derive(Debug, Clone, Copy)]
struct Rule {
    allow: bool,
    /// [`BLOCK`] or [`CHARACTER`].
    kind: Option<i32>,
    major: Option<i32>,
    minor: Option<i32>,
    /// Some of [`ALL`].
    access: i32,
}

/// What every container may do, whatever the rules say: make any node, and use the devices that every container has,
/// as other runtimes have it.
const ALWAYS: [Rule; 11] = [
    Rule { allow: true, kind: Some(CHARACTER), major: None, minor: None, access: MKNOD },
    Rule { allow: true, kind: Some(BLOCK), major: None, minor: None, access: MKNOD },
    character(1, Some(3)),
    character(1, Some(5)),
    character(1, Some(7)),
    character(1, Some(8)),
    character(1, Some(9)),
    character(5, Some(0)),
    character(5, Some(1)),
    character(5, Some(2)),
    // Terminals.
    character(136, None),
];

const fn character(major: i32, minor: Option<i32>) -> Rule {
    Rule { allow: true, kind: Some(CHARACTER), major: Some(major), minor, access: ALL }
}

/// Puts the spec's rules into force on a cgroup. A device that none is about may not be used.
pub(super) fn restrict(spec: &Spec, cgroup: &Path) -> io::Result<()> {
    let linux = spec.linux().as_ref();
    let given = linux.and_then(|linux| linux.resources().as_ref()?.devices().as_ref());
    let given = given.into_iter().flatten().filter_map(of_rule);
    let devices = linux.and_then(|linux| linux.devices().as_ref());
    let devices = devices.into_iter().flatten().filter_map(of_device);
    let rules: Vec<Rule> = given.chain(ALWAYS).chain(devices).collect();
    attach(&load(&program(&rules))?, &File::open(cgroup)?)
}

fn of_rule(rule: &LinuxDeviceCgroup) -> Option<Rule> {
    let kind = match rule.typ().unwrap_or_default() {
        LinuxDeviceType::A => None,
        LinuxDeviceType::B => Some(BLOCK),
        LinuxDeviceType::C | LinuxDeviceType::U => Some(CHARACTER),
        // FIFOs are no devices.
        LinuxDeviceType::P => return None,
    };
    let access = rule.access().iter().flat_map(|access| access.chars()).fold(0, |bits, c| match c {
        'r' => bits | READ,
        'w' => bits | WRITE,
        'm' => bits | MKNOD,
        _ => bits,
    });
    // A negative number stands for any; a rule without access is about any.
    let number = |number: Option<i64>| number.and_then(|n| i32::try_from(n).ok()).filter(|n| *n >= 0);
    Some(Rule {
        allow: rule.allow(),
        kind,
        major: number(rule.major()),
        minor: number(rule.minor()),
        access: if access == 0 { ALL } else { access },
    })
}

fn of_device(device: &LinuxDevice) -> Option<Rule> {
    let kind = match device.typ() {
        LinuxDeviceType::B => BLOCK,
        LinuxDeviceType::C | LinuxDeviceType::U => CHARACTER,
        LinuxDeviceType::A | LinuxDeviceType::P => return None,
    };
    let (major, minor) = (i32::try_from(device.major()).ok()?, i32::try_from(device.minor()).ok()?);
    Some(Rule { allow: true, kind: Some(kind), major: Some(major), minor: Some(minor), access: ALL })
}

/// An instruction, `struct bpf_insn`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Insn {
    code: u8,
    /// Destination in the low half, source in the high half.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// dst = *(u32 *)(src + offset)
const LOAD_WORD: u8 = 0x61;
/// dst = immediate
const SET: u8 = 0xb7;
/// dst = src
const COPY: u8 = 0xbf;
/// dst &= immediate
const AND: u8 = 0x57;
/// dst >>= immediate
const SHIFT_RIGHT: u8 = 0x77;
/// if dst == immediate, skip `offset` instructions
const SKIP_IF: u8 = 0x15;
/// if dst != immediate, skip `offset` instructions
const SKIP_UNLESS: u8 = 0x55;
const EXIT: u8 = 0x95;

const RESULT: u8 = 0;
/// The program's argument, and free once that is read.
const CONTEXT: u8 = 1;
const SCRATCH: u8 = 1;
const WANTED: u8 = 2;
const KIND: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

const fn insn(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> Insn {
    Insn { code, registers: src << 4 | dst, offset, immediate }
}

/// The program that decides by `rules`, of which a later one overrides an earlier one. What none is about is denied.
fn program(rules: &[Rule]) -> Vec<Insn> {
    let mut code = vec![
        insn(LOAD_WORD, KIND, CONTEXT, 0, 0),
        insn(COPY, WANTED, KIND, 0, 0),
        insn(AND, KIND, 0, 0, 0xffff),
        insn(SHIFT_RIGHT, WANTED, 0, 0, 16),
        insn(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        insn(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    for rule in rules.iter().rev() {
        let mut block = Vec::with_capacity(8);
        for (register, value) in [(KIND, rule.kind), (MAJOR, rule.major), (MINOR, rule.minor)] {
            if let Some(value) = value {
                block.push(insn(SKIP_UNLESS, register, 0, 0, value));
            }
        }
        if rule.access != ALL {
            block.push(insn(COPY, SCRATCH, WANTED, 0, 0));
            // Allowing takes all that is wanted; denying takes any of it.
            if rule.allow {
                block.push(insn(AND, SCRATCH, 0, 0, !rule.access));
                block.push(insn(SKIP_UNLESS, SCRATCH, 0, 0, 0));
            } else {
                block.push(insn(AND, SCRATCH, 0, 0, rule.access));
                block.push(insn(SKIP_IF, SCRATCH, 0, 0, 0));
            }
        }
        block.push(insn(SET, RESULT, 0, 0, i32::from(rule.allow)));
        block.push(insn(EXIT, 0, 0, 0, 0));
        let length = block.len();
        let unconditional = length == 2;
        for (at, insn) in block.iter_mut().enumerate() {
            if matches!(insn.code, SKIP_IF | SKIP_UNLESS) {
                // To the next rule; a block has at most nine instructions.
                insn.offset = i16::try_from(length - at - 1).unwrap_or_default();
            }
        }
        code.extend(block);
        if unconditional {
            // The kernel refuses a program with instructions that are never reached.
            return code;
        }
    }
    code.push(insn(SET, RESULT, 0, 0, 0));
    code.push(insn(EXIT, 0, 0, 0, 0));
    code
}

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;

/// The start of `union bpf_attr` for BPF_PROG_LOAD; the kernel takes what is missing for zeros.
#[repr(C)]
struct LoadAttributes {
    program_type: u32,
    count: u32,
    instructions: u64,
    license: u64,
}

/// The start of `union bpf_attr` for BPF_PROG_ATTACH.
#[repr(C)]
struct AttachAttributes {
    target: i32,
    program: i32,
    attach_type: u32,
    flags: u32,
}

fn load(program: &[Insn]) -> io::Result<OwnedFd> {
    let attributes = LoadAttributes {
        program_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        count: u32::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
    };
    // SAFETY: `attributes` and what it points to live through the call, with the lengths given.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &attributes, size_of_val(&attributes)) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The cgroup keeps the program.
fn attach(program: &OwnedFd, cgroup: &File) -> io::Result<()> {
    let attributes = AttachAttributes {
        target: cgroup.as_raw_fd(),
        program: program.as_raw_fd(),
        attach_type: BPF_CGROUP_DEVICE,
        flags: 0,
    };
    // SAFETY: `attributes` lives through the call, with the length given.
    if unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &attributes, size_of_val(&attributes)) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would.
    fn run(code: &[Insn], kind: i32, access: i32, major: i32, minor: i32) -> bool {
        let context = [access << 16 | kind, major, minor];
        let (mut registers, mut at) = ([0_i32; 6], 0_usize);
        loop {
            let insn = code[at];
            let (dst, src) = (usize::from(insn.registers & 0xf), usize::from(insn.registers >> 4));
            at += 1;
            match insn.code {
                LOAD_WORD => registers[dst] = context[usize::try_from(insn.offset / 4).unwrap()],
                SET => registers[dst] = insn.immediate,
                COPY => registers[dst] = registers[src],
                AND => registers[dst] &= insn.immediate,
                SHIFT_RIGHT => registers[dst] >>= insn.immediate,
                SKIP_IF if registers[dst] == insn.immediate => at += usize::try_from(insn.offset).unwrap(),
                SKIP_UNLESS if registers[dst] != insn.immediate => {
                    at += usize::try_from(insn.offset).unwrap()
                }
                SKIP_IF | SKIP_UNLESS => {}
                EXIT => return registers[0] == 1,
                other => panic!("{other:#x}"),
            }
        }
    }

    fn parse(json: &str) -> Vec<Rule> {
        let rules: Vec<LinuxDeviceCgroup> = serde_json::from_str(json).unwrap();
        rules.iter().filter_map(of_rule).collect()
    }

    #[test]
    fn later_rules_override_earlier_ones() {
        let code = program(&parse(
            r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":10,"minor":229,"access":"rw"},
                {"allow":true,"type":"b","major":8,"access":"rwm"},{"allow":false,"type":"b","major":8,"minor":1,
                "access":"w"}]"#,
        ));
        assert!(run(&code, CHARACTER, READ | WRITE, 10, 229));
        assert!(run(&code, CHARACTER, READ, 10, 229));
        assert!(!run(&code, CHARACTER, READ | MKNOD, 10, 229));
        assert!(!run(&code, BLOCK, READ, 10, 229));
        assert!(!run(&code, CHARACTER, READ, 10, 228));
        assert!(run(&code, BLOCK, ALL, 8, 0));
        assert!(run(&code, BLOCK, READ, 8, 1));
        assert!(!run(&code, BLOCK, READ | WRITE, 8, 1));
        assert!(!run(&code, CHARACTER, READ, 1, 3));
    }

    #[test]
    fn every_container_has_its_usual_devices() {
        let deny = parse(r#"[{"allow":false}]"#);
        let code = program(&deny.into_iter().chain(ALWAYS).collect::<Vec<_>>());
        assert!(run(&code, CHARACTER, READ | WRITE, 1, 3) && run(&code, CHARACTER, READ | WRITE, 136, 9));
        assert!(run(&code, BLOCK, MKNOD, 254, 0));
        assert!(!run(&code, BLOCK, READ, 254, 0) && !run(&code, CHARACTER, READ, 1, 1));
        // Also where the spec has no rules.
        let code = program(&ALWAYS);
        assert!(run(&code, CHARACTER, READ | WRITE, 1, 3) && !run(&code, BLOCK, READ, 254, 0));
    }

    #[test]
    fn the_kernel_takes_the_program() {
        let rules =
            parse(r#"[{"allow":false},{"allow":true,"type":"c","access":"r"},{"allow":false,"access":"w"}]"#);
        load(&program(&rules.into_iter().chain(ALWAYS).collect::<Vec<_>>())).unwrap();
    }
}
