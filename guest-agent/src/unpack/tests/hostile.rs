//! Layers that want out, or want too much.

use std::fs;
use std::os::unix::fs::MetadataExt;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::Root;
use super::archive::{Archive, Item};
use husk_protocol::agent::Reason as ApiReason;

/// Every path of the root is within it, and the error, if any, is the layer's fault.
fn try_layers(layers: &[Archive]) -> (Root, Result<(), String>) {
    let root = Root::new();
    for layer in layers {
        if let Err(error) = root.apply(layer) {
            assert_eq!(error.api_reason(), ApiReason::DAMAGED_LAYER, "{error}");
            return (root, Err(error.to_string()));
        }
    }
    (root, Ok(()))
}

#[test]
fn paths_that_climb_are_refused_for_every_kind() {
    for path in ["../canary/x", "..", "a/../../canary/x", "/../canary/x", "./../canary/file", "a/b/../../.."]
    {
        for flag in *b"01234567" {
            let item = Item::new(path, flag).link("file").device(1, 3);
            let (root, result) = try_layers(&[Archive::new().add(item)]);
            assert!(result.unwrap_err().contains("climbs out"), "{path}");
            assert_eq!(root.tree(), [""; 0]);
        }
        let item = Item::file("fine", b"").pax("path", path.as_bytes());
        assert!(try_layers(&[Archive::new().add(item)]).1.unwrap_err().contains("climbs out"));
        let archive = Archive::new().gnu_long(b'L', path.as_bytes()).file("fine", b"");
        assert!(try_layers(&[archive]).1.unwrap_err().contains("climbs out"));
    }
}

#[test]
fn absolute_paths_start_at_the_root() {
    let neighbour = Root::new();
    let outside = neighbour.canary();
    let outside = outside.to_str().unwrap();
    let item = Item::file("x", b"in").pax("path", format!("{outside}/x").as_bytes());
    let (root, result) = try_layers(&[Archive::new().file("/etc/passwd", b"in").add(item)]);
    result.unwrap();
    assert_eq!(root.read("etc/passwd"), b"in");
    assert_eq!(root.read(&format!("{}/x", &outside[1..])), b"in");
    neighbour.check_canary();
}

#[test]
fn symlinks_lead_nowhere_else() {
    let canary = Root::new();
    let outside = canary.canary();
    let outside = outside.to_str().unwrap();
    for target in [outside, "../canary", "../../../../../../../../etc", "/proc/self/root", "/proc/self/cwd"] {
        for second in [
            Archive::new().file("l/new", b"in"),
            Archive::new().file("l/.wh.file", b""),
            Archive::new().file("l/.wh..wh..opq", b""),
        ] {
            let link = Item::new("l", b'2').pax("linkpath", target.as_bytes());
            // In one layer and in two.
            let first = Archive::new().add(link);
            let both = first.clone().raw(second.unfinished());
            try_layers(&[both]).1.unwrap();
            try_layers(&[first, second]).1.unwrap();
            canary.check_canary();
        }
    }
}

#[test]
fn symlinks_are_replaced_not_written_through() {
    let link = Archive::new().symlink("l", "../canary/file").symlink("d", "../canary");
    let upper = [
        Archive::new().file("l", b"in"),
        Archive::new().dir("d").file("d/file", b"in"),
        Archive::new().add(Item::new("l", b'3').device(1, 3)),
        Archive::new().add(Item::new("l", b'6')),
        Archive::new().hard_link("h", "l").add(Item::new("h", b'1').link("l").mode(0o777).owner(9, 9)),
        Archive::new().add(Item::new("l", b'2').link("../canary/file").mode(0o777).owner(9, 9).mtime(1)),
    ];
    for upper in upper {
        let (root, result) = try_layers(&[link.clone(), upper]);
        result.unwrap();
        let file = fs::metadata(root.canary().join("file")).unwrap();
        assert_eq!((file.uid(), file.nlink(), file.mode() & 0o777), (0, 1, 0o644));
        assert_ne!(file.mtime(), 1);
    }
}

#[test]
fn hard_links_stay_inside() {
    let symlinks =
        Archive::new().symlink("l", "../canary").symlink("abs", "/").symlink("f", "../canary/file");
    for target in ["../canary/file", "/../canary/file", "l/file", "abs/../canary/file", "x/../../canary/file"]
    {
        let (root, result) = try_layers(&[symlinks.clone(), Archive::new().hard_link("h", target)]);
        result.unwrap_err();
        assert!(!root.exists("h"), "{target}");
        assert_eq!(fs::metadata(root.canary().join("file")).unwrap().nlink(), 1);
    }
    let (root, result) = try_layers(&[symlinks, Archive::new().hard_link("h", "f")]);
    result.unwrap();
    assert!(root.stat("h").is_symlink());
}

#[test]
fn whiteouts_of_what_is_no_name_are_refused() {
    for path in [".wh.", "d/.wh.", ".wh..", ".wh...", "d/.wh...", "d/.wh.x/y", "d/../.wh..."] {
        let lower = Archive::new().dir("d").file("d/x", b"");
        let (root, result) = try_layers(&[lower, Archive::new().file(path, b"")]);
        assert!(result.unwrap_err().contains("whiteout"), "{path}");
        assert_eq!(root.tree(), ["d", "d/x"]);
    }
}

#[test]
fn whiteouts_remove_symlinks_not_their_targets() {
    let lower = Archive::new().dir("d").symlink("d/l", "../../canary").symlink("d/f", "../../canary/file");
    let (root, result) =
        try_layers(&[lower.clone(), Archive::new().file("d/.wh.l", b"").file("d/.wh.f", b"")]);
    result.unwrap();
    assert_eq!(root.tree(), ["d"]);
    let (root, result) = try_layers(&[lower.clone(), Archive::new().file(".wh.d", b"")]);
    result.unwrap();
    assert_eq!(root.tree(), [""; 0]);
    let (root, result) = try_layers(&[lower, Archive::new().file("d", b"")]);
    result.unwrap();
    assert_eq!(root.tree(), ["d"]);
}

#[test]
fn symlink_loops_end() {
    for (a, b) in [("b", "a"), ("b/x", "a/x"), ("./b/../a", "a"), ("missing/../b", "a")] {
        let (_, result) =
            try_layers(&[Archive::new().symlink("a", a).symlink("b", b), Archive::new().file("a/file", b"")]);
        assert!(result.is_err(), "{a} {b}");
    }
    // A symlink that leads through itself to something that is not there.
    let (_, result) = try_layers(&[Archive::new().symlink("a", "a/b").file("a/c", b"")]);
    assert!(result.is_err());
}

#[test]
fn long_names_are_refused() {
    let name = |length| Item::file("f", b"").pax("path", &vec![b'n'; length]);
    try_layers(&[Archive::new().add(name(255))]).1.unwrap();
    let (_, result) = try_layers(&[Archive::new().add(name(256))]);
    assert!(result.unwrap_err().contains("too long"));
    let (_, result) = try_layers(&[Archive::new().add(name(1_000_000))]);
    assert!(result.unwrap_err().len() < 1000);
    let target = Item::new("s", b'2').pax("linkpath", &[b't'; 5000]);
    try_layers(&[Archive::new().add(target)]).1.unwrap_err();
    try_layers(&[Archive::new().add(Item::new("s", b'2'))]).1.unwrap_err();
}

/// A tree of more levels than a path can name or than files can be opened, by way of symlinks.
#[test]
fn trees_of_any_depth_are_removed() {
    let mut layer = Archive::new();
    let deep = "d/".repeat(1000);
    layer = layer.add(Item::dir("x").pax("path", format!("t/{deep}").as_bytes()));
    let mut at = format!("t/{deep}");
    for n in 0..5 {
        let link = Item::new("l", b'2').pax("linkpath", format!("/{at}").as_bytes());
        layer = layer.add(link.pax("path", format!("l{n}").as_bytes()));
        layer = layer.add(Item::dir("x").pax("path", format!("l{n}/{deep}").as_bytes()));
        at = format!("l{n}/{deep}");
    }
    let upper = Archive::new().file("t/kept", b"").file(".wh.t", b"").file("l0", b"");
    let (root, result) = try_layers(&[layer, upper]);
    result.unwrap();
    assert_eq!(root.tree(), ["l0", "l1", "l2", "l3", "l4", "t", "t/kept"]);
}

#[test]
fn a_file_as_large_as_it_says_is_not_believed() {
    // 8 EiB by base 256 and by pax, of which nothing is there.
    for item in [
        Item::new("f", b'0').gnu().base256(124, 12, i64::MAX),
        Item::new("f", b'0').pax("size", b"9223372036854775807"),
    ] {
        let (_, result) = try_layers(&[Archive::new().add(item).raw(&[b'x'; 4096])]);
        assert!(result.unwrap_err().contains("too early"));
    }
    let (_, result) =
        try_layers(&[Archive::new().add(Item::new("f", b'0').pax("size", b"9223372036854775808"))]);
    assert!(result.unwrap_err().contains("pax record"));
}

#[test]
fn a_full_disk_is_told_apart() {
    let root = Root::new();
    mount("tmpfs", &root.path, "tmpfs", MountFlags::empty(), c"size=64k,nr_inodes=10").unwrap();
    let large = root.apply(&Archive::new().file("bomb", &vec![b'x'; 1 << 20])).unwrap_err();
    assert_eq!(large.api_reason(), ApiReason::DISK_FULL, "{large}");
    let many = (0..20).fold(Archive::new(), |layer, n| layer.symlink(&format!("s{n}"), "x"));
    let many = root.apply(&many).unwrap_err();
    assert_eq!(many.api_reason(), ApiReason::OUT_OF_INODES, "{many}");
    assert!(many.to_string().contains("the disk has no inodes left"), "{many}");
    unmount(&root.path, UnmountFlags::DETACH).unwrap();
}
