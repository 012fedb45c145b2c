//! The rows of Docker's lists: fields that `--format` may name, titles, and the columns of the default table.

use serde::Serialize;

use super::Titles;

/// A container in `ps`.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ContainerRow {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    pub(crate) names: String,
    pub(crate) image: String,
    /// In quotes: see [`crate::human::command`].
    pub(crate) command: String,
    /// See [`crate::times::created_at`].
    pub(crate) created_at: String,
    /// With `ago`: see [`crate::human::ago`].
    pub(crate) running_for: String,
    /// See [`crate::ports::ports`].
    pub(crate) ports: String,
    /// One word: see [`crate::status::State`].
    pub(crate) state: String,
    /// See [`crate::status::Status::text`].
    pub(crate) status: String,
    pub(crate) size: String,
    /// `a=1,b=2`: see [`crate::human::labels`].
    pub(crate) labels: String,
    pub(crate) mounts: String,
    pub(crate) local_volumes: String,
    pub(crate) networks: String,
}

impl ContainerRow {
    pub(crate) const TABLE: &str =
        r"{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}";
    /// The table of `ps --size`.
    pub(crate) const TABLE_WITH_SIZE: &str =
        r"{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}\t{{.Size}}";
    pub(crate) const TITLES: &Titles = &[
        ("ID", "CONTAINER ID"),
        ("Names", "NAMES"),
        ("Image", "IMAGE"),
        ("Command", "COMMAND"),
        ("CreatedAt", "CREATED AT"),
        ("RunningFor", "CREATED"),
        ("Ports", "PORTS"),
        ("State", "STATE"),
        ("Status", "STATUS"),
        ("Size", "SIZE"),
        ("Labels", "LABELS"),
        ("Mounts", "MOUNTS"),
        ("LocalVolumes", "LOCAL VOLUMES"),
        ("Networks", "NETWORKS"),
    ];
}

/// An image in `images`. What is not known is `<none>` or `N/A`.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ImageRow {
    pub(crate) repository: String,
    pub(crate) tag: String,
    pub(crate) digest: String,
    #[serde(rename = "ID")]
    pub(crate) id: String,
    /// With `ago`: see [`crate::human::ago`].
    pub(crate) created_since: String,
    pub(crate) created_at: String,
    /// With 3 digits: see [`crate::human::size`].
    pub(crate) size: String,
    pub(crate) containers: String,
    pub(crate) virtual_size: String,
    pub(crate) shared_size: String,
    pub(crate) unique_size: String,
}

#[cfg_attr(not(test), expect(dead_code, reason = "for the list of images"))]
impl ImageRow {
    pub(crate) const TABLE: &str = r"{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{if .CreatedSince}}{{.CreatedSince}}{{else}}N/A{{end}}\t{{.Size}}";
    /// The table of `images --digests`.
    pub(crate) const TABLE_WITH_DIGESTS: &str = r"{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{if .CreatedSince}}{{.CreatedSince}}{{else}}N/A{{end}}\t{{.Size}}";
    pub(crate) const TITLES: &Titles = &[
        ("Repository", "REPOSITORY"),
        ("Tag", "TAG"),
        ("Digest", "DIGEST"),
        ("ID", "IMAGE ID"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("Size", "SIZE"),
        ("Containers", "CONTAINERS"),
        ("VirtualSize", "SIZE"),
        ("SharedSize", "SHARED SIZE"),
        ("UniqueSize", "UNIQUE SIZE"),
    ];
}

/// A network in `network ls`. Truths are the words `true` and `false`.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct NetworkRow {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) driver: String,
    pub(crate) scope: String,
    #[serde(rename = "IPv6")]
    pub(crate) ipv6: String,
    pub(crate) internal: String,
    pub(crate) labels: String,
    pub(crate) created_at: String,
}

#[cfg_attr(not(test), expect(dead_code, reason = "for the list of networks"))]
impl NetworkRow {
    pub(crate) const TABLE: &str = r"{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}";
    pub(crate) const TITLES: &Titles = &[
        ("ID", "NETWORK ID"),
        ("Name", "NAME"),
        ("Driver", "DRIVER"),
        ("Scope", "SCOPE"),
        ("IPv6", "IPV6"),
        ("Internal", "INTERNAL"),
        ("Labels", "LABELS"),
        ("CreatedAt", "CREATED AT"),
    ];
}

/// A volume in `volume ls`. What is not known is `N/A`.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct VolumeRow {
    pub(crate) name: String,
    pub(crate) driver: String,
    pub(crate) scope: String,
    pub(crate) mountpoint: String,
    pub(crate) labels: String,
    pub(crate) links: String,
    pub(crate) size: String,
    pub(crate) availability: String,
    pub(crate) group: String,
    pub(crate) status: String,
}

#[cfg_attr(not(test), expect(dead_code, reason = "for the list of volumes"))]
impl VolumeRow {
    pub(crate) const TABLE: &str = r"{{.Driver}}\t{{.Name}}";
    pub(crate) const TITLES: &Titles = &[
        ("Name", "VOLUME NAME"),
        ("Driver", "DRIVER"),
        ("Scope", "SCOPE"),
        ("Mountpoint", "MOUNTPOINT"),
        ("Labels", "LABELS"),
        ("Links", "LINKS"),
        ("Size", "SIZE"),
        ("Availability", "AVAILABILITY"),
        ("Group", "GROUP"),
        ("Status", "STATUS"),
    ];
}

/// A container in `stats`.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct StatsRow {
    /// The name or id that the user gave.
    pub(crate) container: String,
    #[serde(rename = "ID")]
    pub(crate) id: String,
    pub(crate) name: String,
    /// See [`crate::human::percent`].
    #[serde(rename = "CPUPerc")]
    pub(crate) cpu_perc: String,
    /// Used and limit, as in `1.5MiB / 1.9GiB`: see [`crate::human::bytes_size`].
    pub(crate) mem_usage: String,
    pub(crate) mem_perc: String,
    /// Received and sent, as in `1.2kB / 0B`: see [`crate::human::size`], with 3 digits.
    #[serde(rename = "NetIO")]
    pub(crate) net_io: String,
    /// Read and written.
    #[serde(rename = "BlockIO")]
    pub(crate) block_io: String,
    #[serde(rename = "PIDs")]
    pub(crate) pids: String,
}

impl StatsRow {
    pub(crate) const TABLE: &str =
        r"{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}";
    pub(crate) const TITLES: &Titles = &[
        ("Container", "CONTAINER"),
        ("ID", "CONTAINER ID"),
        ("Name", "NAME"),
        ("CPUPerc", "CPU %"),
        ("MemUsage", "MEM USAGE / LIMIT"),
        ("MemPerc", "MEM %"),
        ("NetIO", "NET I/O"),
        ("BlockIO", "BLOCK I/O"),
        ("PIDs", "PIDS"),
    ];
}
