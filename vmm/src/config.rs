//! What a VM is made of. The JSON form is the VMM's input; fields that are not known are refused.

use std::{
    fs::File,
    io::Read,
    os::fd::RawFd,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::jail::JailConfig;

pub use crate::cpu::template::CpuTemplate;

mod disk;
mod filesystem;
mod memory;
mod net;

pub use disk::{DiskConfig, DiskConfigError, DiskFormat, MAX_DISK_ID_LEN, WhenFull, is_disk_id};
pub use filesystem::{FilesystemConfig, FilesystemConfigError, FilesystemSocket, MAX_TAG_LEN};
pub use husk_base::Mac as MacAddress;
pub use memory::{Backing, BalloonConfig, MIN_MEM_SIZE_MIB, MemoryConfig, MemoryConfigError};
pub use net::{NetConfig, NetConfigError, TapConfig};

/// Most vCPUs of a VM.
pub const MAX_VCPUS: u8 = 32;
/// Most memory of a VM, in MiB: what fits a 40 bit physical address with room for devices.
pub const MAX_MEM_SIZE_MIB: u32 = 512 << 10;
/// Most empty slots for disks.
pub const MAX_SPARE_DISKS: u8 = 8;
/// Most empty slots for network interfaces.
pub const MAX_SPARE_NETS: u8 = 4;
/// Most bytes of a configuration file.
const MAX_FILE_LEN: u64 = 1 << 20;

/// A configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("cannot read the configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is larger than any configuration.
    #[error("the configuration {0} is larger than 1 MiB")]
    TooLarge(PathBuf),
    /// It is not JSON, or has unknown, missing or mistyped fields.
    #[error("the configuration is not valid")]
    Parse(#[source] serde_json::Error),
    /// Number of vCPUs out of range.
    #[error("vcpus is {0}, must be 1 to {MAX_VCPUS}")]
    Vcpus(u8),
    /// Memory size out of range.
    #[error("mem_size_mib is {0}, must be {MIN_MEM_SIZE_MIB} to {MAX_MEM_SIZE_MIB}")]
    MemSize(u32),
    /// Number of empty slots for disks out of range.
    #[error("spare_disks is {0}, must be 0 to {MAX_SPARE_DISKS}")]
    SpareDisks(u8),
    /// Number of empty slots for network interfaces out of range.
    #[error("spare_nets is {0}, must be 0 to {MAX_SPARE_NETS}")]
    SpareNets(u8),
    /// The memory or the balloon is no good.
    #[error(transparent)]
    Memory(#[from] MemoryConfigError),
    /// A disk is no good.
    #[error(transparent)]
    Disk(#[from] DiskConfigError),
    /// A network interface is no good.
    #[error(transparent)]
    Net(#[from] NetConfigError),
    /// A file system is no good.
    #[error(transparent)]
    Filesystem(#[from] FilesystemConfigError),
    /// The kernel's command line can't hold this.
    #[error("cmdline has a character that is not printable ASCII")]
    Cmdline,
    /// The superuser, or nobody at all.
    #[error("jail.uid is {0}, must be 1 to 4294967294")]
    JailUid(u32),
    /// A context id that is reserved.
    #[error("vsock.guest_cid is {0}, must be 3 to 4294967294")]
    GuestCid(u32),
}

/// A VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmConfig {
    /// The guest's kernel: an uncompressed x86-64 ELF, as `vmlinux`.
    pub kernel: PathBuf,
    /// The guest's initial file system, as the kernel takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initramfs: Option<PathBuf>,
    /// Arguments for the kernel, added to those that the VMM gives.
    #[serde(default)]
    pub cmdline: String,
    /// Number of vCPUs, 1 to 32.
    pub vcpus: u8,
    /// Size of the guest's memory in MiB, at least 64.
    pub mem_size_mib: u32,
    /// Where the guest's memory comes from.
    #[serde(default)]
    pub memory: MemoryConfig,
    /// The CPU that the guest sees.
    #[serde(default)]
    pub cpu_template: CpuTemplate,
    /// Gives memory back to the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balloon: Option<BalloonConfig>,
    /// Disks, in the order in which the guest finds them.
    #[serde(default)]
    pub disks: Vec<DiskConfig>,
    /// Empty slots, up to 8, for disks that are attached while the VM runs. They are called `spare0`, `spare1` and so on.
    #[serde(default)]
    pub spare_disks: u8,
    /// Network interfaces, in the order in which the guest finds them.
    #[serde(default)]
    pub nets: Vec<NetConfig>,
    /// Empty slots, up to 4, for network interfaces that are attached while the VM runs, one each. They are called
    /// `sparenet0`, `sparenet1` and so on.
    #[serde(default)]
    pub spare_nets: u8,
    /// Directories of the host, served by processes of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filesystems: Vec<FilesystemConfig>,
    /// Streams between guest and host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vsock: Option<VsockConfig>,
    /// The file that receives the serial port's output; without it there is no serial port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console: Option<PathBuf>,
    /// Whether there is a source of random numbers. Yes, unless told otherwise.
    #[serde(default = "yes")]
    pub rng: bool,
    /// How the VMM is locked up; without it, it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jail: Option<JailConfig>,
}

/// A vsock device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VsockConfig {
    /// The guest's context id, 3 or more.
    pub guest_cid: u32,
    /// The unix socket that stands for the guest; see [`crate::virtio::vsock`].
    pub socket: PathBuf,
}

fn yes() -> bool {
    true
}

impl VmConfig {
    /// Reads and checks a configuration file.
    ///
    /// # Errors
    /// When it can't be read, or is not a valid configuration.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read { path: path.into(), source };
        let mut text = String::new();
        File::open(path).map_err(read)?.take(MAX_FILE_LEN + 1).read_to_string(&mut text).map_err(read)?;
        if text.len() as u64 > MAX_FILE_LEN {
            return Err(ConfigError::TooLarge(path.into()));
        }
        Self::from_json(&text)
    }

    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// When it is not a valid configuration.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        let config: Self = serde_json::from_str(text).map_err(ConfigError::Parse)?;
        config.validate()?;
        Ok(config)
    }

    /// The numbers of inherited descriptors that it names: of taps and of file systems' servers.
    pub fn inherited(&self) -> Vec<RawFd> {
        let taps = self.nets.iter().flat_map(|net| match &net.tap {
            TapConfig::Fds(numbers) => numbers.as_slice(),
            TapConfig::Name(_) => &[],
        });
        let servers = self.filesystems.iter().filter_map(|filesystem| match filesystem.socket {
            FilesystemSocket::Fd(number) => Some(number),
            FilesystemSocket::Path(_) => None,
        });
        taps.copied().chain(servers).collect()
    }

    /// Checks what the types can't say.
    ///
    /// # Errors
    /// Names the first field that is wrong.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if !(1..=MAX_VCPUS).contains(&self.vcpus) {
            return Err(ConfigError::Vcpus(self.vcpus));
        }
        if !(MIN_MEM_SIZE_MIB..=MAX_MEM_SIZE_MIB).contains(&self.mem_size_mib) {
            return Err(ConfigError::MemSize(self.mem_size_mib));
        }
        memory::validate(self.mem_size_mib, self.memory, self.balloon.as_ref())?;
        if !self.cmdline.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
            return Err(ConfigError::Cmdline);
        }
        if let Some(uid @ (0 | u32::MAX)) = self.jail.as_ref().and_then(|jail| jail.uid) {
            return Err(ConfigError::JailUid(uid));
        }
        if self.spare_disks > MAX_SPARE_DISKS {
            return Err(ConfigError::SpareDisks(self.spare_disks));
        }
        disk::validate(&self.disks, self.spare_disk_names(), self.vcpus)?;
        net::validate(&self.nets)?;
        if self.spare_nets > MAX_SPARE_NETS {
            return Err(ConfigError::SpareNets(self.spare_nets));
        }
        filesystem::validate(&self.filesystems, self.memory.shared)?;
        match &self.vsock {
            Some(vsock) if !(3..u32::MAX).contains(&vsock.guest_cid) => {
                Err(ConfigError::GuestCid(vsock.guest_cid))
            }
            _ => Ok(()),
        }
    }

    /// Checks how much memory a balloon is to hold.
    ///
    /// # Errors
    /// When it leaves the guest too little.
    pub fn validate_balloon_target(&self, target_mib: u32) -> Result<(), MemoryConfigError> {
        memory::validate_target(self.mem_size_mib, target_mib)
    }

    /// The names of the empty slots for disks.
    pub fn spare_disk_names(&self) -> impl Iterator<Item = String> {
        (0..self.spare_disks).map(|index| format!("spare{index}"))
    }

    /// The names of the empty slots for network interfaces.
    pub fn spare_net_names(&self) -> impl Iterator<Item = String> {
        (0..self.spare_nets).map(|index| format!("sparenet{index}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        jail::SeccompMode,
        rate_limit::{BucketConfig, RateLimit},
    };

    fn with(field: &str, value: serde_json::Value) -> Result<VmConfig, ConfigError> {
        let mut json = serde_json::json!({"kernel": "/k", "vcpus": 1, "mem_size_mib": 64});
        json[field] = value;
        VmConfig::from_json(&json.to_string())
    }

    #[test]
    fn what_is_left_out_has_defaults() {
        let config = VmConfig::from_json(r#"{"kernel":"/k","vcpus":2,"mem_size_mib":256}"#).unwrap();
        let expected = VmConfig {
            kernel: "/k".into(),
            initramfs: None,
            cmdline: String::new(),
            vcpus: 2,
            mem_size_mib: 256,
            memory: MemoryConfig { backing: Backing::Anonymous, shared: false, prefault: false },
            cpu_template: CpuTemplate::Host,
            balloon: None,
            disks: vec![],
            spare_disks: 0,
            nets: vec![],
            spare_nets: 0,
            filesystems: vec![],
            vsock: None,
            console: None,
            rng: true,
            jail: None,
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn a_configuration_survives_json() {
        let config = VmConfig {
            kernel: "/k".into(),
            initramfs: Some("/i".into()),
            cmdline: "quiet".into(),
            vcpus: 32,
            mem_size_mib: 4096,
            memory: MemoryConfig { backing: Backing::Hugetlb1G, shared: true, prefault: true },
            cpu_template: CpuTemplate::V3,
            balloon: None,
            disks: vec![DiskConfig {
                queues: 2,
                limit: RateLimit {
                    bytes: None,
                    ops: Some(BucketConfig { size: 100, burst: 10, refill_ms: 1000 }),
                },
                ..DiskConfig::new("base", "/d", true)
            }],
            spare_disks: 8,
            filesystems: vec![FilesystemConfig { tag: "data".into(), socket: FilesystemSocket::Fd(9) }],
            nets: vec![NetConfig {
                id: "eth0".into(),
                tap: TapConfig::Fds(vec![7, 8]),
                mac: MacAddress::local([0, 0, 0, 0, 0xff]),
                mtu: Some(1400),
                queue_pairs: 2,
                limit_rx: RateLimit {
                    bytes: Some(BucketConfig { size: 1, burst: 2, refill_ms: 3 }),
                    ops: None,
                },
                limit_tx: RateLimit::default(),
            }],
            spare_nets: 4,
            vsock: Some(VsockConfig { guest_cid: 3, socket: "/s".into() }),
            console: Some("/c".into()),
            rng: false,
            jail: Some(JailConfig {
                uid: Some(70_000),
                cgroup: Some("/sys/fs/cgroup/x".into()),
                seccomp: SeccompMode::Log,
            }),
        };
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(VmConfig::from_json(&json).unwrap(), config);
    }

    #[test]
    fn unknown_fields_are_refused() {
        for (field, value) in [
            ("net", serde_json::json!([])),
            ("disks", serde_json::json!([{"id": "a", "path": "/d", "read_only": true, "format": "qcow2"}])),
            ("vsock", serde_json::json!({"guest_cid": 3, "socket": "/s", "uid": 0})),
        ] {
            assert!(matches!(with(field, value), Err(ConfigError::Parse(_))), "{field}");
        }
    }

    #[test]
    fn limits_are_checked() {
        assert!(matches!(with("vcpus", 0.into()), Err(ConfigError::Vcpus(0))));
        assert!(matches!(with("vcpus", 33.into()), Err(ConfigError::Vcpus(33))));
        assert!(matches!(with("mem_size_mib", 63.into()), Err(ConfigError::MemSize(63))));
        assert!(matches!(with("mem_size_mib", u32::MAX.into()), Err(ConfigError::MemSize(u32::MAX))));
        let memory = |backing: &str| with("memory", serde_json::json!({"backing": backing}));
        assert!(memory("hugetlb_2m").is_ok());
        assert!(matches!(memory("hugetlb_1g"), Err(ConfigError::Memory(_))));
        assert!(matches!(memory("swap"), Err(ConfigError::Parse(_))));
        assert!(matches!(with("cpu_template", "x86-64-v5".into()), Err(ConfigError::Parse(_))));
        assert!(matches!(with("cmdline", "a\nb".into()), Err(ConfigError::Cmdline)));
        assert!(matches!(with("jail", serde_json::json!({"uid": 0})), Err(ConfigError::JailUid(0))));
        let vsock = serde_json::json!({"guest_cid": 2, "socket": "/s"});
        assert!(matches!(with("vsock", vsock), Err(ConfigError::GuestCid(2))));
    }

    #[test]
    fn empty_slots_are_counted_and_named() {
        assert!(matches!(with("spare_disks", 9.into()), Err(ConfigError::SpareDisks(9))));
        let names: Vec<_> = with("spare_disks", 2.into()).unwrap().spare_disk_names().collect();
        assert_eq!(names, ["spare0", "spare1"]);
        assert!(matches!(with("spare_nets", 5.into()), Err(ConfigError::SpareNets(5))));
        let names: Vec<_> = with("spare_nets", 2.into()).unwrap().spare_net_names().collect();
        assert_eq!(names, ["sparenet0", "sparenet1"]);
        let taken = serde_json::json!({
            "kernel": "/k", "vcpus": 1, "mem_size_mib": 64, "spare_disks": 1,
            "disks": [{"id": "spare0", "path": "/d", "read_only": false}],
        });
        let result = VmConfig::from_json(&taken.to_string());
        assert!(matches!(result, Err(ConfigError::Disk(DiskConfigError::DuplicateId(id))) if id == "spare0"));
    }

    #[test]
    fn an_unreadable_file_is_named() {
        let error = VmConfig::from_file(Path::new("/nonexistent/vm.json")).unwrap_err();
        assert_eq!(error.to_string(), "cannot read the configuration /nonexistent/vm.json");
    }
}
