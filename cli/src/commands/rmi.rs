//! `husk rmi`

use std::path::Path;

use anyhow::bail;
use husk_image::{Image, Reference, Store as Images};
use husk_sandbox::{
    paths::Dirs,
    store::{List, Record, Store},
    unpack,
};

use crate::{args::RmiArgs, human, output};

pub(crate) fn run(dirs: &Dirs, args: &RmiArgs) -> anyhow::Result<u8> {
    let images = Images::open(&dirs.images())?;
    let List { records, broken } = Store::open(dirs)?.list()?;
    let mut failed = false;
    for name in &args.images {
        let removed = remove(dirs, &images, name, &records, args.force, broken.is_empty());
        if let Err(error) = removed {
            // As Docker: one name that is wrong does not keep the others.
            output::print_error(&error);
            failed = true;
        }
    }
    Ok(u8::from(failed))
}

/// Removes a name, or an image by its id; `sweep`: and unpacked disks that no container needs.
fn remove(
    dirs: &Dirs,
    images: &Images,
    name: &str,
    records: &[Record],
    force: bool,
    sweep: bool,
) -> anyhow::Result<()> {
    let Some(image) = images.find(name)? else { bail!("No such image: {name}") };
    let same = images.list()?.into_iter().filter(|other| other.config_digest == image.config_digest);
    let names: Vec<Reference> = same.filter_map(|image| image.reference).collect();
    let by_id =
        image.config_digest.to_string().starts_with(name) || image.config_digest.hex().starts_with(name);
    if !force
        && (by_id || names.len() < 2)
        && let Some(user) = records.iter().find(|record| uses(record, &image))
    {
        bail!("{}", conflict(&image, name, by_id, user));
    }
    let doomed: Vec<String> = match by_id && force && !names.is_empty() {
        true => names.iter().map(ToString::to_string).collect(),
        false => vec![name.to_owned()],
    };
    for name in doomed {
        let report = images.remove(&name)?;
        for untagged in &report.untagged {
            output::print_line(&format!("Untagged: {}", untagged.familiar()))?;
        }
        for deleted in &report.deleted {
            output::print_line(&format!("Deleted: {deleted}"))?;
        }
        for disk_key in &report.freed_disks {
            let disk = unpack::disk_of(dirs, disk_key.hex());
            // A container that is there can be started without its image, but not without the disk.
            if sweep && !records.iter().any(|record| record.config.image.disk == disk) {
                unpack::forget(dirs, disk_key.hex())?;
            }
        }
    }
    Ok(())
}

/// Removes the unpacked disk of a container that is gone, if its image is gone, too, and no other container has it.
///
/// # Errors
/// When that can't be found out, or the disk can't be removed.
pub(crate) fn forget_disk(dirs: &Dirs, containers: &Store, disk: &Path) -> anyhow::Result<()> {
    let images = Images::open(&dirs.images())?.list()?;
    if images.iter().any(|image| unpack::disk_of(dirs, image.disk_key.hex()) == disk) {
        return Ok(());
    }
    let List { records, broken } = containers.list()?;
    let used = records.iter().any(|record| record.config.image.disk == disk);
    match disk.file_stem().and_then(|stem| stem.to_str()) {
        Some(disk_key) if !used && broken.is_empty() && unpack::disk_of(dirs, disk_key) == disk => {
            Ok(unpack::forget(dirs, disk_key)?)
        }
        _ => Ok(()),
    }
}

fn uses(record: &Record, image: &Image) -> bool {
    record.config.image.id == image.config_digest.to_string()
}

/// Docker's words.
fn conflict(image: &Image, name: &str, by_id: bool, user: &Record) -> String {
    let (container, image) = (human::short_id(&user.config.id), human::short_id(image.config_digest.hex()));
    if !by_id {
        return format!(
            "conflict: unable to remove repository reference \"{name}\" (must force) - container {container} \
             is using its referenced image {image}"
        );
    }
    let state = if user.state.status.needs_supervisor() { "running" } else { "stopped" };
    format!(
        "conflict: unable to delete {image} (must be forced) - image is being used by {state} container {container}"
    )
}
