//! Options of `husk run` and `husk create`.

use std::{path::PathBuf, str::FromStr};

use clap::{ArgAction, Args};
use husk_sandbox::{container::Tmpfs, logs::LogConfig, store::RestartPolicy};

use super::{Format, PullPolicy};
use crate::{network::NetworkArgs, units};

/// What both have.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct CreateOptions {
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    pub(crate) help: Option<bool>,
    /// Automatically remove the container when it exits
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true",
          hide_default_value = true, hide_possible_values = true, action = ArgAction::Set)]
    pub(crate) rm: bool,
    /// Keep standard input open, even if not attached
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the container a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Set an environment variable; without a value, pass husk's own on
    #[arg(short, long, value_name = "K[=V]")]
    pub(crate) env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Set a label on the container
    #[arg(short, long, value_name = "K[=V]")]
    pub(crate) label: Vec<String>,
    /// Read labels from a file
    #[arg(long, value_name = "FILE")]
    pub(crate) label_file: Vec<PathBuf>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<PathBuf>,
    /// User name or id, with an optional group
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// Replace the image's entry point
    #[arg(long, value_name = "COMMAND")]
    pub(crate) entrypoint: Option<String>,
    /// Give the container a name
    #[arg(long, value_parser = units::parse_name)]
    pub(crate) name: Option<String>,
    /// The container's host name
    #[arg(short = 'h', long, value_parser = units::parse_hostname)]
    pub(crate) hostname: Option<String>,
    /// Number of CPUs, as in 1.5
    #[arg(long, value_name = "N", value_parser = units::parse_cpus)]
    pub(crate) cpus: Option<u64>,
    /// Memory limit, as in 512m or 2g
    #[arg(short, long, value_name = "SIZE", value_parser = units::parse_memory)]
    pub(crate) memory: Option<u64>,
    /// Make the container's root file system read-only
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true",
          hide_default_value = true, hide_possible_values = true, action = ArgAction::Set)]
    pub(crate) read_only: bool,
    /// Run an init inside the container that forwards signals and reaps processes
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true",
          hide_default_value = true, hide_possible_values = true, action = ArgAction::Set)]
    pub(crate) init: bool,
    /// Mount a tmpfs
    #[arg(long, value_name = "PATH[:OPTIONS]")]
    pub(crate) tmpfs: Vec<Tmpfs>,
    /// Restart policy to apply when the container exits: no, on-failure[:N], always, unless-stopped
    #[arg(long, value_name = "POLICY", default_value = "no")]
    pub(crate) restart: RestartArg,
    /// Signal to stop the container
    #[arg(long, value_name = "SIGNAL", value_parser = units::parse_signal_name)]
    pub(crate) stop_signal: Option<String>,
    /// Seconds to wait for the container to stop before it is killed; -1: no limit
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true)]
    pub(crate) stop_timeout: Option<i64>,
    /// Logging driver for the container: json-file, local or none
    #[arg(long, value_name = "DRIVER", default_value = "json-file")]
    pub(crate) log_driver: String,
    /// An option of the logging driver, as max-size=10m
    #[arg(long, value_name = "K=V")]
    pub(crate) log_opt: Vec<String>,
    /// Write the container's id to a file
    #[arg(long, value_name = "FILE")]
    pub(crate) cidfile: Option<PathBuf>,
    /// When to download the image
    #[arg(long, value_enum, default_value_t = PullPolicy::Missing)]
    pub(crate) pull: PullPolicy,
    /// Limit of the unpacked image, and of what the container may write
    #[arg(long, value_name = "SIZE", value_parser = units::parse_storage, default_value = "10g")]
    pub(crate) storage_size: u64,
    /// Boot this kernel instead of husk's own
    #[arg(long, value_name = "VMLINUX")]
    pub(crate) kernel: Option<PathBuf>,
    /// How long VM and agent may take to answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = husk_sandbox::vm::DEFAULT_TIMEOUT_S,
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) boot_timeout: u64,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    /// The image to run
    pub(crate) image: String,
    /// Command and arguments for the container
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
}

impl CreateOptions {
    /// The container's log.
    ///
    /// # Errors
    /// When driver or options are unknown.
    pub(crate) fn log(&self) -> anyhow::Result<LogConfig> {
        Ok(LogConfig::parse(&self.log_driver, &self.log_opt)?)
    }
}

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    pub(crate) options: CreateOptions,
}

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct RunArgs {
    /// Run the container in the background and print its id
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Key sequence for detaching from the container
    #[arg(long, value_name = "KEYS", default_value = crate::detach::DEFAULT)]
    pub(crate) detach_keys: crate::detach::Keys,
    /// Pass signals that husk receives on to the container
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true",
          action = ArgAction::Set)]
    pub(crate) sig_proxy: bool,
    /// Print when each stage was reached, to standard error
    #[arg(long, value_name = "FORMAT", num_args = 0..=1, require_equals = true,
          default_missing_value = "table")]
    pub(crate) timings: Option<Format>,
    #[command(flatten)]
    pub(crate) options: CreateOptions,
}

/// Docker's form of a restart policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RestartArg(pub(crate) RestartPolicy);

impl FromStr for RestartArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, count) = text.split_once(':').unwrap_or((text, ""));
        let policy = match (name, count) {
            ("no" | "", "") => RestartPolicy::No,
            ("always", "") => RestartPolicy::Always,
            ("unless-stopped", "") => RestartPolicy::UnlessStopped,
            ("on-failure", "") => RestartPolicy::OnFailure(None),
            ("on-failure", count) => {
                let count = count.parse().map_err(|_| "maximum retry count must be an integer")?;
                RestartPolicy::OnFailure(Some(count).filter(|count| *count > 0))
            }
            ("no" | "always" | "unless-stopped", _) => {
                return Err(
                    "maximum retry count cannot be used with restart policy other than on-failure".into()
                );
            }
            _ => {
                return Err(format!(
                    "invalid restart policy: unknown policy '{name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
                ));
            }
        };
        Ok(Self(policy))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restart_policies_have_dockers_form() {
        for (text, policy) in [
            ("no", RestartPolicy::No),
            ("always", RestartPolicy::Always),
            ("unless-stopped", RestartPolicy::UnlessStopped),
            ("on-failure", RestartPolicy::OnFailure(None)),
            ("on-failure:3", RestartPolicy::OnFailure(Some(3))),
        ] {
            assert_eq!(text.parse(), Ok(RestartArg(policy)), "{text}");
        }
        for wrong in ["sometimes", "always:2", "on-failure:x", "on-failure:-1"] {
            assert!(wrong.parse::<RestartArg>().is_err(), "{wrong}");
        }
    }
}
