//! `husk check`

use husk_sandbox::{check::check, paths::Dirs};

use crate::{
    args::{Format, FormatArgs},
    output,
};

/// Exit code when this machine can't run husk.
const UNUSABLE: u8 = 1;

pub(crate) fn run(dirs: &Dirs, args: &FormatArgs) -> anyhow::Result<u8> {
    let report = check(dirs);
    if args.format == Format::Json {
        output::print_json(&report)?;
    } else {
        for item in &report.items {
            let state = match (item.ok, item.required) {
                (true, _) => "ok",
                (false, true) => "MISSING",
                (false, false) => "warning",
            };
            output::print_line(&format!("{state:<8} {}: {}", item.name, item.found))?;
            if let Some(remedy) = &item.remedy {
                output::print_line(&format!("         -> {remedy}"))?;
            }
        }
        let verdict =
            if report.usable { "This machine can run husk." } else { "This machine can't run husk yet." };
        output::print_line(verdict)?;
    }
    Ok(if report.usable { 0 } else { UNUSABLE })
}
