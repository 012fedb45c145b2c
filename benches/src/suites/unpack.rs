//! Images unpacked on the host, by `umoci unpack`: what husk does in a guest at an image's first run.

use std::{fs, path::Path, process::Command};

use anyhow::Result;

use super::{first::IMAGES, install::Installed, process::timed};
use crate::{
    layout,
    measure::{Round, Subject},
    plan::Plan,
};

const GROUP: &str = "The same images unpacked on the host: beside the stage \"unpacked\" above";

/// Each image unpacked, over and over; none without umoci.
pub(crate) fn subjects<'a>(plan: &'a Plan, installed: &'a Installed) -> Result<Vec<Subject<'a>>> {
    let Some(umoci) = &plan.peers.umoci else { return Ok(Vec::new()) };
    IMAGES.into_iter().map(|name| subject(umoci, &plan.files.images, installed, name)).collect()
}

fn subject<'a>(umoci: &'a Path, images: &Path, installed: &Installed, name: &str) -> Result<Subject<'a>> {
    let dir = installed.work.join(format!("umoci-{name}"));
    layout::copy_image(images, &format!("{name}:latest"), &dir)?;
    let image = format!("{}:{name}:latest", dir.display());
    let bundle = dir.join("bundle");
    let run = move || {
        if bundle.exists() {
            fs::remove_dir_all(&bundle)?;
        }
        let (total_ms, _) = timed(Command::new(umoci).args(["unpack", "--image", &image]).arg(&bundle))?;
        Ok(Round { total_ms, ..Round::default() })
    };
    Ok(Subject {
        id: format!("unpack-{name}-umoci"),
        group: GROUP,
        label: format!("{name}, umoci unpack"),
        own: false,
        run: Box::new(run),
    })
}
