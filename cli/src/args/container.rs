//! Options of what is done with containers that there are.

use std::path::PathBuf;

use clap::{ArgAction, Args};

use crate::{detach, units};

/// Containers alone.
#[derive(Debug, Args)]
pub(crate) struct ContainersArgs {
    /// Names or ids of containers
    #[arg(required = true, value_name = "CONTAINER")]
    pub(crate) containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// Attach standard output and error, and forward signals
    #[arg(short, long)]
    pub(crate) attach: bool,
    /// Attach the container's standard input
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Key sequence for detaching from the container
    #[arg(long, value_name = "KEYS", default_value = detach::DEFAULT)]
    pub(crate) detach_keys: detach::Keys,
    /// Names or ids of containers
    #[arg(required = true, value_name = "CONTAINER")]
    pub(crate) containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// Seconds to wait before the container is killed; -1: no limit
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS", allow_hyphen_values = true)]
    pub(crate) time: Option<i64>,
    /// Signal to send to the container
    #[arg(short, long, value_name = "SIGNAL")]
    pub(crate) signal: Option<String>,
    /// Names or ids of containers
    #[arg(required = true, value_name = "CONTAINER")]
    pub(crate) containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    /// Signal to send to the container
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    pub(crate) signal: String,
    /// Names or ids of containers
    #[arg(required = true, value_name = "CONTAINER")]
    pub(crate) containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// not-running, next-exit, or removed
    #[arg(long, value_enum, default_value_t = WaitCondition::NotRunning)]
    pub(crate) condition: WaitCondition,
    /// Names or ids of containers
    #[arg(required = true, value_name = "CONTAINER")]
    pub(crate) containers: Vec<String>,
}

/// What `husk wait` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum WaitCondition {
    /// It does not run
    NotRunning,
    /// Its next end
    NextExit,
    /// It is removed, with all that it had
    Removed,
}

#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// Force the removal of a running container (uses SIGKILL)
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Remove anonymous volumes associated with the container
    #[arg(short, long)]
    pub(crate) volumes: bool,
    /// Names or ids of containers
    #[arg(required = true, value_name = "CONTAINER")]
    pub(crate) containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// Run the command in the background
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Key sequence for detaching from the container
    #[arg(long, value_name = "KEYS", default_value = detach::DEFAULT)]
    pub(crate) detach_keys: detach::Keys,
    /// Set an environment variable; without a value, pass husk's own on
    #[arg(short, long, value_name = "K[=V]")]
    pub(crate) env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Keep standard input open
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the command all powers inside the container's machine
    #[arg(long)]
    pub(crate) privileged: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// User name or id, with an optional group
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Name or id of a container
    pub(crate) container: String,
    /// Command and arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    /// Key sequence for detaching from the container
    #[arg(long, value_name = "KEYS", default_value = detach::DEFAULT)]
    pub(crate) detach_keys: detach::Keys,
    /// Do not attach standard input
    #[arg(long)]
    pub(crate) no_stdin: bool,
    /// Pass signals that husk receives on to the process
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true",
          action = ArgAction::Set)]
    pub(crate) sig_proxy: bool,
    /// Name or id of a container
    pub(crate) container: String,
}

#[derive(Debug, Args)]
pub(crate) struct RenameArgs {
    /// Name or id of a container
    pub(crate) container: String,
    /// Its new name
    #[arg(value_parser = units::parse_name)]
    pub(crate) new_name: String,
}
