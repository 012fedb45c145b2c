//! The command line, with Docker's names for Docker's things.

mod change;
mod container;
mod create;
mod inspect;
mod list;
mod texts;

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

pub(crate) use self::{
    change::{PruneContainersArgs, UpdateArgs},
    container::{
        AttachArgs, ContainersArgs, ExecArgs, KillArgs, RenameArgs, RmArgs, StartArgs, StopArgs, WaitArgs,
        WaitCondition,
    },
    create::{CreateArgs, CreateOptions, RunArgs},
    inspect::{InspectArgs, InspectContainersArgs, InspectImagesArgs, ObjectType},
    list::{EventsArgs, InfoArgs, LogsArgs, PortArgs, PsArgs, StatsArgs, TopArgs},
    texts::{CompletionArgs, ManArgs},
};
use crate::output;

/// Runs containers in microVMs of their own.
#[derive(Debug, Parser)]
#[command(name = "husk", version, max_term_width = 100, propagate_version = false)]
pub(crate) struct Cli {
    /// Keep all state below this directory [default: $HUSK_ROOT, or /var/lib/husk and /run/husk, or the user's own]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

// Only the options of the command that is given are built.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum Command {
    #[command(flatten)]
    Verb(ContainerVerb),
    /// List containers
    Ps(PsArgs),
    /// Describe containers, images and networks
    Inspect(InspectArgs),
    /// Print what happens to containers
    Events(EventsArgs),
    /// Manage containers
    #[command(subcommand)]
    Container(ContainerCommand),
    /// Download an image from a registry
    Pull(PullArgs),
    /// List images
    Images(FormatArgs),
    /// Remove images
    Rmi(RmiArgs),
    /// Load images from an archive or an OCI layout directory
    Load(LoadArgs),
    /// Manage images
    #[command(subcommand)]
    Image(ImageCommand),
    /// Manage networks
    #[command(subcommand)]
    Network(NetworkCommand),
    /// Start the containers whose restart policies say so, after the machine's boot
    Boot,
    /// Look at the configuration of pods in /etc/husk
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Make husk a runtime of containerd, Kubernetes and Docker, or no longer
    #[command(subcommand)]
    Containerd(ContainerdCommand),
    /// Tell whether this machine can run husk, and what to do if not
    Check(FormatArgs),
    /// Show what is known of husk and this machine
    Info(InfoArgs),
    /// Show the version
    Version(FormatArgs),
    /// Print the script that completes commands in a shell
    #[command(hide = true)]
    Completion(CompletionArgs),
    /// Write the manual's pages into a directory
    #[command(hide = true)]
    Man(ManArgs),
}

impl Command {
    /// The exit code of a failure of husk's own: 1, but 125 where 1 could be taken for a container's (as Docker has it).
    pub(crate) fn failure(&self) -> u8 {
        match self {
            Self::Verb(ContainerVerb::Run(_))
            | Self::Container(ContainerCommand::Verb(ContainerVerb::Run(_))) => output::FAILURE,
            _ => 1,
        }
    }
}

/// What `husk VERB` and `husk container VERB` do alike.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum ContainerVerb {
    /// Create and run a new container from an image
    Run(Box<RunArgs>),
    /// Create a new container
    Create(Box<CreateArgs>),
    /// Start one or more stopped containers
    Start(StartArgs),
    /// Stop one or more running containers
    Stop(StopArgs),
    /// Kill one or more running containers
    Kill(KillArgs),
    /// Restart one or more containers
    Restart(StopArgs),
    /// Pause all processes within one or more containers
    Pause(ContainersArgs),
    /// Unpause all processes within one or more containers
    Unpause(ContainersArgs),
    /// Block until one or more containers stop, then print their exit codes
    Wait(WaitArgs),
    /// Remove one or more containers
    Rm(RmArgs),
    /// Execute a command in a running container
    Exec(ExecArgs),
    /// Attach local standard input, output, and error streams to a running container
    Attach(AttachArgs),
    /// Rename a container
    Rename(RenameArgs),
    /// Change the limits and the restart policy of one or more containers
    Update(Box<UpdateArgs>),
    /// Print what a container has written
    Logs(LogsArgs),
    /// Show what containers use
    Stats(StatsArgs),
    /// Show the processes of a container
    Top(TopArgs),
    /// List the ports of the host that lead to a container
    Port(PortArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ContainerCommand {
    #[command(flatten)]
    Verb(ContainerVerb),
    /// List containers
    #[command(visible_aliases = ["list", "ps"])]
    Ls(PsArgs),
    /// Describe containers
    Inspect(InspectContainersArgs),
    /// Remove all stopped containers
    Prune(PruneContainersArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// List images
    #[command(visible_alias = "list")]
    Ls(FormatArgs),
    /// Download an image from a registry
    Pull(PullArgs),
    /// Remove images
    #[command(visible_alias = "remove")]
    Rm(RmiArgs),
    /// Load images from an archive or an OCI layout directory
    Load(LoadArgs),
    /// Describe images
    Inspect(InspectImagesArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print every setting, with the defaults of those that no file says
    Show(ConfigArgs),
    /// Tell whether the files make sense
    Validate(ConfigArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// A runtime class's own file, which is read after those in /etc/husk
    pub(crate) file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ContainerdCommand {
    /// Add the runtime class to the configurations, and print the manifest for Kubernetes
    Install(ContainerdArgs),
    /// Take the runtime class out of the configurations
    Uninstall(ContainerdArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ContainerdArgs {
    /// containerd's configuration
    #[arg(long, value_name = "FILE", default_value = crate::runtime_class::containerd::PATH)]
    pub(crate) containerd_config: PathBuf,
    /// Docker's configuration
    #[arg(long, value_name = "FILE", default_value = crate::runtime_class::docker::PATH)]
    pub(crate) docker_config: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct FormatArgs {
    /// How to print the result
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For programs
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PullPolicy {
    /// Always ask the registry
    Always,
    /// Only when the image is not there yet
    Missing,
    /// Never
    Never,
}

#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// The image to download
    pub(crate) image: String,
    /// Print nothing but the image's digest
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RmiArgs {
    /// Remove names of images that containers use
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Names or ids of the images
    #[arg(required = true)]
    pub(crate) images: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NetworkCommand {
    /// Make a network
    Create(CreateNetworkArgs),
    /// List networks
    Ls(FormatArgs),
    /// Show networks and who is on them, as JSON
    Inspect(NamesArgs),
    /// Remove networks
    Rm(NamesArgs),
    /// Remove all networks that no container uses, and what a power cut may have left of others
    Prune,
}

#[derive(Debug, Args)]
pub(crate) struct CreateNetworkArgs {
    /// Addresses of containers, as in 10.1.2.0/24 or fd00:1::/64; one of each family [default: free ones]
    #[arg(long, value_name = "PREFIX")]
    pub(crate) subnet: Vec<IpNet>,
    /// The host's address; one of each family [default: the first of the subnet]
    #[arg(long, value_name = "IP")]
    pub(crate) gateway: Vec<IpAddr>,
    /// No IPv6
    #[arg(long)]
    pub(crate) no_ipv6: bool,
    /// Most bytes of a packet [default: as the host's way out]
    #[arg(long, value_name = "BYTES")]
    pub(crate) mtu: Option<u32>,
    /// Containers reach each other only
    #[arg(long)]
    pub(crate) internal: bool,
    /// The network's name
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct NamesArgs {
    /// Names or ids
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// A tar archive (docker-archive or OCI) or an OCI layout directory [default: an archive on standard input]
    #[arg(short, long, value_name = "PATH")]
    pub(crate) input: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn run(line: &[&str]) -> Result<Box<RunArgs>, clap::Error> {
        match Cli::try_parse_from([&["husk", "run"], line].concat())?.command {
            Command::Verb(ContainerVerb::Run(args)) => Ok(args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_end_at_the_image() {
        let args = run(&["--rm", "-it", "-e", "A=1", "busybox", "ls", "-l", "--rm", "--", "-x"]).unwrap();
        assert!(args.options.rm && args.options.interactive && args.options.tty);
        assert_eq!(args.options.image, "busybox");
        assert_eq!(args.options.args, ["ls", "-l", "--rm", "--", "-x"]);
    }

    #[test]
    fn groups_have_the_same_verbs() {
        let parse = |line: &[&str]| Cli::try_parse_from([&["husk"], line].concat()).unwrap().command;
        for line in [&["container", "logs", "-f", "web"][..], &["logs", "-f", "web"]] {
            let (Command::Verb(verb) | Command::Container(ContainerCommand::Verb(verb))) = parse(line) else {
                panic!("{line:?}");
            };
            assert!(matches!(verb, ContainerVerb::Logs(LogsArgs { follow: true, .. })));
        }
        for line in [["container", "ls"], ["container", "list"], ["container", "ps"]] {
            assert!(matches!(parse(&line), Command::Container(ContainerCommand::Ls(_))));
        }
        assert!(matches!(
            parse(&["image", "rm", "-f", "x"]),
            Command::Image(ImageCommand::Rm(RmiArgs { force: true, .. }))
        ));
    }

    #[test]
    fn failures_are_no_exit_codes_of_containers() {
        for (line, code) in [
            (&["run", "x"][..], 125),
            (&["container", "run", "x"], 125),
            (&["logs", "x"], 1),
            (&["container", "logs", "x"], 1),
            (&["container", "prune"], 1),
            (&["ps"], 1),
            (&["pull", "x"], 1),
            (&["exec", "x", "true"], 1),
        ] {
            let cli = Cli::try_parse_from([&["husk"], line].concat()).unwrap();
            assert_eq!(cli.command.failure(), code, "{line:?}");
        }
    }

    #[test]
    fn values_are_checked() {
        let none = run(&["-m", "0", "--cpus", "0", "--rm=true", "--init=false", "x"]).unwrap().options;
        assert_eq!((none.memory, none.cpus, none.rm, none.init), (Some(0), Some(0), true, false));
        assert_eq!(run(&["-m", "64m", "--cpus", "1.5", "x"]).unwrap().options.memory, Some(64 << 20));
        for bad in [
            &["-m", "1m", "x"][..],
            &["-m", "lots", "x"],
            &["--cpus", "0.001", "x"],
            &["--rm=perhaps", "x"],
            &["--cpus", "-1", "x"],
            &["--name", "../x", "x"],
            &["--hostname", "a b", "x"],
            &["--tmpfs", "rel", "x"],
            &["--pull", "sometimes", "x"],
            &["--boot-timeout", "0", "x"],
            &["--no-such-option", "x"],
            &[],
        ] {
            assert!(run(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn timings_take_an_optional_format() {
        assert_eq!(run(&["--timings", "x"]).unwrap().timings, Some(Format::Table));
        assert_eq!(run(&["--timings=json", "x"]).unwrap().timings, Some(Format::Json));
        assert_eq!(run(&["x"]).unwrap().timings, None);
    }
}
