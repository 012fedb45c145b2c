use std::io::Write;
use std::sync::Mutex;

use serde_json::{Value, json};

use super::archive::resolve;
use super::*;
use crate::Compression;

/// A tar archive being made: (name, content) in order.
struct Tar(tar::Builder<Vec<u8>>);

impl Tar {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    fn file(mut self, name: &str, content: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        // Names that the builder itself would refuse are wanted too.
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    fn link(mut self, kind: tar::EntryType, name: &str, target: &str) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        header.set_entry_type(kind);
        self.0.append_link(&mut header, name, target).unwrap();
        self
    }

    fn done(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn config(diff_ids: &[&[u8]], architecture: &str) -> Vec<u8> {
    let diff_ids: Vec<Digest> = diff_ids.iter().map(|layer| Digest::of(layer)).collect();
    json!({"architecture": architecture, "os": "linux", "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}})
    .to_string()
    .into_bytes()
}

struct Fixture {
    _dir: tempfile::TempDir,
    store: Store,
    events: Mutex<Vec<Progress>>,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        Self { _dir: dir, store, events: Mutex::default() }
    }

    fn load(&self, mut bytes: &[u8]) -> Result<Vec<Image>> {
        self.load_from(Source::Reader(&mut bytes))
    }

    fn load_from(&self, source: Source<'_>) -> Result<Vec<Image>> {
        let loaded = load(&self.store, source, &LoadOptions::default(), &|event| {
            self.events.lock().unwrap().push(event)
        });
        let left: Vec<_> = std::fs::read_dir(self.store.ingest_dir()).unwrap().collect();
        assert!(left.is_empty(), "nothing is left in staging: {left:?}");
        loaded
    }
}

fn name(image: &Image) -> Option<String> {
    image.reference.as_ref().map(Reference::familiar)
}

/// A legacy `docker save` archive: two tags, a repeated layer as a symbolic link.
fn docker_archive() -> Vec<u8> {
    let layer = Tar::new().file("etc/x", b"x").done();
    let manifest = json!([{"Config": "c.json", "RepoTags": ["busybox:1", "h.io/b:2"],
        "Layers": ["a/layer.tar", "b/layer.tar"]}]);
    Tar::new()
        .file("a/VERSION", b"1.0")
        .file("a/layer.tar", &layer)
        .link(tar::EntryType::Symlink, "b/layer.tar", "../a/layer.tar")
        .file("c.json", &config(&[&layer, &layer], "amd64"))
        .file("manifest.json", manifest.to_string().as_bytes())
        .done()
}

#[test]
fn a_docker_archive_is_loaded_once_per_tag() {
    let fixture = Fixture::new();
    for bytes in [docker_archive(), gzip(&docker_archive())] {
        let images = fixture.load(&bytes).unwrap();
        let names: Vec<_> = images.iter().filter_map(name).collect();
        assert_eq!(names, ["busybox:1", "h.io/b:2"]);
        assert_eq!(images[0].layers.len(), 2);
        assert_eq!(images[0].layers[0].compression, Compression::None);
        assert_eq!(images[0].layers[0].diff_id, images[0].layers[0].digest);
        assert_eq!(images[0].defaults().cmd, ["sh"]);
    }
    assert_eq!(fixture.store.list().unwrap().len(), 2);
    let states: Vec<BlobState> = fixture.events.lock().unwrap().iter().map(|e| e.state).collect();
    assert_eq!(states, [BlobState::Done, BlobState::Exists, BlobState::Exists, BlobState::Exists]);
}

#[test]
fn compressed_layers_stay_as_they_are() {
    let fixture = Fixture::new();
    let layer = Tar::new().file("x", b"x").done();
    let zipped = gzip(&layer);
    let manifest = json!([{"Config": "c.json", "RepoTags": null, "Layers": ["./l.tar.gz"]}]);
    let archive = Tar::new()
        .file("./l.tar.gz", &zipped)
        .file("c.json", &config(&[&layer], "amd64"))
        .file("manifest.json", manifest.to_string().as_bytes())
        .done();
    let images = fixture.load(&archive).unwrap();
    assert_eq!(images.len(), 1);
    assert_eq!(images[0].reference, None);
    assert_eq!(images[0].layers[0].compression, Compression::Gzip);
    assert_eq!(images[0].layers[0].digest, Digest::of(&zipped));
    assert_eq!(images[0].layers[0].diff_id, Digest::of(&layer));
    let found = fixture.store.find(&images[0].config_digest.hex()[..10]).unwrap().unwrap();
    assert_eq!(found, images[0]);
}

#[test]
fn a_layer_that_is_not_the_one_meant_is_refused() {
    let fixture = Fixture::new();
    let manifest = json!([{"Config": "c.json", "RepoTags": ["a"], "Layers": ["l"]}]).to_string();
    let archive = Tar::new()
        .file("l", b"changed")
        .file("c.json", &config(&[b"as it was"], "amd64"))
        .file("manifest.json", manifest.as_bytes())
        .done();
    assert!(matches!(fixture.load(&archive), Err(Error::DigestMismatch { .. })));
    let archive = Tar::new()
        .file("l", b"x")
        .file("c.json", &config(&[b"x"], "arm64"))
        .file("manifest.json", manifest.as_bytes())
        .done();
    assert!(matches!(fixture.load(&archive), Err(Error::NoSuchPlatform { .. })));
    assert_eq!(fixture.store.list().unwrap(), []);
}

/// The files of an OCI layout with an index of builds for two platforms, of which only one is there.
fn layout_files(annotations: &Value) -> Vec<(String, Vec<u8>)> {
    let blob = |bytes: &[u8]| (format!("blobs/sha256/{}", Digest::of(bytes).hex()), bytes.to_vec());
    let descriptor = |media_type: &str, bytes: &[u8]| json!({"mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len()});
    let layer = gzip(&Tar::new().file("x", b"oci").done());
    let config = config(&[b"some tar"], "amd64");
    let manifest = json!({"schemaVersion": 2, "config": descriptor(OCI_CONFIG, &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &layer)]})
    .to_string()
    .into_bytes();
    let mut ours = descriptor(OCI_MANIFEST, &manifest);
    ours["platform"] = json!({"os": "linux", "architecture": "amd64"});
    let mut other = descriptor(OCI_MANIFEST, b"not there");
    other["platform"] = json!({"os": "linux", "architecture": "arm64"});
    let index = json!({"schemaVersion": 2, "manifests": [other, ours]}).to_string().into_bytes();
    let mut top = descriptor("application/vnd.oci.image.index.v1+json", &index);
    top["annotations"] = annotations.clone();
    let top = json!({"schemaVersion": 2, "manifests": [top]}).to_string().into_bytes();
    let mut files = vec![
        ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ("index.json".to_owned(), top),
    ];
    files.extend([&layer[..], &config, &manifest, &index].map(blob));
    files
}

fn tar_of(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    files.iter().fold(Tar::new(), |tar, (name, content)| tar.file(name, content)).done()
}

fn write_dir(dir: &Path, files: &[(String, Vec<u8>)]) {
    for (name, content) in files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

#[test]
fn oci_layouts_load_as_archive_and_as_directory() {
    let dir = tempfile::tempdir().unwrap();
    let files = layout_files(&json!({
        "io.containerd.image.name": "docker.io/library/busybox:1",
        "org.opencontainers.image.ref.name": "1",
    }));
    write_dir(dir.path(), &files);
    let (archive, directory) = (Fixture::new(), Fixture::new());
    let from_archive = archive.load(&tar_of(&files)).unwrap();
    let from_directory = directory.load_from(Source::Path(dir.path())).unwrap();
    assert_eq!(from_archive.len(), 1);
    assert_eq!(name(&from_archive[0]).as_deref(), Some("busybox:1"));
    assert_eq!(from_archive[0].manifest_digest, from_directory[0].manifest_digest);
    assert_eq!(from_archive[0].layers[0].compression, Compression::Gzip);
    // The archive as a file.
    let path = dir.path().join("x.tar");
    fs::write(&path, tar_of(&files)).unwrap();
    assert_eq!(archive.load_from(Source::Path(&path)).unwrap(), from_archive);
}

#[test]
fn names_come_from_annotations() {
    for (annotations, expected) in [
        (json!({"org.opencontainers.image.ref.name": "h.io/x:2"}), Some("h.io/x:2")),
        (json!({"org.opencontainers.image.ref.name": "busybox"}), Some("busybox:latest")),
        (json!({"org.opencontainers.image.ref.name": "NOT A NAME"}), None),
        (json!({}), None),
    ] {
        let images = Fixture::new().load(&tar_of(&layout_files(&annotations))).unwrap();
        assert_eq!(name(&images[0]).as_deref(), expected);
    }
}

#[test]
fn damaged_layouts_are_refused() {
    let files = layout_files(&json!({}));
    for at in 2..files.len() {
        let mut flipped = files.clone();
        flipped[at].1[0] ^= 1;
        let error = Fixture::new().load(&tar_of(&flipped)).unwrap_err();
        assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
        let mut missing = files.clone();
        missing.remove(at);
        let error = Fixture::new().load(&tar_of(&missing)).unwrap_err();
        assert!(
            matches!(&error, Error::NotAnArchive { problem, .. } if problem.contains("is missing")),
            "{error}"
        );
    }
    let archive = tar_of(&files);
    for length in [0, 1, 100, 512, 700, archive.len() / 2] {
        assert!(
            matches!(Fixture::new().load(&archive[..length]), Err(Error::NotAnArchive { .. })),
            "{length}"
        );
    }
    let options = LoadOptions { platform: "linux/riscv64".parse().unwrap() };
    let fixture = Fixture::new();
    let error = load(&fixture.store, Source::Reader(&mut &archive[..]), &options, &|_| {}).unwrap_err();
    assert!(error.to_string().contains("it offers linux/amd64, linux/arm64"), "{error}");
}

#[test]
fn a_layout_directory_may_not_link_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let files = layout_files(&json!({}));
    write_dir(dir.path(), &files);
    let blob = dir.path().join(&files[2].0);
    let elsewhere = dir.path().join("elsewhere");
    fs::rename(&blob, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &blob).unwrap();
    assert!(matches!(Fixture::new().load_from(Source::Path(dir.path())), Err(Error::Io { .. })));
    fs::remove_file(&blob).unwrap();
    nix::unistd::mkfifo(&blob, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(matches!(Fixture::new().load_from(Source::Path(dir.path())), Err(Error::NotAnArchive { .. })));
}

#[test]
fn archives_that_climb_out_write_nowhere() {
    let fixture = Fixture::new();
    let manifest = json!([{"Config": "../../c.json", "RepoTags": ["a"], "Layers": []}]).to_string();
    let archive = Tar::new()
        .file("../../c.json", &config(&[], "amd64"))
        .file("/etc/husk-was-here", b"x")
        .link(tar::EntryType::Symlink, "up", "../../../../etc")
        .file("up/husk-was-here", b"x")
        .file("manifest.json", manifest.as_bytes())
        .done();
    let error = fixture.load(&archive).unwrap_err();
    assert!(error.to_string().contains("leads out of it"), "{error}");
    assert!(!Path::new("/etc/husk-was-here").exists());
    let above: Vec<_> = fs::read_dir(fixture._dir.path()).unwrap().collect();
    assert_eq!(above.len(), 1, "only the store: {above:?}");
}

#[test]
fn links_in_circles_end() {
    let manifest = json!([{"Config": "a", "RepoTags": ["a"], "Layers": []}]).to_string();
    let archive = Tar::new()
        .link(tar::EntryType::Symlink, "a", "b")
        .link(tar::EntryType::Symlink, "b", "a")
        .file("manifest.json", manifest.as_bytes())
        .done();
    assert!(matches!(Fixture::new().load(&archive), Err(Error::NotAnArchive { .. })));
}

#[test]
fn endless_headers_are_refused() {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNULongName);
    header.set_size(1 << 40);
    header.set_cksum();
    let mut endless = header.as_bytes().as_slice().chain(std::io::repeat(b'a'));
    let error = Fixture::new().load_from(Source::Reader(&mut endless)).unwrap_err();
    assert!(error.to_string().contains("headers are too long"), "{error}");
}

#[test]
fn what_is_no_archive_is_said_to_be_none() {
    for (bytes, expected) in [
        (Tar::new().file("bin/sh", b"x").done(), "docker export"),
        (Tar::new().file("manifest.json", b"{}").done(), "manifest.json"),
        (b"this is a text of some length".repeat(100), "not an image archive"),
        (vec![0x28, 0xb5, 0x2f, 0xfd, 0, 0], "zstd"),
        (vec![0; 1024], "empty"),
    ] {
        let error = Fixture::new().load(&bytes).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    let nowhere = Fixture::new().load_from(Source::Path(Path::new("/nonexistent/x.tar"))).unwrap_err();
    assert!(matches!(nowhere, Error::Io { .. }));
}

#[test]
fn names_are_resolved_within_the_archive() {
    for (base, name, expected) in [
        ("", "a/b", Some("a/b")),
        ("", "./a//b/.", Some("a/b")),
        ("", "/a", Some("a")),
        ("x", "../a", Some("a")),
        ("x/y", "../../a/../b", Some("b")),
        ("x", "/a", Some("a")),
        ("", "..", None),
        ("x", "../../a", None),
    ] {
        assert_eq!(resolve(base, name).as_deref(), expected, "{base} {name}");
    }
}

/// A docker-archive with one layer, whose entry in `manifest.json` has these tags.
fn untagged(tags: &Value, layer: &[u8]) -> Vec<u8> {
    let manifest = json!([{"Config": "c.json", "RepoTags": tags, "Layers": ["l.tar"]}]);
    Tar::new()
        .file("l.tar", layer)
        .file("c.json", &config(&[layer], "amd64"))
        .file("manifest.json", manifest.to_string().as_bytes())
        .done()
}

#[test]
fn images_without_a_name_and_layers_without_a_byte_are_loaded() {
    let fixture = Fixture::new();
    for tags in [json!(null), json!([]), json!(["<none>:<none>"])] {
        let images = fixture.load(&untagged(&tags, b"")).unwrap();
        let [image] = &images[..] else { panic!("{tags}: {images:?}") };
        assert_eq!((name(image), image.layers[0].size), (None, 0));
        let id = image.config_digest.hex();
        for id in [&image.config_digest.to_string(), id, &id[..12]] {
            assert_eq!(fixture.store.find(id).unwrap().unwrap().config_digest, image.config_digest);
        }
    }
}

#[test]
fn foreign_compressions_are_named() {
    for (bytes, name) in
        [(&b"\xfd7zXZ\0rest"[..], "xz"), (b"BZh91AY", "bzip2"), (b"\x28\xb5\x2f\xfdxx", "zstd")]
    {
        let text = Fixture::new().load(bytes).unwrap_err().to_string();
        assert!(text.contains(&format!("compressed with {name}")) && text.contains("| husk load"), "{text}");
    }
}

/// An OCI archive whose index lists an image, with further entries.
fn layout_with(media_type: &str, further: Vec<Value>, further_blobs: &[&[u8]]) -> Vec<u8> {
    let layer = Tar::new().file("etc/x", b"x").done();
    let config = config(&[&layer], "amd64");
    let manifest = manifest_of(media_type, &config, &[("application/vnd.oci.image.layer.v1.tar", &layer)]);
    let mut entries = vec![entry_of(&manifest)];
    entries.extend(further);
    let index = json!({"schemaVersion": 2, "manifests": entries}).to_string();
    let mut tar = Tar::new().file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    for blob in [&layer[..], &config, &manifest].iter().chain(further_blobs) {
        tar = tar.file(&format!("blobs/sha256/{}", Digest::of(blob).hex()), blob);
    }
    tar.file("index.json", index.as_bytes()).done()
}

fn manifest_of(config_type: &str, config: &[u8], layers: &[(&str, &[u8])]) -> Vec<u8> {
    let descriptor = |media_type: &str, blob: &[u8]| json!({"mediaType": media_type, "digest": Digest::of(blob), "size": blob.len()});
    let layers: Vec<_> = layers.iter().map(|(media_type, blob)| descriptor(media_type, blob)).collect();
    json!({"schemaVersion": 2, "config": descriptor(config_type, config), "layers": layers})
        .to_string()
        .into_bytes()
}

fn entry_of(manifest: &[u8]) -> Value {
    json!({"mediaType": OCI_MANIFEST, "digest": Digest::of(manifest), "size": manifest.len()})
}

#[test]
fn configurations_of_odd_types_and_what_lies_beside_images_are_no_obstacle() {
    for media_type in ["application/octet-stream", "application/json", "text/html", OCI_CONFIG] {
        assert_eq!(
            Fixture::new().load(&layout_with(media_type, vec![], &[])).unwrap().len(),
            1,
            "{media_type}"
        );
    }
    let chart = layout_with("application/vnd.cncf.helm.config.v1+json", vec![], &[]);
    let text = Fixture::new().load(&chart).unwrap_err().to_string();
    assert!(text.contains("no container image"), "{text}");
    let signature =
        manifest_of(OCI_CONFIG, b"{}", &[("application/vnd.dev.cosign.simplesigning.v1+json", b"s")]);
    let wrong =
        json!({"mediaType": OCI_MANIFEST, "digest": "md5:1", "size": -1, "platform": {"os": "plan9"}});
    let beside = layout_with(OCI_CONFIG, vec![entry_of(&signature), wrong], &[&signature, b"{}", b"s"]);
    assert_eq!(Fixture::new().load(&beside).unwrap().len(), 1);
}
