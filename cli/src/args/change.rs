//! Options of `husk update` and of what cleans up.

use clap::Args;

use super::create::RestartArg;
use crate::units;

#[derive(Debug, Args)]
pub(crate) struct UpdateArgs {
    /// Memory limit, as in 512m or 2g
    #[arg(short, long, value_name = "SIZE", value_parser = units::parse_memory)]
    pub(crate) memory: Option<u64>,
    /// Number of CPUs, as in 1.5
    #[arg(long, value_name = "N", value_parser = units::parse_cpus)]
    pub(crate) cpus: Option<u64>,
    /// Restart policy to apply when a container exits
    #[arg(long, value_name = "POLICY")]
    pub(crate) restart: Option<RestartArg>,
    #[command(flatten)]
    pub(crate) refused: RefusedLimits,
    /// Names or ids of containers
    #[arg(required = true, value_name = "CONTAINER")]
    pub(crate) containers: Vec<String>,
}

/// Docker's options that mean nothing for a container with a virtual machine of its own.
#[derive(Debug, Args)]
pub(crate) struct RefusedLimits {
    #[arg(long, hide = true)]
    blkio_weight: Option<String>,
    #[arg(long, hide = true)]
    cpu_period: Option<String>,
    #[arg(long, hide = true)]
    cpu_quota: Option<String>,
    #[arg(long, hide = true)]
    cpu_rt_period: Option<String>,
    #[arg(long, hide = true)]
    cpu_rt_runtime: Option<String>,
    #[arg(short, long, hide = true)]
    cpu_shares: Option<String>,
    #[arg(long, hide = true)]
    cpuset_cpus: Option<String>,
    #[arg(long, hide = true)]
    cpuset_mems: Option<String>,
    #[arg(long, hide = true)]
    memory_reservation: Option<String>,
    #[arg(long, hide = true, allow_hyphen_values = true)]
    memory_swap: Option<String>,
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pids_limit: Option<String>,
}

impl RefusedLimits {
    /// Why the first of them that was given is refused.
    pub(crate) fn reason(&self) -> Option<String> {
        const CPUS: &str = "a container has the CPUs of its virtual machine to itself: use --cpus";
        const MEMORY: &str = "a container has the memory of its virtual machine to itself: use --memory";
        let options = [
            ("blkio-weight", &self.blkio_weight, "a container has its disks to itself"),
            ("cpu-period", &self.cpu_period, CPUS),
            ("cpu-quota", &self.cpu_quota, CPUS),
            ("cpu-rt-period", &self.cpu_rt_period, CPUS),
            ("cpu-rt-runtime", &self.cpu_rt_runtime, CPUS),
            ("cpu-shares", &self.cpu_shares, CPUS),
            ("cpuset-cpus", &self.cpuset_cpus, CPUS),
            ("cpuset-mems", &self.cpuset_mems, MEMORY),
            ("memory-reservation", &self.memory_reservation, MEMORY),
            ("memory-swap", &self.memory_swap, "a virtual machine has no swap: use --memory"),
            (
                "pids-limit",
                &self.pids_limit,
                "a container has the processes of its virtual machine to itself",
            ),
        ];
        let given = options.iter().find(|(_, value, _)| value.is_some());
        given.map(|(name, _, reason)| format!("--{name} is not supported: {reason}"))
    }
}

#[derive(Debug, Args)]
pub(crate) struct PruneContainersArgs {
    /// Do not ask
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Only those that match, as until=24h, label=KEY or label!=KEY=VALUE
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
}
