//! Networks that CNI plugins make: `--network cni:NAME` runs the chain of plugins that a configuration below
//! /etc/cni/net.d names, as the CNI specification (versions 0.3.1 to 1.1) says.
//!
//! Every ADD has its DEL, whatever dies in between: before the first plugin runs, a record of what it will take to undo
//! it is on disk, and [`Cni::repair`] undoes the records of the dead.

mod chain;
mod config;
mod plugin;
mod record;
mod result;
mod runtime;

use std::{io, path::PathBuf};

use husk_base::{IoError, dirs::PrivateDirError, json_file::JsonFileError};

pub use chain::{Attachment, Cni};
pub use config::NetworkConfig;
pub use result::{Dns, PluginError};
pub use runtime::{Bandwidth, Runtime};

/// Result of this module's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a CNI network could not be joined, checked or left.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No configuration has that name.
    #[error("no CNI network {name} in {}{}", dir.display(), known(names))]
    NoNetwork {
        /// The name asked for.
        name: String,
        /// Where was looked.
        dir: PathBuf,
        /// The names that are there.
        names: Vec<String>,
    },
    /// A configuration is wrong.
    #[error("the CNI configuration {} is not valid: {reason}", path.display())]
    Config {
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file operation failed.
    #[error(transparent)]
    Io(#[from] IoError),
    /// The folder of the records can't be made, or belongs to somebody else.
    #[error(transparent)]
    Directory(#[from] PrivateDirError),
    /// A record can't be read or written.
    #[error(transparent)]
    Record(#[from] JsonFileError),
    /// A plugin's program is not there.
    #[error(
        "the CNI plugin {plugin} is not in {}: install it (Debian: containernetworking-plugins)",
        paths(dirs)
    )]
    NoPlugin {
        /// The plugin.
        plugin: String,
        /// Where was looked.
        dirs: Vec<PathBuf>,
    },
    /// A plugin's program could not be run.
    #[error("cannot run the CNI plugin {}", program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A plugin reported an error.
    #[error("the CNI plugin {plugin} failed to {command}: {error}")]
    Plugin {
        /// The plugin.
        plugin: String,
        /// ADD, CHECK or DEL.
        command: &'static str,
        /// What it reported.
        error: PluginError,
    },
    /// A plugin failed without saying why in the way of the specification.
    #[error("the CNI plugin {plugin} failed to {command} ({status}){}", said(output))]
    Failed {
        /// The plugin.
        plugin: String,
        /// ADD, CHECK or DEL.
        command: &'static str,
        /// How it ended.
        status: std::process::ExitStatus,
        /// The beginning of what it printed.
        output: String,
    },
    /// A plugin succeeded, and printed what is no result.
    #[error("the CNI plugin {plugin} returned what is no CNI result: {reason}{}", said(output))]
    BadResult {
        /// The plugin.
        plugin: String,
        /// What is wrong.
        reason: String,
        /// The beginning of what it printed.
        output: String,
    },
    /// A plugin did not end in time, and was killed.
    #[error("the CNI plugin {plugin} did not end its {command} within {seconds} s")]
    Timeout {
        /// The plugin.
        plugin: String,
        /// ADD, CHECK or DEL.
        command: &'static str,
        /// The limit, in seconds.
        seconds: u64,
    },
    /// The container has such an interface already.
    #[error("container {container} has an interface {interface} of a CNI network already")]
    Exists {
        /// The container's id.
        container: String,
        /// The interface's name.
        interface: String,
    },
    /// A name that CNI does not allow.
    #[error("{what} {value:?} is not a valid one for CNI plugins")]
    Name {
        /// What it should be the name of.
        what: &'static str,
        /// The name.
        value: String,
    },
}

impl Error {
    fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let error = IoError::of(what, path);
        move |source: io::Error| Self::Io(error(source))
    }
}

fn known(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!(" (there are: {})", names.join(", ")) }
}

fn paths(dirs: &[PathBuf]) -> String {
    dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn said(output: &str) -> String {
    if output.is_empty() { String::new() } else { format!(": it printed {output:?}") }
}

#[cfg(test)]
mod tests;
