//! One image out of an OCI image layout that holds several (image-spec, image-layout.md).

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::tree;

const NAME: &str = "org.opencontainers.image.ref.name";

/// Copies the image `name` into a layout of its own at `to`.
pub(crate) fn copy_image(layout: &Path, name: &str, to: &Path) -> Result<()> {
    let mut index: Value = read_json(&layout.join("index.json"))?;
    let manifests = index["manifests"].as_array_mut().context("the layout's index has no manifests")?;
    manifests.retain(|manifest| manifest["annotations"][NAME] == name);
    if manifests.is_empty() {
        bail!("{} has no image {name}", layout.display());
    }
    let mut wanted = Vec::new();
    digests(&index, &mut wanted);
    fs::create_dir_all(to.join("blobs/sha256"))?;
    fs::copy(layout.join("oci-layout"), to.join("oci-layout"))?;
    fs::write(to.join("index.json"), serde_json::to_vec(&index)?)?;
    while let Some((digest, is_json)) = wanted.pop() {
        let from = blob(layout, &digest)?;
        fs::copy(&from, blob(to, &digest)?).with_context(|| format!("cannot copy {}", from.display()))?;
        if is_json {
            digests(&read_json(&from)?, &mut wanted);
        }
    }
    Ok(())
}

/// Unpacks the layers of a layout's only image into `root`. For images of our own making only.
pub(crate) fn unpack(layout: &Path, root: &Path) -> Result<()> {
    let mut value = read_json(&layout.join("index.json"))?;
    while let Some(digest) = value["manifests"][0]["digest"].as_str() {
        value = read_json(&blob(layout, digest)?)?;
    }
    fs::create_dir_all(root)?;
    for layer in value["layers"].as_array().context("the image has no layers")? {
        let digest = layer["digest"].as_str().context("a layer has no digest")?;
        tree::succeed(Command::new("tar").arg("-xf").arg(blob(layout, digest)?).arg("-C").arg(root))?;
    }
    Ok(())
}

fn read_json(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))
}

fn blob(layout: &Path, digest: &str) -> Result<PathBuf> {
    let hex = digest.strip_prefix("sha256:").with_context(|| format!("{digest} is not by SHA-256"))?;
    Ok(layout.join("blobs/sha256").join(hex))
}

/// The descriptors below a value: their digests, and whether they are indexes or manifests themselves.
fn digests(value: &Value, found: &mut Vec<(String, bool)>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| digests(value, found)),
        Value::Object(fields) => {
            if let (Some(digest), Some(kind)) = (value["digest"].as_str(), value["mediaType"].as_str()) {
                found.push((digest.into(), kind.contains(".index.") || kind.contains(".manifest.")));
            }
            fields.values().for_each(|value| digests(value, found));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_image_is_copied_with_all_that_it_refers_to_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("blobs/sha256")).unwrap();
        let put = |name: &str, value: &Value| {
            fs::write(from.join("blobs/sha256").join(name), value.to_string()).unwrap();
        };
        let index = "application/vnd.oci.image.index.v1+json";
        let manifest = "application/vnd.oci.image.manifest.v1+json";
        put("a", &json!({"manifests": [{"digest": "sha256:b", "mediaType": manifest}]}));
        put(
            "b",
            &json!({"config": {"digest": "sha256:c", "mediaType": "application/config+json"},
            "layers": [{"digest": "sha256:d", "mediaType": "application/tar"}]}),
        );
        put("c", &json!("config"));
        put("d", &json!("layer"));
        put("e", &json!("of another"));
        fs::write(from.join("oci-layout"), "{}").unwrap();
        let images = json!({"manifests": [
            {"digest": "sha256:a", "mediaType": index, "annotations": {NAME: "one:latest"}},
            {"digest": "sha256:e", "mediaType": manifest, "annotations": {NAME: "two:latest"}}]});
        fs::write(from.join("index.json"), images.to_string()).unwrap();

        copy_image(&from, "one:latest", &to).unwrap();
        let mut copied: Vec<_> = fs::read_dir(to.join("blobs/sha256"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        copied.sort();
        assert_eq!(copied, ["a", "b", "c", "d"]);
        assert_eq!(read_json(&to.join("index.json")).unwrap()["manifests"].as_array().unwrap().len(), 1);
        assert!(copy_image(&from, "three:latest", &to).is_err());
    }
}
