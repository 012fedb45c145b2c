use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const GZIP_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

fn digest(of: &str) -> String {
    Digest::of(of.as_bytes()).to_string()
}

fn layer(size: impl Into<Value>) -> Value {
    json!({"mediaType": GZIP_LAYER, "digest": digest("layer"), "size": size.into()})
}

fn manifest(layers: &[Value]) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": {"mediaType": DOCKER_CONFIG, "digest": digest("config"), "size": 10},
        "layers": layers,
    })
}

fn parse(value: &Value) -> Result<Document> {
    Document::parse("x", value.to_string().as_bytes())
}

fn error(value: &Value) -> Error {
    parse(value).expect_err("must be refused")
}

#[test]
fn a_docker_manifest_is_taken() {
    let Document::Manifest(parsed) = parse(&manifest(&[layer(5), layer(5)])).unwrap() else { panic!() };
    assert_eq!(parsed.layers.len(), 2);
    assert_eq!(parsed.config.digest.to_string(), digest("config"));
    assert_eq!(parsed.content_size(), 15, "a repeated layer counts once");
}

#[test]
fn absurd_sizes_are_refused() {
    for bad in [json!(-1), json!(1.5), json!(1e30)] {
        let error = error(&manifest(&[layer(bad)]));
        assert!(
            matches!(&error, Error::Invalid { problem, .. } if problem.contains("has the size")),
            "{error}"
        );
    }
    assert!(matches!(error(&manifest(&[layer(MAX_LAYER + 1)])), Error::TooLarge { .. }));
    assert!(matches!(error(&manifest(&[layer(u64::MAX), layer(u64::MAX)])), Error::TooLarge { .. }));
    let full: Vec<Value> = (0..5).map(|_| layer(MAX_LAYER)).collect();
    assert!(matches!(error(&manifest(&full)), Error::TooLarge { actual, .. } if actual == 5 << 40));
    assert!(parse(&manifest(&full[..4])).is_ok());
    let many: Vec<Value> = (0..=MAX_LAYERS).map(|_| layer(1)).collect();
    assert!(matches!(error(&manifest(&many)), Error::TooLarge { actual: 129, .. }));
    let mut config = manifest(&[]);
    config["config"]["size"] = json!(MAX_CONFIG + 1);
    assert!(matches!(error(&config), Error::TooLarge { .. }));
}

#[test]
fn what_is_no_container_image_is_refused() {
    let mut foreign = layer(1);
    foreign["mediaType"] = json!("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
    assert!(error(&manifest(&[foreign])).to_string().contains("foreign layer"));
    let mut urls = layer(1);
    urls["urls"] = json!(["https://elsewhere/"]);
    assert!(error(&manifest(&[urls])).to_string().contains("foreign layer"));
    let mut odd = layer(1);
    odd["mediaType"] = json!("application/x-helm\u{1b}[31m");
    let error_text = error(&manifest(&[odd])).to_string();
    assert!(error_text.contains("unknown type application/x-helm?[31m"), "{error_text}");
    let mut chart = manifest(&[]);
    chart["config"]["mediaType"] = json!("application/vnd.cncf.helm.config.v1+json");
    assert!(error(&chart).to_string().contains("no container image"));
    let schema1 = json!({"schemaVersion": 1, "name": "x", "fsLayers": []});
    assert!(error(&schema1).to_string().contains("schema version 1"));
    let mut sha512 = layer(1);
    sha512["digest"] = json!(format!("sha512:{}", "0".repeat(128)));
    assert!(error(&manifest(&[sha512])).to_string().contains("sha256 only"));
}

#[test]
fn documents_that_can_be_read_two_ways_are_refused() {
    let mut both = manifest(&[]);
    both["manifests"] = json!([]);
    assert!(matches!(error(&both), Error::Invalid { .. }));
    let mut disguised = manifest(&[]);
    disguised["mediaType"] = json!(OCI_INDEX);
    assert!(matches!(error(&disguised), Error::Invalid { .. }));
    for bad in
        [json!({}), json!([]), json!({"schemaVersion": 2}), json!({"schemaVersion": 3, "manifests": []})]
    {
        assert!(matches!(error(&bad), Error::Invalid { .. }), "{bad}");
    }
}

fn index(platforms: &[(&str, &str, Option<&str>)]) -> Vec<IndexEntry> {
    let manifests: Vec<Value> = platforms
        .iter()
        .map(|(os, architecture, variant)| {
            json!({
                "mediaType": OCI_MANIFEST,
                "digest": digest(&format!("{os}{architecture}{variant:?}")),
                "size": 1,
                "platform": {"os": os, "architecture": architecture, "variant": variant},
            })
        })
        .collect();
    match parse(&json!({"schemaVersion": 2, "manifests": manifests})).unwrap() {
        Document::Index(entries) => entries,
        Document::Manifest(_) => panic!(),
    }
}

#[test]
fn the_best_build_is_chosen() {
    let entries = index(&[
        ("linux", "arm64", Some("v8")),
        ("linux", "amd64", Some("v3")),
        ("linux", "amd64", None),
        ("unknown", "unknown", None),
    ]);
    let chosen =
        |wanted: &str| choose("x", &entries, &wanted.parse().unwrap()).map(|e| e.descriptor.digest.clone());
    assert_eq!(chosen("linux/amd64").unwrap(), entries[2].descriptor.digest);
    assert_eq!(chosen("linux/amd64/v4").unwrap(), entries[1].descriptor.digest);
    assert_eq!(chosen("linux/arm64").unwrap(), entries[0].descriptor.digest);
    let Err(Error::NoSuchPlatform { offered, wanted, .. }) = chosen("linux/s390x") else { panic!() };
    assert_eq!(wanted, "linux/s390x");
    assert_eq!(offered, ["linux/amd64", "linux/amd64/v3", "linux/arm64/v8"]);
}

#[test]
fn an_entry_without_a_platform_is_the_last_choice() {
    let mut entries = index(&[("linux", "arm64", None), ("linux", "amd64", None)]);
    entries[0].platform = None;
    let chosen =
        |wanted: &str| choose("x", &entries, &wanted.parse().unwrap()).unwrap().descriptor.digest.clone();
    assert_eq!(chosen("linux/amd64"), entries[1].descriptor.digest);
    assert_eq!(chosen("linux/riscv64"), entries[0].descriptor.digest);
    entries[0].descriptor.media_type = "application/vnd.in-toto+json".to_owned();
    assert!(choose("x", &entries, &"linux/riscv64".parse().unwrap()).is_err());
}

#[test]
fn the_configuration_must_fit() {
    let Document::Manifest(parsed) = parse(&manifest(&[layer(5)])).unwrap() else { panic!() };
    let config = |ids: &[&str]| {
        json!({"architecture": "arm64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": ids}})
            .to_string()
    };
    let id = digest("tar");
    let (config_ok, ids) = parsed.parse_config("x", config(&[&id]).as_bytes()).unwrap();
    assert_eq!(ids[0].to_string(), id);
    for bad in [config(&[]), config(&[&id, &id]), config(&["sha256:0"]), "{}".to_owned(), String::new()] {
        assert!(matches!(parsed.parse_config("x", bad.as_bytes()), Err(Error::Invalid { .. })), "{bad}");
    }
    assert!(check_platform("x", &config_ok, &Platform::default()).is_err());
    assert!(check_platform("x", &config_ok, &"linux/arm64".parse().unwrap()).is_ok());
}

proptest! {
    #[test]
    fn garbage_is_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Document::parse("x", &bytes).is_err());
    }

    #[test]
    fn a_damaged_manifest_never_panics(at in 0usize..300, byte in any::<u8>()) {
        let mut bytes = manifest(&[layer(5)]).to_string().into_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = Document::parse("x", &bytes);
    }
}
