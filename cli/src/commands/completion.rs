//! `husk completion`: scripts that complete husk's command line in a shell.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::{
    args::{Cli, CompletionArgs},
    output,
};

pub(crate) fn run(args: &CompletionArgs) -> anyhow::Result<u8> {
    output::print_line(script(args.shell).trim_end())?;
    Ok(0)
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "husk", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn scripts_know_commands_and_options() {
        for shell in Shell::value_variants() {
            let script = script(*shell);
            for word in ["images", "network", "read-only"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }
}
