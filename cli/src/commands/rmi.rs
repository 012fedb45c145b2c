//! `husk rmi`

use husk_image::Store;
use husk_sandbox::{paths::Dirs, unpack};

use crate::{args::RmiArgs, output};

pub(crate) fn run(dirs: &Dirs, args: &RmiArgs) -> anyhow::Result<u8> {
    let store = Store::open(&dirs.images())?;
    let mut failed = false;
    for name in &args.images {
        match store.remove(name) {
            Ok(report) => {
                for chain_id in &report.freed_chain_ids {
                    unpack::forget(dirs, chain_id.hex())?;
                }
                output::print_line(&format!("removed {name}"))?;
            }
            // As Docker does: one name that is wrong does not keep the others.
            Err(error) => {
                output::print_error(&error.into());
                failed = true;
            }
        }
    }
    Ok(if failed { 1 } else { 0 })
}
