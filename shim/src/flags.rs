//! The command line by which containerd calls a shim: that of Go's `flag` package, where `-name` and `--name` mean the
//! same and a value is the next argument or follows an equals sign.

use std::path::PathBuf;

/// What containerd asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags {
    /// More to be logged.
    pub(crate) debug: bool,
    /// Print the version.
    pub(crate) version: bool,
    /// Print what this runtime is, for containerd 2.x.
    pub(crate) info: bool,
    /// containerd's namespace.
    pub(crate) namespace: String,
    /// The container's or the sandbox's id.
    pub(crate) id: String,
    /// The bundle, for `delete`.
    pub(crate) bundle: PathBuf,
    /// containerd's gRPC socket.
    pub(crate) address: String,
    /// `start`, `delete`, or empty: serve.
    pub(crate) action: String,
}

/// A flag that can't be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}; containerd calls this program, people use `husk` or `ctr`")]
pub(crate) struct FlagsError(String);

/// Parses the arguments after the program's name.
///
/// # Errors
/// When a flag is unknown, or lacks its value.
pub(crate) fn parse(args: impl IntoIterator<Item = String>) -> Result<Flags, FlagsError> {
    let mut flags = Flags::default();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let Some(flag) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) else {
            // Nothing follows the action.
            flags.action = arg;
            break;
        };
        let (name, given) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        let switch = match name {
            "debug" => Some(&mut flags.debug),
            "v" | "version" => Some(&mut flags.version),
            "info" => Some(&mut flags.info),
            _ => None,
        };
        if let Some(switch) = switch {
            *switch = !matches!(given.as_deref(), Some("false" | "f" | "0" | "F" | "FALSE" | "False"));
            continue;
        }
        let value =
            given.or_else(|| args.next()).ok_or_else(|| FlagsError(format!("-{name} needs a value")))?;
        match name {
            "namespace" => flags.namespace = value,
            "id" => flags.id = value,
            "bundle" => flags.bundle = value.into(),
            "address" => flags.address = value,
            // Events go to containerd by its socket, and the socket of the shim is inherited.
            "publish-binary" | "socket" => {}
            _ => return Err(FlagsError(format!("unknown flag -{name}"))),
        }
    }
    Ok(flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &str) -> Result<Flags, FlagsError> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn what_containerd_says_is_understood() {
        let line =
            "-namespace k8s.io -address /run/c.sock -publish-binary /bin/c -id c1 -debug -bundle /b delete";
        let flags = parse_line(line).unwrap();
        assert_eq!(
            flags,
            Flags {
                debug: true,
                namespace: "k8s.io".into(),
                id: "c1".into(),
                bundle: "/b".into(),
                address: "/run/c.sock".into(),
                action: "delete".into(),
                ..Flags::default()
            }
        );
    }

    #[test]
    fn both_forms_of_a_value_are_accepted() {
        let flags = parse_line("--namespace=moby --id=x -debug=false start").unwrap();
        assert_eq!((flags.namespace.as_str(), flags.id.as_str(), flags.debug), ("moby", "x", false));
        assert_eq!(flags.action, "start");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in ["-id", "-no-such-flag x"] {
            assert!(parse_line(line).is_err(), "{line}");
        }
    }
}
