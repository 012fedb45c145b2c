//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Measures husk beside its peers, reports, compares, and guards against getting slower.
#[derive(Debug, Parser)]
#[command(name = "husk-bench", version)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Measure starts and ends, of bare VMs and of containers, beside QEMU, runc and crun
    Boot(BootArgs),
    /// Measure disk and network of the VMM beside QEMU's microvm, and a container's streams
    Io(IoArgs),
    /// Measure many pods at once: time and memory of each further one, a storm of starts, what is left behind
    Scale(ScaleArgs),
    /// Measure `ctr run`, exec and end of containers with husk and runc as containerd's runtimes
    Ctr(CtrArgs),
    /// Measure a directory shared with a guest, by husk-fs and by QEMU with virtiofsd
    Fs(RootArgs),
    /// Render results as a Markdown page and an HTML page with charts
    Report {
        /// Files that the suites wrote; together they make one report
        #[arg(required = true, value_name = "RESULT")]
        results: Vec<PathBuf>,
        /// Where report.md and report.html go
        #[arg(long, value_name = "DIR", default_value = "build/bench")]
        out: PathBuf,
    },
    /// Print what differs between two results of the same suite
    Compare {
        /// The result that is compared with
        before: PathBuf,
        /// The result that is compared
        after: PathBuf,
    },
    /// Measure some starts in the lab's deterministic mode, and fail when a stage grew beyond the baseline
    Gate(GateArgs),
    /// Measure as the gate does, and make the result the new baseline
    Baseline {
        /// Why figures changed; it is kept in the file
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Make it of these runs of the gate (build/bench/gate.json), instead of measuring
        #[arg(long, value_name = "RESULT")]
        from: Vec<PathBuf>,
        #[command(flatten)]
        gate: GateArgs,
    },
    /// What the other commands run where VMs can run
    #[command(hide = true)]
    Inside { plan: String, out: PathBuf },
}

#[derive(Debug, clap::Args)]
pub(crate) struct BootArgs {
    /// Measured rounds
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// Rounds before them, which are not counted
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) warmups: u32,
    /// Where the result goes
    #[arg(long, value_name = "FILE", default_value = "build/bench/boot.json")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) mode: ModeArgs,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    #[command(flatten)]
    pub(crate) peers: PeerArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct IoArgs {
    /// Measured rounds
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// Where the result goes
    #[arg(long, value_name = "FILE", default_value = "build/bench/io.json")]
    pub(crate) out: PathBuf,
    /// QEMU, for its microvm
    #[arg(long, value_name = "PATH", default_value = "qemu-system-x86_64")]
    pub(crate) qemu: PathBuf,
    #[command(flatten)]
    pub(crate) mode: ModeArgs,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ScaleArgs {
    /// Idle pods
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) pods: u32,
    /// Pods that are started at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) storm: u32,
    /// Starts and ends, one after the other
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) cycles: u32,
    /// Where the result goes
    #[arg(long, value_name = "FILE", default_value = "build/bench/scale.json")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) mode: ModeArgs,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CtrArgs {
    /// A further runtime to compare with, as io.containerd.kata.v2; its shim must be in the root file system's PATH
    #[arg(long, value_name = "NAME")]
    pub(crate) runtime: Vec<String>,
    #[command(flatten)]
    pub(crate) root: RootArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RootArgs {
    /// Measured rounds
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// Rounds before them, which are not counted
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) warmups: u32,
    /// A root file system for the lab that has the peers, as scripts/debian-root.sh makes; files are added to it.
    /// Where KVM can be used it is ignored [default: this machine's]
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// The directory where the result goes, as ctr.json or fs.json
    #[arg(long, value_name = "DIR", default_value = "build/bench")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) mode: ModeArgs,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ModeArgs {
    /// Measure in the lab's deterministic mode, also where KVM can be used
    #[arg(long, conflicts_with = "cpus")]
    pub(crate) deterministic: bool,
    /// CPUs to stay on, as in 2,3; on real KVM only [default: all]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) cpus: Vec<usize>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CommonArgs {
    /// The directory with husk's binaries [default: target/release]
    #[arg(long, value_name = "DIR")]
    pub(crate) bin: Option<PathBuf>,
    /// Seconds of wall time after which a run in the lab is given up
    #[arg(long, value_name = "SECS", default_value_t = 1800)]
    pub(crate) timeout: u64,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PeerArgs {
    /// QEMU, for its microvm
    #[arg(long, value_name = "PATH", default_value = "qemu-system-x86_64")]
    pub(crate) qemu: PathBuf,
    /// A program with runc's command line, as runsc; may be given several times [default: runc and crun]
    #[arg(long, value_name = "PATH", default_values = ["runc", "crun"])]
    pub(crate) oci_runtime: Vec<PathBuf>,
    /// umoci, which unpacks images
    #[arg(long, value_name = "PATH", default_value = "umoci")]
    pub(crate) umoci: PathBuf,
    /// Firecracker's binary
    #[arg(long, value_name = "PATH")]
    pub(crate) firecracker: Option<PathBuf>,
    /// Cloud Hypervisor's binary
    #[arg(long, value_name = "PATH")]
    pub(crate) cloud_hypervisor: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct GateArgs {
    /// The committed figures
    #[arg(long, value_name = "FILE", default_value = "benches/baseline.json")]
    pub(crate) baseline: PathBuf,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_baseline_needs_a_reason() {
        assert!(Args::try_parse_from(["husk-bench", "baseline"]).is_err());
        assert!(Args::try_parse_from(["husk-bench", "baseline", "--reason", "x"]).is_ok());
    }
}
