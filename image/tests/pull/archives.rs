//! Archives as another tool writes them.

use std::fs::File;

use husk_image::{Compression, Image, LoadOptions, Source, load};

use crate::fixture::{OCI_MANIFEST, Puller, TestImage, write_layout};
use crate::registry::run;

#[test]
fn what_skopeo_writes_is_loaded() {
    let made = TestImage::new(&[100_000, 10]);
    let dir = tempfile::tempdir().unwrap();
    write_layout(&dir.path().join("layout"), OCI_MANIFEST, &made.manifest, &[&made]);
    let puller = Puller::new();
    let load = |source: Source<'_>| load(&puller.store, source, &LoadOptions::default(), &|_| {}).unwrap();
    let name = |image: &Image| image.reference.as_ref().unwrap().familiar();
    for (target, file) in [
        ("docker-archive:docker.tar:localhost/x:1", "docker.tar"),
        ("oci-archive:oci.tar:localhost/x:2", "oci.tar"),
        ("oci:copy:localhost/x:3", "copy"),
    ] {
        run(dir.path(), "skopeo", &["--insecure-policy", "copy", "oci:layout:t", target]);
        let path = dir.path().join(file);
        let images = load(Source::Path(&path));
        assert_eq!(images.len(), 1);
        assert!(target.ends_with(&name(&images[0])), "{target}");
        let diff_ids: Vec<_> = images[0].layers.iter().map(|l| l.diff_id.to_string()).collect();
        assert_eq!(&diff_ids, images[0].config.rootfs().diff_ids());
        if file == "docker.tar" {
            assert!(images[0].layers.iter().all(|l| l.compression == Compression::None));
        } else {
            puller.check(&images[0], &made);
        }
        if path.is_file() {
            assert_eq!(load(Source::Reader(&mut File::open(&path).unwrap())), images);
        }
    }
    assert_eq!(puller.store.list().unwrap().len(), 3);
}
