//! `husk load`

use std::io::{self, IsTerminal};

use husk_image::{LoadOptions, Source, Store};
use husk_sandbox::paths::Dirs;

use crate::{args::LoadArgs, output, progress::Bars};

pub(crate) fn run(dirs: &Dirs, args: &LoadArgs) -> anyhow::Result<u8> {
    let store = Store::open(&dirs.images())?;
    let mut stdin = io::stdin().lock();
    let source = match &args.input {
        Some(path) => Source::Path(path),
        None if stdin.is_terminal() => {
            anyhow::bail!("nothing to load: name an archive with --input, or send one to standard input")
        }
        None => Source::Reader(&mut stdin),
    };
    let bars = Bars::on_terminal();
    let images = husk_image::load(&store, source, &LoadOptions::default(), &|step| bars.update(&step))?;
    bars.clear();
    for image in images {
        let line = match &image.reference {
            Some(name) => format!("Loaded image: {}", name.familiar()),
            None => format!("Loaded image ID: {}", image.config_digest),
        };
        output::print_line(&line)?;
    }
    Ok(0)
}
