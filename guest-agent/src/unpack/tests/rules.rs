//! The rules of image-spec layer.md.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use super::Root;
use super::archive::{Archive, Item};
use husk_protocol::agent::Reason as ApiReason;

/// A version 2 capability set with CAP_NET_RAW permitted and effective.
const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// The base layer of the specification's examples, with a bit more.
fn base() -> Archive {
    Archive::new()
        .dir("a/")
        .dir("a/b/")
        .dir("a/b/c/")
        .file("a/b/c/bar", b"bar")
        .file("a/file", b"lower")
        .symlink("a/link", "file")
        .dir("etc/")
        .file("etc/config", b"lower")
}

fn after(upper: &Archive) -> Root {
    Root::with(&[base(), upper.clone()])
}

#[test]
fn kinds_and_attributes_are_kept() {
    let root = Root::with(&[Archive::new()
        .dir("./")
        .add(Item::file("bin/su", b"elf").mode(0o4755).owner(10, 20))
        .add(Item::dir("tmp/").mode(0o1777))
        .add(Item::dir("shared").mode(0o2775).owner(0, 50))
        .add(Item::new("l", b'2').link("/etc/../x").owner(3, 4).mtime(77))
        .add(Item::new("null", b'3').device(1, 3).mode(0o666).owner(5, 6))
        .add(Item::new("loop", b'4').device(7, 300).mode(0o660))
        .add(Item::new("pipe", b'6').mode(0o600).mtime(99))
        .add(Item::new("none", b'0').mode(0))]);
    let su = root.stat("bin/su");
    assert_eq!((su.mode(), su.uid(), su.gid(), su.mtime()), (0o104_755, 10, 20, 1000));
    assert_eq!(root.stat("tmp").mode(), 0o041_777);
    assert_eq!((root.stat("shared").mode(), root.stat("shared").gid()), (0o042_775, 50));
    let link = root.stat("l");
    assert_eq!(fs::read_link(root.at("l")).unwrap().to_str(), Some("/etc/../x"));
    assert_eq!((link.uid(), link.gid(), link.mtime()), (3, 4, 77));
    let null = root.stat("null");
    assert!(null.file_type().is_char_device());
    assert_eq!((null.rdev(), null.mode() & 0o7777, null.uid()), (rustix::fs::makedev(1, 3), 0o666, 5));
    assert!(root.stat("loop").file_type().is_block_device());
    assert_eq!(root.stat("loop").rdev(), rustix::fs::makedev(7, 300));
    assert!(root.stat("pipe").file_type().is_fifo());
    assert_eq!(root.mtime("pipe"), (99, 0));
    assert_eq!((root.stat("none").mode(), root.stat("none").len()), (0o100_000, 0));
}

#[test]
fn missing_parents_are_made() {
    let root = Root::with(&[Archive::new().add(Item::file("x/y/z", b"").mtime(5))]);
    for directory in ["x", "x/y"] {
        let stat = root.stat(directory);
        assert_eq!((stat.mode(), stat.uid(), stat.gid()), (0o040_755, 0, 0));
        assert_eq!(root.mtime(directory), (5, 0));
    }
    assert_eq!(root.mtime("x/y/z"), (5, 0));
}

#[test]
fn the_roots_own_attributes_are_taken() {
    let root = Root::with(&[Archive::new()
        .add(Item::dir("./").mode(0o750).owner(1, 2).mtime(123).xattr("user.x", b"1"))
        .file("./f", b"")]);
    let stat = root.stat("");
    assert_eq!((stat.mode(), stat.uid(), stat.gid(), stat.mtime()), (0o040_750, 1, 2, 123));
    assert_eq!(root.xattr("", "user.x").as_deref(), Some(&b"1"[..]));
    assert_eq!(
        root.apply(&Archive::new().file("./", b"")).unwrap_err().api_reason(),
        ApiReason::DAMAGED_LAYER
    );
}

#[test]
fn directories_keep_their_times() {
    let root = Root::with(&[
        Archive::new()
            .add(Item::dir("d").mtime(10))
            .add(Item::dir("d/e").mtime(20))
            .file("d/e/f", b"")
            .file("d/g", b"")
            .add(Item::dir("late").mtime(30))
            .file("early/x", b"")
            .add(Item::dir("early").mtime(40))
            .file("late/y", b""),
        Archive::new().file("d/e/new", b"").file("d/.wh.g", b"").file("early/.wh..wh..opq", b""),
    ]);
    assert_eq!(root.tree(), ["d", "d/e", "d/e/f", "d/e/new", "early", "late", "late/y"]);
    for (path, mtime) in [("d", 10), ("d/e", 20), ("late", 30), ("early", 40)] {
        assert_eq!(root.mtime(path), (mtime, 0), "{path}");
    }
}

#[test]
fn a_whiteout_removes_what_lower_layers_have() {
    let root = after(&Archive::new().file("a/.wh.b", b"").file("etc/.wh.config", b"").file(".wh.no", b""));
    assert_eq!(root.tree(), ["a", "a/file", "a/link", "etc"]);
    let root = after(&Archive::new().file("a/.wh.link", b""));
    assert_eq!(root.read("a/file"), b"lower");
    assert!(!root.exists("a/link"));
}

#[test]
fn a_whiteout_spares_its_own_layer_in_any_order() {
    let entries = [Item::file("a/.wh.b", b""), Item::dir("a/b"), Item::file("a/b/new", b"new")];
    for order in [[0, 1, 2], [1, 0, 2], [1, 2, 0]] {
        let layer = order.iter().fold(Archive::new(), |layer, at| layer.add(entries[*at].clone()));
        assert_eq!(after(&layer).tree(), ["a", "a/b", "a/b/new", "a/file", "a/link", "etc", "etc/config"]);
    }
    let root = after(&Archive::new().file("a/file", b"upper").file("a/.wh.file", b""));
    assert_eq!(root.read("a/file"), b"upper");
    // The directory itself has no entry, but something in it has.
    let root = after(&Archive::new().file("a/b/c/new", b"").file(".wh.a", b""));
    assert_eq!(root.tree(), ["a", "a/b", "a/b/c", "a/b/c/new", "etc", "etc/config"]);
}

#[test]
fn an_opaque_whiteout_hides_lower_layers_in_any_order() {
    let entries = [
        Item::dir("a/"),
        Item::file("a/.wh..wh..opq", b""),
        Item::dir("a/b/"),
        Item::dir("a/b/c/"),
        Item::file("a/b/c/foo", b"foo"),
    ];
    for order in [[0, 1, 2, 3, 4], [0, 2, 3, 4, 1], [1, 0, 2, 3, 4], [0, 2, 1, 3, 4]] {
        let layer = order.iter().fold(Archive::new(), |layer, at| layer.add(entries[*at].clone()));
        assert_eq!(
            after(&layer).tree(),
            ["a", "a/b", "a/b/c", "a/b/c/foo", "etc", "etc/config"],
            "{order:?}"
        );
    }
    let root = after(&Archive::new().file(".wh..wh..opq", b"").file("new", b""));
    assert_eq!(root.tree(), ["new"]);
    let root = after(&Archive::new().file("fresh/.wh..wh..opq", b""));
    assert!(root.stat("fresh").is_dir());
}

#[test]
fn an_opaque_whiteout_tells_names_not_inodes() {
    // The upper layer's name for a file of the lower layer stays; the lower layer's name goes.
    let root = after(&Archive::new().hard_link("a/hard", "a/file").file("a/.wh..wh..opq", b""));
    assert_eq!(root.tree(), ["a", "a/hard", "etc", "etc/config"]);
    assert_eq!(root.read("a/hard"), b"lower");
}

#[test]
fn whiteouts_and_aufs_files_are_not_unpacked() {
    let root = Root::with(&[Archive::new()
        .file("d/.wh.x", b"")
        .file("d/.wh..wh..opq", b"")
        .file(".wh..wh.aufs", b"")
        .dir(".wh..wh.plnk/")
        .file(".wh..wh.plnk/12.34", b"x")
        .file("d/.wh..wh.orph", b"")]);
    assert_eq!(root.tree(), ["d"]);
}

#[test]
fn a_directory_over_a_directory_keeps_contents_and_replaces_attributes() {
    let lower = Archive::new()
        .add(Item::dir("d").mode(0o700).owner(1, 1).xattr("user.old", b"1").xattr("user.both", b"1"))
        .file("d/f", b"");
    let upper =
        Archive::new().add(Item::dir("d").mode(0o2755).owner(2, 3).mtime(50).xattr("user.both", b"2"));
    let root = Root::with(&[lower, upper]);
    let stat = root.stat("d");
    assert_eq!((stat.mode(), stat.uid(), stat.gid(), stat.mtime()), (0o042_755, 2, 3, 50));
    assert_eq!(root.xattr("d", "user.old"), None);
    assert_eq!(root.xattr("d", "user.both").as_deref(), Some(&b"2"[..]));
    assert!(root.exists("d/f"));
}

#[test]
fn everything_else_is_removed_and_made_anew() {
    let lower = || {
        Archive::new()
            .dir("d")
            .file("d/x", b"")
            .add(Item::file("f", b"lower").mode(0o4711).xattr("user.x", b"1"))
            .hard_link("f2", "f")
            .symlink("s", "d")
            .add(Item::new("p", b'6'))
    };
    let upper = |name: &str| Root::with(&[lower(), Archive::new().file(name, b"upper")]);
    for name in ["d", "f", "s", "p"] {
        let root = upper(name);
        assert_eq!((root.read(name), root.stat(name).mode()), (b"upper".to_vec(), 0o100_644), "{name}");
        assert_eq!(root.xattr(name, "user.x"), None);
        assert_eq!(root.read("f2"), b"lower", "the file's other name is another file now");
        assert_eq!(root.exists("d/x"), name != "d");
    }
    for name in ["f", "s", "p"] {
        let root = Root::with(&[lower(), Archive::new().dir(name).file(&format!("{name}/in"), b"")]);
        assert!(root.stat(name).is_dir(), "{name}");
        assert!(!root.exists("d/in"));
    }
    for name in ["d", "f", "s", "p"] {
        let root = Root::with(&[lower(), Archive::new().symlink(name, "elsewhere")]);
        assert_eq!(fs::read_link(root.at(name)).unwrap().to_str(), Some("elsewhere"));
    }
    for name in ["d", "f", "s"] {
        let root = Root::with(&[lower(), Archive::new().add(Item::new(name, b'6'))]);
        assert!(root.stat(name).file_type().is_fifo());
    }
}

#[test]
fn the_last_of_two_entries_counts() {
    let root = Root::with(&[Archive::new().file("x", b"1").dir("x").file("x/y", b"2").file("x/y", b"3")]);
    assert_eq!(root.read("x/y"), b"3");
}

#[test]
fn hard_links_work_within_and_across_layers() {
    let root = Root::with(&[
        Archive::new().add(Item::file("f", b"data").mode(0o600)).symlink("s", "f").hard_link("g", "./f"),
        Archive::new().hard_link("sub/h", "/f").hard_link("t", "s").add(Item::new("p", b'6')),
        Archive::new().hard_link("p2", "p"),
    ]);
    assert_eq!(root.stat("f").nlink(), 3);
    assert_eq!(root.stat("f").ino(), root.stat("sub/h").ino());
    assert!(root.stat("t").is_symlink());
    assert_eq!(root.stat("t").ino(), root.stat("s").ino());
    assert_eq!(root.stat("p2").ino(), root.stat("p").ino());
    // A link's entry describes the file.
    assert_eq!(root.stat("f").mode(), 0o100_644);
}

#[test]
fn hard_links_replace_and_may_repeat() {
    let lower = Archive::new().file("f", b"f").file("g", b"g").dir("d").file("d/x", b"");
    let root = Root::with(&[
        lower,
        Archive::new().hard_link("g", "f").hard_link("g", "f").hard_link("d", "f").hard_link("f", "f"),
    ]);
    assert_eq!(root.tree(), ["d", "f", "g"]);
    assert_eq!((root.stat("f").nlink(), root.read("d")), (3, b"f".to_vec()));
}

#[test]
fn hard_links_to_nothing_or_to_a_directory_are_refused() {
    for target in ["missing", "a", "", "/", "a/file/x", "../a/file"] {
        let root = Root::with(&[base()]);
        let error = root.apply(&Archive::new().hard_link("new", target)).unwrap_err();
        assert_eq!(error.api_reason(), ApiReason::DAMAGED_LAYER, "{target}: {error}");
        assert_eq!(error.entry.as_deref(), Some("new"));
        assert!(!root.exists("new"));
    }
}

#[test]
fn capabilities_outlive_the_change_of_owner_and_links() {
    let root = Root::with(&[Archive::new()
        .add(Item::file("ping", b"elf").mode(0o755).owner(7, 7).xattr("security.capability", CAPABILITY))
        .add(Item::new("ping6", b'1').link("ping").mode(0o755).owner(7, 7))]);
    assert_eq!(root.xattr("ping", "security.capability").as_deref(), Some(CAPABILITY));
    assert_eq!(root.stat("ping").uid(), 7);
}

#[test]
fn extended_attributes_are_set_on_every_kind() {
    let root = Root::with(&[Archive::new()
        .add(
            Item::file("f", b"x").xattr("user.a", b"\0\n=").xattr("user.empty", b"").xattr("trusted.t", b"1"),
        )
        .add(Item::dir("d").xattr("user.a", b"1").xattr("trusted.overlay.opaque", b"y"))
        .add(Item::new("s", b'2').link("f").xattr("trusted.t", b"2").xattr("user.a", b"ignored"))
        .add(Item::new("p", b'6').xattr("trusted.t", b"3").xattr("user.a", b"ignored"))
        .add(Item::new("f2", b'1').link("f").xattr("user.link", b"4"))
        .add(
            Item::file("mac", b"")
                .xattr("com.apple.provenance", b"1")
                .pax("LIBARCHIVE.xattr.user.b", b"eA=="),
        )]);
    let value = |path, name| root.xattr(path, name).map(|v| String::from_utf8(v).unwrap());
    assert_eq!(value("f", "user.a").as_deref(), Some("\0\n="));
    assert_eq!(value("f", "user.empty").as_deref(), Some(""));
    assert_eq!(value("f", "trusted.t").as_deref(), Some("1"));
    assert_eq!(value("f", "user.link").as_deref(), Some("4"));
    assert_eq!(value("d", "user.a").as_deref(), Some("1"));
    assert_eq!(value("d", "trusted.overlay.opaque"), None);
    assert_eq!(value("s", "trusted.t").as_deref(), Some("2"));
    assert_eq!(value("s", "user.a"), None);
    assert_eq!(value("p", "trusted.t").as_deref(), Some("3"));
    assert_eq!(value("mac", "user.b"), None);
}

#[test]
fn symlinked_directories_are_followed_within_the_root() {
    let lower = Archive::new()
        .dir("usr/lib")
        .symlink("lib", "usr/lib")
        .symlink("abs", "/usr/lib")
        .symlink("up", "../../../usr/lib")
        .symlink("dangling", "/made/by/link");
    let root = Root::with(&[
        lower,
        Archive::new()
            .file("lib/1", b"")
            .file("abs/2", b"")
            .file("up/sub/3", b"")
            .file("dangling/deep/4", b"")
            .hard_link("5", "lib/1"),
        Archive::new().file("lib/.wh.1", b"").file("up/sub/.wh..wh..opq", b""),
    ]);
    assert_eq!(
        root.tree(),
        [
            "5",
            "abs",
            "dangling",
            "lib",
            "made",
            "made/by",
            "made/by/link",
            "made/by/link/deep",
            "made/by/link/deep/4",
            "up",
            "usr",
            "usr/lib",
            "usr/lib/2",
            "usr/lib/sub"
        ]
    );
    assert!(root.stat("lib").is_symlink());
}

#[test]
fn a_path_that_no_longer_leads_there_is_found_out() {
    // The directory of "d/s/f" is d itself, until s is replaced.
    let layer = Archive::new().dir("d").symlink("d/s", ".").file("d/s/f", b"1");
    let root = Root::with(&[layer.clone().dir("d/s/s").file("d/s/g", b"2")]);
    assert_eq!(root.tree(), ["d", "d/f", "d/s", "d/s/g"]);
    let error = Root::new().apply(&layer.file("d/s/s", b"").file("d/s/g", b"")).unwrap_err();
    assert_eq!((error.entry.as_deref(), error.api_reason()), (Some("d/s/g"), ApiReason::DAMAGED_LAYER));
}

#[test]
fn a_file_is_not_a_directory() {
    let error = Root::with(&[base()]).apply(&Archive::new().file("a/file/x", b"")).unwrap_err();
    assert_eq!(error.api_reason(), ApiReason::DAMAGED_LAYER);
}

#[test]
fn an_error_names_the_entry_the_layer_and_the_reason() {
    let error = Root::new().apply(&Archive::new().file("ok", b"").file("x/../../y\u{7}", b"")).unwrap_err();
    assert_eq!(error.to_string(), r#"entry "x/../../y\x07": the path climbs out of the root"#);
    let error = crate::unpack::UnpackError::Layer { number: 2, total: 3, error };
    assert!(error.to_string().starts_with("layer 2 of 3: entry \"x/"));
    assert_eq!(error.api_reason(), ApiReason::DAMAGED_LAYER);
}
