//! `husk config`

use std::path::Path;

use husk_sandbox::config::{CONFIG_DIR, Config};

use crate::{args::ConfigCommand, output};

pub(crate) fn run(command: &ConfigCommand) -> anyhow::Result<u8> {
    let config = Config::load(Path::new(CONFIG_DIR))?;
    match command {
        ConfigCommand::Show => output::print_line(config.to_toml().trim_end())?,
        ConfigCommand::Validate => output::print_line(&format!("{CONFIG_DIR} is fine."))?,
    }
    Ok(0)
}
