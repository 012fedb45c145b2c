//! An image.

use husk_image::Image;
use serde_json::{Value, json};

/// An image, by all the names that it has.
pub(crate) fn image(image: &Image, names: &[husk_image::Reference]) -> Value {
    let tags: Vec<String> = names.iter().map(husk_image::Reference::familiar).collect();
    let mut digests: Vec<String> =
        names.iter().map(|name| format!("{}@{}", name.familiar_name(), image.manifest_digest)).collect();
    digests.dedup();
    let layers: Vec<String> = image.layers.iter().map(|layer| layer.diff_id.to_string()).collect();
    json!({
        "Id": image.config_digest.to_string(),
        "RepoTags": tags,
        "RepoDigests": digests,
        "Parent": "",
        "Comment": "",
        "Created": image.created,
        "DockerVersion": "",
        "Author": image.config.author().clone().unwrap_or_default(),
        "Config": image.config.config(),
        "Architecture": image.config.architecture().to_string(),
        "Os": image.config.os().to_string(),
        "Size": image.size,
        "GraphDriver": { "Name": super::DRIVER, "Data": null },
        "RootFS": { "Type": "layers", "Layers": layers },
        "Metadata": { "LastTagTime": super::NEVER },
    })
}
