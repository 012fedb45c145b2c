//! `husk man`: the manual's pages, made of what `--help` says.

use std::fs;

use anyhow::Context;
use clap::CommandFactory;

use crate::args::{Cli, ManArgs};

pub(crate) fn run(args: &ManArgs) -> anyhow::Result<u8> {
    let context = || format!("can't write the manual's pages to {}", args.dir.display());
    fs::create_dir_all(&args.dir).with_context(context)?;
    clap_mangen::generate_to(Cli::command(), &args.dir).with_context(context)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_a_page() {
        let dir = tempfile::tempdir().unwrap();
        let args = ManArgs { dir: dir.path().join("man1") };
        assert_eq!(run(&args).unwrap(), 0);
        for page in ["husk.1", "husk-run.1", "husk-network-create.1"] {
            let text = fs::read_to_string(args.dir.join(page)).unwrap();
            assert!(text.contains(".SH NAME"), "{page}");
        }
        // Hidden commands have none.
        assert!(!args.dir.join("husk-man.1").exists());
        let file = ManArgs { dir: args.dir.join("husk.1") };
        assert!(run(&file).is_err());
    }
}
