//! `husk images`

use husk_image::Store;
use husk_sandbox::{paths::Dirs, unpack};
use serde::Serialize;

use crate::{
    args::{Format, FormatArgs},
    human, output,
};

#[derive(Serialize)]
struct Row {
    reference: Option<String>,
    id: String,
    digest: String,
    created: Option<String>,
    size_bytes: u64,
    unpacked: bool,
}

pub(crate) fn run(dirs: &Dirs, args: &FormatArgs) -> anyhow::Result<u8> {
    let images = Store::open(&dirs.images())?.list()?;
    let rows: Vec<Row> = images
        .iter()
        .map(|image| Row {
            reference: image.reference.as_ref().map(|reference| reference.familiar().to_string()),
            id: image.config_digest.hex().to_owned(),
            digest: image.manifest_digest.to_string(),
            created: image.created.clone(),
            size_bytes: image.size,
            unpacked: unpack::disk_of(dirs, image.disk_key.hex()).exists(),
        })
        .collect();
    if args.format == Format::Json {
        output::print_json(&rows)?;
        return Ok(0);
    }
    let heading = ["IMAGE", "ID", "CREATED", "SIZE", "UNPACKED"].map(String::from);
    let table: Vec<_> = std::iter::once(heading).chain(rows.into_iter().map(cells)).collect();
    output::print_table(&table)?;
    Ok(0)
}

fn cells(row: Row) -> [String; 5] {
    let created = row.created.unwrap_or_default();
    [
        row.reference.unwrap_or_else(|| "<none>".into()),
        husk_base::id::short(&row.id).to_owned(),
        // The date is enough for a table.
        created.split('T').next().unwrap_or_default().to_owned(),
        human::size(row.size_bytes, 3),
        if row.unpacked { "yes" } else { "no" }.into(),
    ]
}
