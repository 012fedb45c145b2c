//! What a VM is made of. The JSON form is the VMM's input; fields that are not known are refused.

use std::{
    collections::HashSet,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    jail::JailConfig,
    rate_limit::{RateLimit, RateLimitError},
};

mod filesystem;
mod net;

pub use filesystem::{FilesystemConfig, FilesystemConfigError, FilesystemSocket, MAX_TAG_LEN};
pub use husk_base::Mac as MacAddress;
pub use net::{NetConfig, NetConfigError, TapConfig};

/// Most vCPUs of a VM.
pub const MAX_VCPUS: u8 = 32;
/// Least memory of a VM, in MiB.
pub const MIN_MEM_SIZE_MIB: u32 = 64;
/// Most memory of a VM, in MiB: what fits a 40 bit physical address with room for devices.
pub const MAX_MEM_SIZE_MIB: u32 = 512 << 10;
/// Most bytes of a disk's id: the size of a serial number in virtio-blk (virtio 1.2, section 5.2.6).
pub const MAX_DISK_ID_LEN: usize = 20;
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
    /// A disk's id does not fit.
    #[error("disk id {0:?} must have 1 to {MAX_DISK_ID_LEN} bytes, all printable ASCII without spaces")]
    DiskId(String),
    /// Two disks with the same id.
    #[error("two disks have the id {0:?}")]
    DuplicateDiskId(String),
    /// Number of a disk's queues out of range.
    #[error("the disk {id:?} has {queues} queues, must be 1 to the number of vCPUs")]
    DiskQueues {
        /// The disk.
        id: String,
        /// Its queues.
        queues: u8,
    },
    /// A disk's limit makes no sense.
    #[error("the limit of the disk {id:?} is no good")]
    DiskLimit {
        /// The disk.
        id: String,
        /// Why.
        #[source]
        source: RateLimitError,
    },
    /// Number of empty slots for disks out of range.
    #[error("spare_disks is {0}, must be 0 to {MAX_SPARE_DISKS}")]
    SpareDisks(u8),
    /// Number of empty slots for network interfaces out of range.
    #[error("spare_nets is {0}, must be 0 to {MAX_SPARE_NETS}")]
    SpareNets(u8),
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
    /// Memory that does not consist of whole huge pages.
    #[error("mem_size_mib is {mem_size_mib}, must be a multiple of {page_mib} for memory.backing {backing}")]
    HugePages {
        /// Size of the memory.
        mem_size_mib: u32,
        /// Size of a huge page.
        page_mib: u32,
        /// What was asked for.
        backing: Backing,
    },
    /// A balloon for memory that can't be given back.
    #[error("a balloon needs memory.backing anonymous: huge pages of the pool can't be given back in parts")]
    BalloonBacking,
    /// A balloon that leaves too little.
    #[error("balloon.target_mib is {target_mib}, must leave {MIN_MEM_SIZE_MIB} MiB of {mem_size_mib}")]
    BalloonTarget {
        /// What the balloon is to hold.
        target_mib: u32,
        /// Size of the memory.
        mem_size_mib: u32,
    },
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

/// Where the guest's memory comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryConfig {
    /// Its pages.
    #[serde(default)]
    pub backing: Backing,
    /// Whether other processes can map it, as back ends of devices that live in processes of their own do.
    #[serde(default)]
    pub shared: bool,
    /// Whether the host gives all of it before the guest starts, so that it never has to wait for memory later.
    #[serde(default)]
    pub prefault: bool,
}

/// The pages of which the guest's memory consists.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Backing {
    /// Ordinary ones, taken from the host as the guest touches them. The sum of all guests may exceed the host's memory.
    #[default]
    #[serde(rename = "anonymous")]
    Anonymous,
    /// Of the host's pool of 2 MiB pages, reserved before the guest starts.
    #[serde(rename = "hugetlb_2m")]
    Hugetlb2M,
    /// Of the host's pool of 1 GiB pages, reserved before the guest starts.
    #[serde(rename = "hugetlb_1g")]
    Hugetlb1G,
}

impl Backing {
    /// Size of a page of the pool, in MiB.
    pub fn huge_page_mib(self) -> Option<u32> {
        match self {
            Self::Anonymous => None,
            Self::Hugetlb2M => Some(2),
            Self::Hugetlb1G => Some(1024),
        }
    }
}

impl std::fmt::Display for Backing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "anonymous",
            Self::Hugetlb2M => "hugetlb_2m",
            Self::Hugetlb1G => "hugetlb_1g",
        })
    }
}

/// The CPU that the guest sees; see [`crate::cpu::template`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CpuTemplate {
    /// What the host has, as far as KVM supports it and [`crate::cpu::policy`] lets it through.
    #[default]
    #[serde(rename = "host")]
    Host,
    /// The instructions of the x86-64 psABI's second level.
    #[serde(rename = "x86-64-v2")]
    V2,
    /// Of its third level: AVX2.
    #[serde(rename = "x86-64-v3")]
    V3,
    /// Of its fourth level: AVX-512.
    #[serde(rename = "x86-64-v4")]
    V4,
}

/// A balloon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BalloonConfig {
    /// How much memory the guest is to give up from the start, in MiB.
    #[serde(default)]
    pub target_mib: u32,
    /// Whether the guest tells of its memory. Yes, unless told otherwise.
    #[serde(default = "yes")]
    pub stats: bool,
    /// Whether the guest gives back free memory by itself. Yes, unless told otherwise.
    #[serde(default = "yes")]
    pub free_page_reporting: bool,
    /// The guest is not told of the balloon at its start, but by whoever steers it, with the place that
    /// [`BalloonState`](crate::virtio::balloon::BalloonState) has: so its boot does not wait for it.
    #[serde(default)]
    pub late: bool,
}

/// A disk: a raw file or block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskConfig {
    /// The serial number by which the guest knows the disk: 1 to 20 bytes of printable ASCII.
    pub id: String,
    /// Where it is.
    pub path: PathBuf,
    /// Whether writes are refused. The length of such a disk need not be a multiple of 512 bytes: it is filled up with
    /// zeros.
    pub read_only: bool,
    /// How its content is laid out. Never guessed from the content, which a guest may have written.
    #[serde(default)]
    pub format: DiskFormat,
    /// Number of queues, each with a thread: 1 to the number of vCPUs.
    #[serde(default = "one")]
    pub queues: u8,
    /// How much it may do in a time.
    #[serde(default)]
    pub limit: RateLimit,
}

impl DiskConfig {
    /// A raw disk with one queue and no limit.
    pub fn new(id: impl Into<String>, path: impl Into<PathBuf>, read_only: bool) -> Self {
        let (id, path) = (id.into(), path.into());
        Self { id, path, read_only, format: DiskFormat::Raw, queues: 1, limit: RateLimit::default() }
    }
}

/// How a disk's content is laid out in its file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskFormat {
    /// As it is.
    #[default]
    Raw,
}

/// Whether this can be a disk's id.
pub fn is_disk_id(id: &str) -> bool {
    (1..=MAX_DISK_ID_LEN).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
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

fn one() -> u8 {
    1
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
        self.validate_memory()?;
        if !self.cmdline.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
            return Err(ConfigError::Cmdline);
        }
        if let Some(uid @ (0 | u32::MAX)) = self.jail.as_ref().and_then(|jail| jail.uid) {
            return Err(ConfigError::JailUid(uid));
        }
        self.validate_disks()?;
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

    fn validate_memory(&self) -> Result<(), ConfigError> {
        let (mem_size_mib, backing) = (self.mem_size_mib, self.memory.backing);
        match backing.huge_page_mib() {
            Some(page_mib) if !mem_size_mib.is_multiple_of(page_mib) => {
                return Err(ConfigError::HugePages { mem_size_mib, page_mib, backing });
            }
            Some(_) if self.balloon.is_some() => return Err(ConfigError::BalloonBacking),
            _ => {}
        }
        self.balloon.as_ref().map_or(Ok(()), |balloon| self.validate_balloon_target(balloon.target_mib))
    }

    /// Checks how much memory a balloon is to hold.
    ///
    /// # Errors
    /// When it leaves the guest too little.
    pub fn validate_balloon_target(&self, target_mib: u32) -> Result<(), ConfigError> {
        let mem_size_mib = self.mem_size_mib;
        if target_mib > mem_size_mib.saturating_sub(MIN_MEM_SIZE_MIB) {
            return Err(ConfigError::BalloonTarget { target_mib, mem_size_mib });
        }
        Ok(())
    }
    fn validate_disks(&self) -> Result<(), ConfigError> {
        if self.spare_disks > MAX_SPARE_DISKS {
            return Err(ConfigError::SpareDisks(self.spare_disks));
        }
        let mut ids: HashSet<_> = self.spare_disk_names().collect();
        for disk in &self.disks {
            let id = &disk.id;
            if !is_disk_id(id) {
                return Err(ConfigError::DiskId(id.clone()));
            }
            if !ids.insert(id.clone()) {
                return Err(ConfigError::DuplicateDiskId(id.clone()));
            }
            if !(1..=self.vcpus).contains(&disk.queues) {
                return Err(ConfigError::DiskQueues { id: id.clone(), queues: disk.queues });
            }
            disk.limit.validate().map_err(|source| ConfigError::DiskLimit { id: id.clone(), source })?;
        }
        Ok(())
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
    use crate::{jail::SeccompMode, rate_limit::BucketConfig};

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
        let error = memory("hugetlb_1g").unwrap_err().to_string();
        assert_eq!(error, "mem_size_mib is 64, must be a multiple of 1024 for memory.backing hugetlb_1g");
        assert!(matches!(memory("swap"), Err(ConfigError::Parse(_))));
        assert!(matches!(with("cpu_template", "x86-64-v5".into()), Err(ConfigError::Parse(_))));
        assert!(matches!(with("cmdline", "a\nb".into()), Err(ConfigError::Cmdline)));
        assert!(matches!(with("jail", serde_json::json!({"uid": 0})), Err(ConfigError::JailUid(0))));
        let vsock = serde_json::json!({"guest_cid": 2, "socket": "/s"});
        assert!(matches!(with("vsock", vsock), Err(ConfigError::GuestCid(2))));
    }

    #[test]
    fn a_balloon_leaves_the_guest_enough_and_needs_ordinary_memory() {
        let json = |size: u32, target: u32, backing: &str| {
            let json = serde_json::json!({"kernel": "/k", "vcpus": 1, "mem_size_mib": size,
                "memory": {"backing": backing}, "balloon": {"target_mib": target}});
            VmConfig::from_json(&json.to_string())
        };
        let balloon = json(256, 192, "anonymous").unwrap().balloon.unwrap();
        assert_eq!(
            balloon,
            BalloonConfig { target_mib: 192, stats: true, free_page_reporting: true, late: false }
        );
        assert!(matches!(
            json(256, 193, "anonymous"),
            Err(ConfigError::BalloonTarget { target_mib: 193, mem_size_mib: 256 })
        ));
        assert!(matches!(json(64, 1, "anonymous"), Err(ConfigError::BalloonTarget { .. })));
        assert!(matches!(json(256, 0, "hugetlb_2m"), Err(ConfigError::BalloonBacking)));
    }

    #[test]
    fn disk_ids_are_checked() {
        let disks = |ids: &[&str]| {
            let disk = |id| serde_json::json!({"id": id, "path": "/d", "read_only": false});
            with("disks", ids.iter().map(disk).collect::<Vec<_>>().into())
        };
        assert!(disks(&["a", "twenty-bytes-of-id-xx"[..20].as_ref()]).is_ok());
        for bad in ["", "twenty-one-bytes-of-i", "a b", "ä"] {
            assert!(matches!(disks(&[bad]), Err(ConfigError::DiskId(id)) if id == bad));
        }
        assert!(matches!(disks(&["a", "b", "a"]), Err(ConfigError::DuplicateDiskId(id)) if id == "a"));
    }

    #[test]
    fn disks_are_raw_with_sensible_queues_and_limits() {
        let disk = |field: &str, value: serde_json::Value| {
            let mut disk = serde_json::json!({"id": "a", "path": "/d", "read_only": false});
            disk[field] = value;
            with("disks", vec![disk].into())
        };
        assert_eq!(disk("format", "raw".into()).unwrap().disks, [DiskConfig::new("a", "/d", false)]);
        let Err(ConfigError::Parse(error)) = disk("format", "qcow2".into()) else { panic!() };
        assert!(error.to_string().contains("unknown variant `qcow2`, expected `raw`"), "{error}");
        for queues in [0, 2] {
            assert!(matches!(disk("queues", queues.into()), Err(ConfigError::DiskQueues { .. })));
        }
        let limit = serde_json::json!({"ops": {"size": 0, "refill_ms": 1}});
        assert!(matches!(disk("limit", limit), Err(ConfigError::DiskLimit { .. })));
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
        assert!(matches!(result, Err(ConfigError::DuplicateDiskId(id)) if id == "spare0"));
    }

    #[test]
    fn an_unreadable_file_is_named() {
        let error = VmConfig::from_file(Path::new("/nonexistent/vm.json")).unwrap_err();
        assert_eq!(error.to_string(), "cannot read the configuration /nonexistent/vm.json");
    }
}
