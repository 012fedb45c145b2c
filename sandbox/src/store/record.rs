//! What is known of a container: its configuration, which its clients write, and its state, which its supervisor writes.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use crate::{
    container::{ContainerOptions, ImageConfig},
    logs::{LogConfig, Subject},
    network::{Endpoint, NetworkMode, NetworkPlan},
    pod::Exit,
};

/// The version of the records that this husk writes. It reads no newer ones.
pub const VERSION: u32 = 1;
/// What is said of a container whose supervisor was killed, so that its exit code is not known (as Docker has it).
pub const LOST: i32 = 255;

/// Nanoseconds since 1970-01-01 UTC. 0: never.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The host's clock.
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// The moment; `None`: never, or not in a calendar's range.
    pub fn moment(self) -> Option<jiff::Timestamp> {
        jiff::Timestamp::from_nanosecond(self.0.into()).ok().filter(|_| self.is_set())
    }

    /// Whether it is a point in time at all.
    pub fn is_set(self) -> bool {
        self.0 != 0
    }

    /// The time since then, by the host's clock; nothing if that was set back.
    pub fn elapsed(self) -> Duration {
        Duration::from_nanos(Self::now().0.saturating_sub(self.0))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(at: SystemTime) -> Self {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }
}

/// What a container is. It stays when the container ends, until it is removed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// The record's version.
    pub version: u32,
    /// 64 hexadecimal digits.
    pub id: String,
    /// A name that no other container has.
    pub name: String,
    /// When it was created.
    pub created: Timestamp,
    /// Its image.
    pub image: ImageInfo,
    /// What the image says of how to run it.
    pub image_config: ImageConfig,
    /// What the user asked for.
    pub options: ContainerOptions,
    /// Its networks.
    pub network: NetworkPlan,
    /// What happens when it ends.
    pub restart: RestartPolicy,
    /// Where its output is kept.
    pub log: LogConfig,
    /// The container is removed when it ends.
    pub auto_remove: bool,
    /// Limit of what it may write, in MiB.
    pub storage_mib: u64,
    /// How long its VM may take to boot, and its agent to answer, in seconds.
    pub timeout_s: u64,
    /// The guest's kernel, instead of husk's own.
    pub kernel: Option<PathBuf>,
}

impl Config {
    /// What its log's lines say of it beside its output.
    pub fn log_attributes(&self) -> BTreeMap<String, String> {
        let labels: Vec<_> = self.labels().into_iter().collect();
        let subject = Subject {
            id: &self.id,
            name: &self.name,
            image_id: &self.image.id,
            image_name: &self.image.name,
            labels: &labels,
            env: &self.options.env,
        };
        self.log.attributes(&subject)
    }

    /// Its labels: the image's, and over them the user's.
    pub fn labels(&self) -> BTreeMap<String, String> {
        self.image_config.labels.iter().chain(&self.options.labels).cloned().collect()
    }

    /// The container whose pod it is in, by the name that the user gave.
    pub fn joins(&self) -> Option<&str> {
        match &self.network.options.mode {
            NetworkMode::Container(owner) => Some(owner),
            _ => None,
        }
    }
}

/// A container's image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageInfo {
    /// As the user named it.
    pub name: String,
    /// Digest of its configuration: Docker's image id.
    pub id: String,
    /// The disk with its unpacked layers.
    pub disk: PathBuf,
}

/// What happens when a container ends by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// It stays as it is.
    #[default]
    No,
    /// It is started again when its exit code is not 0; so many times at most in a row, if that is said.
    OnFailure(Option<u32>),
    /// It is started again, and with the machine.
    Always,
    /// As [`Self::Always`], but not with the machine if it was stopped before.
    UnlessStopped,
}

impl RestartPolicy {
    /// Whether a container that has ended with `code` is started again. `restarts`: how often in a row it was.
    pub fn applies(self, code: i32, restarts: u32) -> bool {
        match self {
            Self::No => false,
            Self::OnFailure(limit) => code != 0 && limit.is_none_or(|limit| restarts < limit),
            Self::Always | Self::UnlessStopped => true,
        }
    }
}

/// How far a container has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It has not been started.
    #[default]
    Created,
    /// Its process runs.
    Running,
    /// All its processes stand still.
    Paused,
    /// It has ended, and will be started again.
    Restarting,
    /// It is being removed.
    Removing,
    /// It has ended.
    Exited,
    /// It has ended, and something of it could not be cleaned up.
    Dead,
}

/// A word that is not the name of a [`Status`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a status is one of: created, running, paused, restarting, removing, exited, dead")]
pub struct UnknownStatus;

impl FromStr for Status {
    type Err = UnknownStatus;

    fn from_str(word: &str) -> Result<Self, UnknownStatus> {
        Self::ALL.into_iter().find(|status| status.name() == word).ok_or(UnknownStatus)
    }
}

impl Status {
    /// Each of them.
    const ALL: [Self; 7] = [
        Self::Created,
        Self::Running,
        Self::Paused,
        Self::Restarting,
        Self::Removing,
        Self::Exited,
        Self::Dead,
    ];

    /// Docker's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Removing => "removing",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }

    /// Whether a supervisor has to live for it.
    pub fn needs_supervisor(self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Restarting)
    }
}

/// How a container is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// How far it has come.
    pub status: Status,
    /// The id of the container whose pod it is or was in; its own, unless it has joined another.
    pub pod: String,
    /// The supervisor's process id.
    pub pid: u32,
    /// Exit code of its process, when it has ended.
    pub exit_code: i32,
    /// A process of it was killed for lack of memory.
    pub oom_killed: bool,
    /// Why it could not be started, or has ended without its process's doing.
    pub error: String,
    /// When its process was started last.
    pub started: Timestamp,
    /// When its process ended last.
    pub finished: Timestamp,
    /// How often its restart policy has started it again.
    pub restarts: u32,
    /// A user has stopped it, so a restart policy does not start it with the machine.
    pub stopped_by_user: bool,
    /// Its addresses, one entry a network.
    pub endpoints: Vec<Endpoint>,
    /// Ports of the host that lead to it.
    pub ports: Vec<husk_network::publish::PortMapping>,
    /// Lines of output that could not be kept.
    pub lost_log_lines: u64,
    /// Not all that it has written is on its disk: the guest did not write it before its end.
    pub unwritten: bool,
    /// What its disks wait for, while they do. Its pod says so; it is not kept.
    #[serde(skip)]
    pub stalled: Option<String>,
}

impl State {
    /// The container's process has ended.
    pub fn ended(&mut self, exit: &Exit) {
        self.status = Status::Exited;
        self.exit_code = i32::try_from(exit.code).unwrap_or(i32::MAX);
        self.oom_killed = exit.oom_killed;
        self.finished = exit.at.into();
        self.gone();
    }

    /// The supervisor was killed: nothing is known but that the container does not run.
    pub(super) fn lost(&mut self) {
        self.status = Status::Exited;
        self.exit_code = LOST;
        self.error = "its supervisor was killed".into();
        self.gone();
    }

    fn gone(&mut self) {
        self.pid = 0;
        self.endpoints.clear();
        self.ports.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restart_policies_are_dockers() {
        for (policy, code, restarts, again) in [
            (RestartPolicy::No, 1, 0, false),
            (RestartPolicy::OnFailure(None), 0, 0, false),
            (RestartPolicy::OnFailure(None), 1, 1000, true),
            (RestartPolicy::OnFailure(Some(2)), 1, 1, true),
            (RestartPolicy::OnFailure(Some(2)), 1, 2, false),
            (RestartPolicy::Always, 0, 5, true),
            (RestartPolicy::UnlessStopped, 0, 5, true),
        ] {
            assert_eq!(policy.applies(code, restarts), again, "{policy:?} {code} {restarts}");
        }
    }

    #[test]
    fn statuses_have_names() {
        for status in Status::ALL {
            assert_eq!(status.name().parse(), Ok(status));
        }
        assert_eq!("Running".parse::<Status>(), Err(UnknownStatus));
    }

    #[test]
    fn a_clock_that_was_set_back_makes_no_negative_times() {
        let later = Timestamp(Timestamp::now().0 + 1_000_000_000_000);
        assert_eq!(later.elapsed(), Duration::ZERO);
        assert!(!Timestamp::default().is_set());
    }
}
