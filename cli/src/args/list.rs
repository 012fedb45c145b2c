//! Options of what is asked about containers: ps, logs, top, stats, port, events, info.

use clap::Args;

use super::Format;

#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Show all containers (default: just those that run)
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Only show ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Show n last created containers (includes all states)
    #[arg(short = 'n', long, value_name = "N", default_value_t = -1, allow_hyphen_values = true)]
    pub(crate) last: i64,
    /// Show the latest created container (includes all states)
    #[arg(short, long)]
    pub(crate) latest: bool,
    /// Show what containers take on the disk
    #[arg(short, long)]
    pub(crate) size: bool,
    /// Don't cut ids and commands off
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Filter by conditions, as status=exited or label=tier=front
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    /// table, table TEMPLATE, json, or a Go template
    #[arg(long)]
    pub(crate) format: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Follow the output
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Show lines since a time, as 2026-12-01T02:43:05Z, or 42m
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Show lines before a time, as 2026-12-01T02:43:05Z, or 42m
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// Number of lines to show from the end
    #[arg(short = 'n', long, value_name = "N", default_value = "all", allow_hyphen_values = true)]
    pub(crate) tail: String,
    /// Show when each line was written
    #[arg(short, long)]
    pub(crate) timestamps: bool,
    /// Show what the options of the logging driver add
    #[arg(long)]
    pub(crate) details: bool,
    /// Name or id of a container
    pub(crate) container: String,
}

#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Name or id of a container
    pub(crate) container: String,
    /// Options of ps(1): -ef, or -o with columns
    #[arg(value_name = "PS OPTIONS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) options: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// Show all containers (default: just those that run)
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Print one result and end
    #[arg(long)]
    pub(crate) no_stream: bool,
    /// Don't cut ids off
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// table, table TEMPLATE, json, or a Go template
    #[arg(long)]
    pub(crate) format: Option<String>,
    /// Names or ids of containers [default: all that run]
    #[arg(value_name = "CONTAINER")]
    pub(crate) containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PortArgs {
    /// How to print the result
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
    /// The container's name, or the start of its id
    pub(crate) container: String,
    /// Show only where this port of the container is published
    #[arg(value_name = "PRIVATE_PORT[/PROTO]")]
    pub(crate) private_port: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Show events since a time, as 2026-12-01T02:43:05Z, or 42m
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Stream events until a time
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// Filter by conditions, as container=web or event=die
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    /// json, or a Go template
    #[arg(long)]
    pub(crate) format: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// json, or a Go template
    #[arg(short, long)]
    pub(crate) format: Option<String>,
}
