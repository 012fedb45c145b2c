//! `husk pull`, and the pulling that `husk run` does.

use husk_image::{Image, PullOptions, Reference, Store};
use husk_sandbox::paths::Dirs;

use crate::{args::PullArgs, output, progress::Bars};

pub(crate) async fn run(dirs: &Dirs, args: &PullArgs) -> anyhow::Result<u8> {
    let reference: Reference = args.image.parse()?;
    let store = Store::open(&dirs.images())?;
    let image = pull(&store, &reference, args.quiet).await?;
    if args.quiet {
        output::print_line(&image.manifest_digest.to_string())?;
    } else {
        output::print_line(&format!("{reference}@{}", image.manifest_digest))?;
    }
    Ok(0)
}

/// Downloads an image, with bars on a terminal.
pub(crate) async fn pull(store: &Store, reference: &Reference, quiet: bool) -> anyhow::Result<Image> {
    let bars = if quiet { Bars::hidden() } else { Bars::on_terminal() };
    let image =
        husk_image::pull(store, reference, &PullOptions::default(), &|step| bars.update(&step)).await?;
    bars.clear();
    Ok(image)
}
