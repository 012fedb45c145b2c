//! Kernels and initramfs files, good and bad, and where they end up.

use std::{fs, path::Path};

use vm_memory::{Bytes, GuestMemory, Permissions};

use super::*;

const MIB: u64 = 1 << 20;
const SEGMENT_AT: usize = 64;
const CODE_AT: usize = 0x1000;

/// A vmlinux of one segment that is loaded at 16 MiB, as a function of its changes.
fn vmlinux(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut file = vec![0; CODE_AT];
    file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    put(&mut file, 16, &2_u16.to_le_bytes());
    put(&mut file, 18, &62_u16.to_le_bytes());
    put(&mut file, 24, &(16 * MIB + 0x10).to_le_bytes());
    put(&mut file, 32, &(SEGMENT_AT as u64).to_le_bytes());
    put(&mut file, 54, &56_u16.to_le_bytes());
    put(&mut file, 56, &1_u16.to_le_bytes());
    put(&mut file, SEGMENT_AT, &1_u32.to_le_bytes());
    put(&mut file, SEGMENT_AT + 8, &(CODE_AT as u64).to_le_bytes());
    put(&mut file, SEGMENT_AT + 24, &(16 * MIB).to_le_bytes());
    put(&mut file, SEGMENT_AT + 32, &0x800_u64.to_le_bytes());
    put(&mut file, SEGMENT_AT + 40, &0x2000_u64.to_le_bytes());
    file.extend(std::iter::repeat_n(0x90, 0x800));
    change(&mut file);
    file
}

fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

struct Machine {
    dir: tempfile::TempDir,
    mem: GuestMemoryMmap,
    config: VmConfig,
}

impl Machine {
    fn new(kernel: &[u8], initramfs: Option<&[u8]>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            fs::write(&path, bytes).unwrap();
            path
        };
        let config = VmConfig {
            kernel: path("vmlinux", kernel),
            initramfs: initramfs.map(|bytes| path("initramfs", bytes)),
            cmdline: String::new(),
            vcpus: 2,
            mem_size_mib: 64,
            memory: crate::config::MemoryConfig::default(),
            cpu_template: crate::config::CpuTemplate::Host,
            balloon: None,
            disks: vec![],
            nets: vec![],
            spare_nets: 0,
            filesystems: vec![],
            spare_disks: 0,
            vsock: None,
            console: None,
            rng: false,
            jail: None,
        };
        let mem = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 64 << 20)]).unwrap();
        Self { dir, mem, config }
    }

    fn boot(&self) -> Result<Entry, BootError> {
        prepare(&self.mem, &self.config, Files::open(&self.config)?, "some args")
    }

    fn kernel_error(&self) -> KernelError {
        match self.boot().unwrap_err() {
            BootError::Kernel { path, source } => {
                assert_eq!(path, self.config.kernel);
                source
            }
            other => panic!("{other}"),
        }
    }

    fn bytes<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.mem.read_slice(&mut bytes, GuestAddress(at)).unwrap();
        bytes
    }
}

#[test]
fn all_is_where_the_kernel_looks_for_it() {
    let initramfs = vec![0x77; 5000];
    let machine = Machine::new(&vmlinux(|_| {}), Some(&initramfs));
    let entry = machine.boot().unwrap();
    assert_eq!((entry.address, entry.page_tables), (16 * MIB + 0x10, layout::PAGE_TABLES));
    assert_eq!(machine.bytes::<0x800>(16 * MIB), [0x90; 0x800]);
    assert_eq!(machine.bytes::<0x1800>(16 * MIB + 0x800), [0; 0x1800]);
    assert_eq!(&machine.bytes::<10>(layout::CMDLINE), b"some args\0");
    assert_eq!(&machine.bytes::<4>(layout::MP_TABLE), b"_MP_");
    // The initramfs is at the end of the memory, on a page of its own.
    let start = 64 * MIB - 0x2000;
    assert_eq!(machine.bytes::<5000>(start), [0x77; 5000]);
    let field = |offset| u64::from(u32::from_le_bytes(machine.bytes(layout::BOOT_PARAMS + offset)));
    assert_eq!([field(0x218), field(0x21c)], [start, 5000]);
}

#[test]
fn what_is_not_a_vmlinux_is_refused() {
    for bad in [&b""[..], b"\x7fEL", b"MZ and much more, as a bzImage has", &[0; 0x4000]] {
        assert!(matches!(Machine::new(bad, None).kernel_error(), KernelError::NotElf));
    }
    let other_machine = vmlinux(|file| put(file, 18, &183_u16.to_le_bytes()));
    let other_class = vmlinux(|file| file[4] = 1);
    let other_order = vmlinux(|file| file[5] = 2);
    for bad in [other_machine, other_class, other_order] {
        assert!(matches!(Machine::new(&bad, None).kernel_error(), KernelError::Machine));
    }
}

#[test]
fn a_damaged_vmlinux_is_refused() {
    let huge = u64::MAX.to_le_bytes();
    let bad = [
        vmlinux(|file| file.truncate(40)),
        vmlinux(|file| file.truncate(SEGMENT_AT + 20)),
        vmlinux(|file| file.truncate(CODE_AT + 0x7ff)),
        vmlinux(|file| put(file, 32, &huge)),
        vmlinux(|file| put(file, 54, &32_u16.to_le_bytes())),
        vmlinux(|file| put(file, 56, &u16::MAX.to_le_bytes())),
        vmlinux(|file| put(file, 24, &(17 * MIB).to_le_bytes())),
        vmlinux(|file| put(file, SEGMENT_AT + 8, &huge)),
        vmlinux(|file| put(file, SEGMENT_AT + 24, &huge)),
        vmlinux(|file| put(file, SEGMENT_AT + 24, &0x1000_u64.to_le_bytes())),
        vmlinux(|file| put(file, SEGMENT_AT + 32, &huge)),
        vmlinux(|file| put(file, SEGMENT_AT, &2_u32.to_le_bytes())),
    ];
    for (index, bad) in bad.iter().enumerate() {
        let error = Machine::new(bad, None).kernel_error();
        assert!(matches!(error, KernelError::Damaged(_)), "{index}: {error}");
    }
}

#[test]
fn too_little_memory_is_named() {
    let kernel = vmlinux(|file| put(file, SEGMENT_AT + 40, &(48 * MIB + 1).to_le_bytes()));
    let error = Machine::new(&kernel, None).kernel_error();
    assert!(matches!(error, KernelError::TooSmall { needed_mib: 65 }), "{error}");
    // Exactly as much memory as the kernel needs is enough, but not for an initramfs, too.
    let kernel = vmlinux(|file| put(file, SEGMENT_AT + 40, &(48 * MIB).to_le_bytes()));
    assert!(Machine::new(&kernel, None).boot().is_ok());
    let error = Machine::new(&kernel, Some(b"x")).boot().unwrap_err();
    assert!(matches!(error, BootError::TooSmall { initramfs_mib: 1 }), "{error}");
}

#[test]
fn a_missing_file_is_named() {
    let mut machine = Machine::new(&vmlinux(|_| {}), Some(b""));
    assert!(matches!(machine.boot(), Err(BootError::Initramfs { .. })));
    machine.config.initramfs = Some(machine.dir.path().join("gone"));
    assert!(matches!(machine.boot(), Err(BootError::Initramfs { path, .. }) if path.ends_with("gone")));
    machine.config.initramfs = None;
    machine.config.kernel = "/nonexistent/vmlinux".into();
    assert!(matches!(machine.kernel_error(), KernelError::Read(_)));
    machine.config.kernel = machine.dir.path().into();
    assert!(matches!(machine.kernel_error(), KernelError::NotElf | KernelError::Read(_)));
}

proptest::proptest! {
    /// Whatever a file says, it is loaded within the guest's memory or refused.
    #[test]
    fn no_vmlinux_breaks_the_loader(
        changes in proptest::collection::vec((0..SEGMENT_AT + 56, proptest::num::u8::ANY), 0..8),
        len in 0..CODE_AT + 0x800,
        cut in proptest::bool::ANY,
    ) {
        let kernel = vmlinux(|file| {
            changes.iter().for_each(|(at, byte)| file[*at] = *byte);
            file.truncate(if cut { len } else { file.len() });
        });
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vmlinux");
        fs::write(&path, &kernel).unwrap();
        let mem = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 64 << 20)]).unwrap();
        if let Ok(loaded) = super::kernel::load(&mem, File::open(Path::new(&path)).unwrap(), 64 * MIB) {
            proptest::prop_assert!(loaded.end <= 64 * MIB && loaded.entry < loaded.end);
            let accessible = GuestMemory::check_range(&mem, GuestAddress(loaded.entry), 1, Permissions::Read);
            proptest::prop_assert!(accessible);
        }
    }
}
