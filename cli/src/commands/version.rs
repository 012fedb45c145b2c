//! `husk version`

use serde::Serialize;

use crate::{
    args::{Format, FormatArgs},
    output,
};

#[derive(Serialize)]
struct Version {
    version: &'static str,
    os: &'static str,
    arch: &'static str,
}

pub(crate) fn run(args: &FormatArgs) -> anyhow::Result<u8> {
    let version = Version {
        version: env!("CARGO_PKG_VERSION"),
        os: std::env::consts::OS,
        arch: std::env::consts::ARCH,
    };
    match args.format {
        Format::Json => output::print_json(&version)?,
        Format::Table => {
            output::print_line(&format!("husk {} {}/{}", version.version, version.os, version.arch))?
        }
    }
    Ok(0)
}
