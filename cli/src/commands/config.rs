//! `husk config`

use std::path::Path;

use husk_sandbox::config::{CONFIG_DIR, Config, Own};

use crate::{
    args::{ConfigArgs, ConfigCommand},
    output,
};

pub(crate) fn run(command: &ConfigCommand) -> anyhow::Result<u8> {
    let (ConfigCommand::Show(ConfigArgs { file }) | ConfigCommand::Validate(ConfigArgs { file })) = command;
    let config = Config::load(Path::new(CONFIG_DIR), file.clone().map(Own::File).as_ref())?;
    match command {
        ConfigCommand::Show(_) => output::print_line(config.to_toml().trim_end())?,
        ConfigCommand::Validate(_) => match file {
            Some(file) => output::print_line(&format!("{CONFIG_DIR} with {} is fine.", file.display()))?,
            None => output::print_line(&format!("{CONFIG_DIR} is fine."))?,
        },
    }
    Ok(0)
}
