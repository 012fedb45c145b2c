use std::sync::mpsc;
use std::thread;

use serde_json::json;

use super::*;
use crate::RemoveReport;
use crate::manifest::{OCI_CONFIG, OCI_MANIFEST};

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    (dir, store)
}

fn put(store: &Store, bytes: &[u8]) -> Digest {
    let digest = Digest::of(bytes);
    if let Some(mut ingest) = Ingest::open(store, &digest, bytes.len() as u64).unwrap() {
        ingest.restart().unwrap();
        ingest.write(bytes).unwrap();
        ingest.commit().unwrap();
    }
    digest
}

/// Stores an image of these layers; `salt` makes its configuration its own.
fn add(store: &Store, name: Option<&str>, salt: &str, layers: &[&[u8]]) -> Record {
    let digests: Vec<Digest> = layers.iter().map(|layer| put(store, layer)).collect();
    let config =
        json!({"architecture": "amd64", "os": "linux", "author": salt, "created": "2024-05-06T07:08:09Z",
        "rootfs": {"type": "layers", "diff_ids": digests}})
        .to_string();
    let config_digest = put(store, config.as_bytes());
    let layer_json: Vec<_> = layers
        .iter()
        .zip(&digests)
        .map(|(layer, digest)| {
            json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": layer.len()})
        })
        .collect();
    let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": layer_json,
        "config": {"mediaType": OCI_CONFIG, "digest": config_digest, "size": config.len()}})
    .to_string();
    let record = Record {
        reference: name.map(|name| name.parse().unwrap()),
        manifest_media_type: OCI_MANIFEST.to_owned(),
        manifest_digest: put(store, manifest.as_bytes()),
        manifest_size: manifest.len() as u64,
        config_digest,
        disk_key: crate::disk_key(&digests),
        size: 1,
        created: Some("2024-05-06T07:08:09Z".to_owned()),
        source_digest: Some(Digest::of(b"index")),
    };
    store.add_record(record.clone()).unwrap();
    record
}

fn get(store: &Store, name: &str) -> Option<Image> {
    store.get(&name.parse().unwrap()).unwrap()
}

fn blobs(store: &Store) -> usize {
    fs::read_dir(store.root.join("blobs/sha256")).unwrap().count()
}

fn ingests(store: &Store) -> Vec<String> {
    fs::read_dir(store.ingest_dir()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn an_image_comes_back_as_it_was_stored() {
    let (_dir, store) = store();
    assert_eq!(store.list().unwrap(), []);
    assert_eq!(get(&store, "a"), None);
    let record = add(&store, Some("a:1"), "", &[b"base", &[0x1f, 0x8b, 8, 0]]);
    let image = get(&store, "a:1").unwrap();
    assert_eq!(image.reference.as_ref().unwrap().familiar(), "a:1");
    assert_eq!(image.layers.len(), 2);
    assert_eq!(image.layers[0].compression, Compression::None);
    assert_eq!(image.layers[1].compression, Compression::Gzip);
    assert_eq!(fs::read(&image.layers[0].path).unwrap(), b"base");
    assert_eq!(image.disk_key(), record.disk_key);
    assert_eq!(image.created.as_deref(), Some("2024-05-06T07:08:09Z"));
    assert_eq!(image.platform, crate::Platform::default());
    let list = store.list().unwrap();
    assert_eq!((list.len(), &list[0].config_digest), (1, &image.config_digest));
    // A second handle, as another process would have.
    assert_eq!(Store::open(store.root()).unwrap().list().unwrap(), list);
    assert_eq!(get(&store, "a:2"), None);
    assert_eq!(get(&store, "b/a:1"), None);
}

#[test]
fn lookup_follows_docker() {
    let (_dir, store) = store();
    let record = add(&store, Some("localhost/a:1"), "", &[b"x"]);
    let other = add(&store, Some("abc"), "2", &[b"y"]);
    let find = |text: &str| store.find(text).map(|image| image.map(|i| i.config_digest));
    let hex = record.config_digest.hex();
    for text in ["localhost/a:1", hex, &hex[..12], &format!("sha256:{hex}"), record.manifest_digest.hex()] {
        assert_eq!(find(text).unwrap().as_ref(), Some(&record.config_digest), "{text}");
    }
    for digest in [&record.manifest_digest, &Digest::of(b"index")] {
        let text = format!("localhost/a@{digest}");
        assert_eq!(find(&text).unwrap().as_ref(), Some(&record.config_digest), "{text}");
    }
    assert_eq!(find("abc").unwrap(), Some(other.config_digest), "a name goes before an id");
    assert_eq!(find("nothing:here").unwrap(), None);
    assert_eq!(find(&"0".repeat(64)).unwrap(), None);
    assert!(matches!(find("Not A Name"), Err(Error::Reference(_))));
    assert!(matches!(find(""), Err(Error::Reference(_))));
}

#[test]
fn ambiguous_ids_are_refused() {
    let (_dir, store) = store();
    let mut firsts = std::collections::HashMap::new();
    let mut salt = 0;
    let prefix = loop {
        let record = add(&store, Some(&format!("a:{salt}")), &salt.to_string(), &[b"x"]);
        let first = record.config_digest.hex()[..1].to_owned();
        if firsts.insert(first.clone(), ()).is_some() {
            break first;
        }
        salt += 1;
    };
    assert!(
        matches!(store.find(&prefix), Err(Error::AmbiguousId { candidates, .. }) if candidates.len() > 1)
    );
    assert!(matches!(store.remove(&prefix), Err(Error::AmbiguousId { .. })));
}

#[test]
fn removal_keeps_what_others_need() {
    let (_dir, store) = store();
    let a = add(&store, Some("a"), "a", &[b"base", b"only a"]);
    let b = add(&store, Some("b"), "b", &[b"base"]);
    store.add_record(Record { reference: Some("a:other".parse().unwrap()), ..a.clone() }).unwrap();
    assert_eq!(blobs(&store), 6);
    assert!(
        matches!(store.remove(a.config_digest.hex()), Err(Error::SeveralNames { names, .. }) if names.len() == 2)
    );
    let report = store.remove("a:other").unwrap();
    let untagged = vec!["a:other".parse().unwrap()];
    assert_eq!(report, RemoveReport { untagged, ..RemoveReport::default() });
    let report = store.remove(&a.config_digest.hex()[..12]).unwrap();
    assert_eq!(report.untagged, ["a".parse().unwrap()]);
    assert_eq!(report.deleted, [a.config_digest]);
    assert_eq!(report.freed_disks, [a.disk_key]);
    assert!(report.freed_bytes > 6);
    assert_eq!(blobs(&store), 3);
    assert_eq!(get(&store, "b").unwrap().config_digest, b.config_digest);
    assert_eq!(get(&store, "a"), None);
    assert!(matches!(store.remove("none-such"), Err(Error::NoSuchImage(_))));
    store.remove("b").unwrap();
    assert_eq!(blobs(&store), 0);
}

#[test]
fn a_disk_key_is_freed_with_its_last_image() {
    let (_dir, store) = store();
    let a = add(&store, Some("a"), "a", &[b"same"]);
    let b = add(&store, Some("b"), "b", &[b"same"]);
    assert_eq!(a.disk_key, b.disk_key);
    assert_eq!(store.remove("a").unwrap().freed_disks, []);
    assert_eq!(store.remove("b").unwrap().freed_disks, [a.disk_key]);
}

#[test]
fn a_tag_moves_and_leaves_its_image_nameless() {
    let (_dir, store) = store();
    let old = add(&store, Some("a"), "old", &[b"1"]);
    let new = add(&store, Some("a"), "new", &[b"2"]);
    assert_eq!(get(&store, "a").unwrap().config_digest, new.config_digest);
    let names: Vec<bool> = store.list().unwrap().iter().map(|i| i.reference.is_some()).collect();
    assert_eq!(names, [false, true]);
    // Naming it again leaves no nameless entry behind.
    store.add_record(Record { reference: Some("b".parse().unwrap()), ..old.clone() }).unwrap();
    assert!(store.list().unwrap().iter().all(|i| i.reference.is_some()));
    store.add_record(Record { reference: None, ..old.clone() }).unwrap();
    assert_eq!(store.list().unwrap().len(), 2);
    store.remove("b").unwrap();
    assert_eq!(store.find(old.config_digest.hex()).unwrap(), None);
}

#[test]
fn damage_is_found() {
    let (_dir, store) = store();
    let record = add(&store, Some("a"), "", &[b"layer"]);
    let layer = store.blob_path(&Digest::of(b"layer"));
    for (path, what) in [
        (layer.clone(), "layer"),
        (store.blob_path(&record.config_digest), "configuration"),
        (store.blob_path(&record.manifest_digest), "manifest"),
    ] {
        let good = fs::read(&path).unwrap();
        for bad in [&b"short"[..3], b"much longer than it was, in any case", b""] {
            fs::write(&path, bad).unwrap();
            let error = store.get(&"a".parse().unwrap()).unwrap_err();
            assert!(matches!(&error, Error::Damaged { .. }) && error.to_string().contains(what), "{error}");
        }
        fs::remove_file(&path).unwrap();
        assert!(matches!(store.get(&"a".parse().unwrap()), Err(Error::Damaged { .. })));
        fs::write(&path, good).unwrap();
    }
    assert!(get(&store, "a").is_some());
    // A damaged image can still be removed.
    fs::remove_file(store.blob_path(&record.manifest_digest)).unwrap();
    store.remove("a").unwrap();
    assert_eq!(blobs(&store), 0);
}

#[test]
fn something_else_is_not_taken_for_a_store() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("oci-layout"), r#"{"imageLayoutVersion":"9"}"#).unwrap();
    assert!(matches!(Store::open(dir.path()), Err(Error::NotAStore { .. })));
    fs::write(dir.path().join("oci-layout"), "x").unwrap();
    assert!(matches!(Store::open(dir.path()), Err(Error::NotAStore { .. })));
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(matches!(Store::open(&file), Err(Error::Io { .. })));
}

#[test]
fn a_broken_off_ingest_is_continued() {
    let (_dir, store) = store();
    let digest = Digest::of(b"hello world");
    let Some(mut first) = Ingest::open(&store, &digest, 11).unwrap() else { panic!() };
    first.write(b"hello ").unwrap();
    drop(first);
    let Some(mut second) = Ingest::open(&store, &digest, 11).unwrap() else { panic!() };
    assert_eq!((second.written(), second.resumed()), (6, true));
    second.write(b"world").unwrap();
    second.commit().unwrap();
    assert!(store.has_blob(&digest, 11));
    assert_eq!(ingests(&store), [""; 0]);
    assert!(Ingest::open(&store, &digest, 11).unwrap().is_none());
    assert_eq!(ingests(&store), [""; 0]);
}

#[test]
fn wrong_content_never_becomes_a_blob() {
    let (_dir, store) = store();
    let digest = Digest::of(b"right");
    let Some(mut ingest) = Ingest::open(&store, &digest, 5).unwrap() else { panic!() };
    ingest.write(b"wrong").unwrap();
    assert!(matches!(ingest.commit(), Err(Error::DigestMismatch { .. })));
    assert_eq!(ingest.written(), 0);
    drop(ingest);
    let Some(mut ingest) = Ingest::open(&store, &digest, 5).unwrap() else { panic!() };
    assert!(matches!(ingest.write(b"too long"), Err(Error::SizeMismatch { .. })));
    drop(ingest);
    let Some(mut ingest) = Ingest::open(&store, &digest, 5).unwrap() else { panic!() };
    ingest.write(b"rig").unwrap();
    assert!(matches!(ingest.commit(), Err(Error::SizeMismatch { actual: 3, .. })));
    drop(ingest);
    assert_eq!((blobs(&store), ingests(&store)), (0, vec![digest.hex().to_owned()]));
    // A partial file longer than the blob is of no use.
    fs::write(store.ingest_dir().join(digest.hex()), b"much too long").unwrap();
    let Some(ingest) = Ingest::open(&store, &digest, 5).unwrap() else { panic!() };
    assert_eq!(ingest.written(), 0);
    drop(ingest);
    assert_eq!(ingests(&store), [""; 0]);
}

#[test]
fn the_second_writer_waits_and_finds_the_blob() {
    let (_dir, store) = store();
    let digest = Digest::of(b"blob");
    let Some(mut first) = Ingest::open(&store, &digest, 4).unwrap() else { panic!() };
    let (started, wait) = mpsc::channel();
    let second = {
        let (store, digest) = (store.clone(), digest.clone());
        thread::spawn(move || {
            started.send(()).unwrap();
            Ingest::open(&store, &digest, 4).unwrap().is_none()
        })
    };
    wait.recv().unwrap();
    first.write(b"blob").unwrap();
    first.commit().unwrap();
    drop(first);
    assert!(second.join().unwrap());
    assert_eq!(ingests(&store), [""; 0]);
}

#[test]
fn garbage_collection_respects_those_at_work() {
    let (_dir, store) = store();
    add(&store, Some("a"), "", &[b"x"]);
    let mut lease = store.lease().unwrap();
    let leased = put(&store, b"leased");
    lease.protect([&leased]).unwrap();
    let garbage = put(&store, b"garbage");
    let session = Session::new(&store).unwrap();
    let Some(mut ingest) = Ingest::open(&store, &Digest::of(b"later"), 5).unwrap() else { panic!() };
    ingest.write(b"la").unwrap();
    // What dead processes leave: nobody holds their locks.
    fs::write(store.ingest_dir().join("lease-1-1-1"), format!("{}\n", garbage.hex())).unwrap();
    fs::create_dir(store.ingest_dir().join("load-1-1-1")).unwrap();
    fs::write(store.ingest_dir().join("load-1-1-1/1"), "x").unwrap();

    store.remove("a").unwrap();
    assert!(store.has_blob(&leased, 6));
    assert!(!store.has_blob(&garbage, 7));
    assert_eq!(
        ingests(&store).len(),
        3,
        "lease, session and partial file of the living: {:?}",
        ingests(&store)
    );
    drop((lease, session));
    ingest.write(b"ter").unwrap();
    ingest.commit().unwrap();
    assert_eq!(ingests(&store), [""; 0]);
}

#[test]
fn old_partial_files_go_and_young_ones_stay() {
    let (_dir, store) = store();
    let (old, young) = (Digest::of(b"old"), Digest::of(b"young"));
    for digest in [&old, &young] {
        fs::write(store.ingest_dir().join(digest.hex()), "x").unwrap();
    }
    let file = File::options().write(true).open(store.ingest_dir().join(old.hex())).unwrap();
    let then = std::time::SystemTime::now() - std::time::Duration::from_hours(24 * 30);
    file.set_modified(then).unwrap();
    drop(file);
    drop(store.lease().unwrap());
    assert_eq!(ingests(&store), [young.hex()]);
}

#[test]
fn many_writers_leave_a_whole_index() {
    let (_dir, store) = store();
    let threads: Vec<_> = (0..8)
        .map(|n| {
            let store = Store::open(store.root()).unwrap();
            thread::spawn(move || {
                for m in 0..5 {
                    add(&store, Some(&format!("image{n}:{m}")), &format!("{n}.{m}"), &[b"shared"]);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(store.list().unwrap().len(), 40);
    for n in 0..8 {
        assert!(get(&store, &format!("image{n}:4")).is_some());
    }
}
