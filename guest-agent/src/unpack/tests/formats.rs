//! The dialects of tar.

use std::os::unix::fs::MetadataExt;

use super::Root;
use super::archive::{Archive, Item};
use husk_protocol::agent::Reason as ApiReason;

/// The octal and base-256 fields: uid, gid, size, mtime.
const UID: (usize, usize) = (108, 8);
const GID: (usize, usize) = (116, 8);
const SIZE: (usize, usize) = (124, 12);
const MTIME: (usize, usize) = (136, 12);

fn damaged(layer: &Archive) -> String {
    let error = Root::new().apply(layer).unwrap_err();
    assert_eq!(error.api_reason(), ApiReason::DAMAGED_LAYER, "{error}");
    error.to_string()
}

#[test]
fn v7_directories_are_told_by_their_slash() {
    let v7 = |name: &str| {
        let mut item = Item::new(name, 0);
        item.header[257..265].fill(0);
        item
    };
    let root = Root::with(&[Archive::new().add(v7("d/")).add(v7("f").data(b"x"))]);
    assert!(root.stat("d").is_dir());
    assert_eq!(root.read("f"), b"x");
}

#[test]
fn ustar_prefixes_gnu_names_and_pax_paths_make_long_names() {
    let long = format!("{}/{}", "d".repeat(140), "n".repeat(90));
    let mut ustar = Item::file(&"n".repeat(90), b"ustar");
    ustar.header[345..485].fill(b'd');
    let gnu_name = format!("{}/{}", "g".repeat(200), "h".repeat(200));
    let gnu_link = "t".repeat(300);
    let pax_name = "p/".repeat(500) + "ü";
    let root = Root::with(&[Archive::new()
        .add(ustar)
        .gnu_long(b'K', gnu_link.as_bytes())
        .gnu_long(b'L', gnu_name.as_bytes())
        .add(Item::new("short", b'2').gnu().link("cut"))
        .add(Item::file("short", b"pax").pax("path", pax_name.as_bytes()))
        .add(Item::new("s2", b'2').pax("linkpath", gnu_link.as_bytes()))
        .add(Item::new("hard", b'1').pax("linkpath", pax_name.as_bytes()))]);
    assert_eq!(root.read(&long), b"ustar");
    assert_eq!(root.read(&pax_name), b"pax");
    assert_eq!(root.read("hard"), b"pax");
    for link in [&gnu_name[..], "s2"] {
        assert_eq!(std::fs::read_link(root.at(link)).unwrap().to_str(), Some(&gnu_link[..]));
    }
    assert!(!root.exists("short"));
}

#[test]
fn a_star_header_has_times_behind_its_prefix() {
    let mut star = Item::file("f", b"star");
    star.header[345..347].copy_from_slice(b"dd");
    star.header[476..487].copy_from_slice(b"00000001750");
    star.header[508..].copy_from_slice(b"tar\0");
    assert_eq!(Root::with(&[Archive::new().add(star)]).read("dd/f"), b"star");
}

#[test]
fn numbers_beyond_octal() {
    let big = 4_000_000_000u32;
    let root = Root::with(&[Archive::new()
        .add(
            Item::file("base256", b"")
                .gnu()
                .base256(UID.0, UID.1, big.into())
                .base256(GID.0, GID.1, i64::from(big) + 1)
                .base256(MTIME.0, MTIME.1, -5),
        )
        .add(
            Item::file("pax", b"")
                .pax("uid", b"4000000000")
                .pax("gid", b"4000000001")
                .pax("mtime", b"-3.25")
                .pax("atime", b"1700000000.000000001"),
        )]);
    for name in ["base256", "pax"] {
        assert_eq!((root.stat(name).uid(), root.stat(name).gid()), (big, big + 1));
    }
    assert_eq!(root.mtime("base256"), (-5, 0));
    assert_eq!(root.mtime("pax"), (-4, 750_000_000));
    assert_eq!((root.stat("pax").atime(), root.stat("pax").atime_nsec()), (1_700_000_000, 1));
}

#[test]
fn ids_that_no_file_can_have_are_refused() {
    for value in ["-1", "4294967295", "4294967296", "9223372036854775807"] {
        for key in ["uid", "gid"] {
            let message = damaged(&Archive::new().add(Item::file("f", b"").pax(key, value.as_bytes())));
            assert!(message.contains("bad user or group id"), "{message}");
        }
    }
}

#[test]
fn times_have_nanoseconds_on_every_kind() {
    let time = |item: Item| item.pax("mtime", b"1234567890.123456789");
    let root = Root::with(&[Archive::new()
        .add(time(Item::file("f", b"x")))
        .add(time(Item::new("s", b'2').link("f")))
        .add(time(Item::new("p", b'6')))
        .add(time(Item::dir("d")))
        .file("d/later", b"")]);
    for name in ["f", "s", "p", "d"] {
        assert_eq!(root.mtime(name), (1_234_567_890, 123_456_789), "{name}");
    }
}

#[test]
fn global_headers_are_ignored() {
    let global = Item::new("pax_global_header", b'g').data(b"17 path=nonsense\n52 comment=abc\n");
    let root = Root::with(&[Archive::new().add(global).file("a", b"a")]);
    assert_eq!(root.tree(), ["a"]);
}

#[test]
fn a_pax_size_overrides_the_headers() {
    let item = Item::file("f", &[b'x'; 700]).octal(SIZE.0, SIZE.1, 0).pax("size", b"700");
    let root = Root::with(&[Archive::new().add(item).file("g", b"next")]);
    assert_eq!((root.read("f").len(), root.read("g")), (700, b"next".to_vec()));
}

#[test]
fn entries_without_data_have_none_whatever_their_size_says() {
    let root = Root::with(&[Archive::new()
        .add(Item::dir("d").octal(SIZE.0, SIZE.1, 4096))
        .file("f", b"x")
        .add(Item::new("h", b'1').link("f").octal(SIZE.0, SIZE.1, 1))
        .add(Item::new("s", b'2').link("f").octal(SIZE.0, SIZE.1, 99))
        .file("last", b"y")]);
    assert_eq!(root.tree(), ["d", "f", "h", "last", "s"]);
}

#[test]
fn an_archive_may_end_without_marks_or_padding() {
    let archive = Archive::new().file("a", b"a").file("b", b"b");
    for end in [archive.unfinished().len(), archive.unfinished().len() - 511] {
        let root = Root::new();
        root.apply_bytes(&archive.unfinished()[..end]).unwrap();
        assert_eq!(root.read("b"), b"b");
    }
    let root = Root::new();
    root.apply_bytes(archive.clone().raw(&[0; 512]).unfinished()).unwrap();
    root.apply_bytes(b"").unwrap();
    // What follows the end is digested, nothing more.
    root.apply_bytes(&[archive.finish(), b"trailer".repeat(100_000)].concat()).unwrap();
    assert_eq!(root.tree(), ["a", "b"]);
}

#[test]
fn broken_headers_are_refused_with_their_place() {
    let good = Archive::new().file("a", b"a");
    let mut checksum = good.clone().file("b", b"").unfinished().to_vec();
    checksum[1024] ^= 1;
    assert!(
        damaged(&Archive::new().raw(&checksum)).contains("checksum does not match (header at byte 1024)")
    );
    assert!(damaged(&good.clone().raw(&[0; 512]).file("b", b"")).contains("zeros"));
    assert!(damaged(&good.clone().add(Item::new("x", b'V'))).contains("unknown type"));
    assert!(damaged(&good.clone().add(Item::new("x", b'S'))).contains("unknown type"));
    assert!(
        damaged(&Archive::new().add(Item::file("x", b"").gnu().base256(SIZE.0, SIZE.1, -1)))
            .contains("negative")
    );
    assert!(damaged(&Archive::new().add(Item::new("x", b'3').device(1 << 12, 0))).contains("device number"));
    assert!(damaged(&Archive::new().file("", b"")).contains("empty"));
    assert!(damaged(&Archive::new().add(Item::new("x", b'x').data(b"99 a=b\n"))).contains("pax record"));
}

#[test]
fn extended_headers_have_a_limit() {
    let huge = vec![b'x'; (1 << 20) + 1];
    for flag in [b'L', b'K', b'x'] {
        let message = damaged(&Archive::new().add(Item::new("x", flag).gnu().data(&huge)));
        assert!(message.contains("too long"), "{message}");
    }
    // Claiming terabytes costs nothing.
    let claim = Item::new("x", b'x').base256(SIZE.0, SIZE.1, 1 << 42);
    assert!(damaged(&Archive::new().add(claim)).contains("too long"));
}

/// Two stretches of data in a file of 1 MiB.
const REAL_SIZE: u64 = 1 << 20;
fn check_sparse(root: &Root, name: &str) {
    let data = root.read(name);
    assert_eq!(data.len() as u64, REAL_SIZE);
    assert_eq!(&data[..512], [b'a'; 512]);
    assert_eq!(&data[524_288..524_388], [b'b'; 100]);
    assert!(data[512..524_288].iter().chain(&data[524_388..]).all(|b| *b == 0));
    assert!(root.stat(name).blocks() * 512 < 65_536, "holes stay holes");
}

fn sparse_data() -> Vec<u8> {
    [[b'a'; 512].to_vec(), [b'b'; 100].to_vec()].concat()
}

#[test]
fn old_gnu_sparse_files() {
    let fields = |item: Item, at: usize, pairs: &[(u64, u64)]| {
        pairs.iter().enumerate().fold(item, |item, (n, (offset, length))| {
            item.octal(at + 24 * n, 12, *offset).octal(at + 24 * n + 12, 12, *length)
        })
    };
    let item = Item::new("s", b'S').gnu().data(&sparse_data()).octal(483, 12, REAL_SIZE);
    let short = fields(item.clone(), 386, &[(0, 512), (524_288, 100), (REAL_SIZE, 0)]);
    let root = Root::with(&[Archive::new().add(short).file("next", b"x")]);
    check_sparse(&root, "s");
    assert_eq!(root.read("next"), b"x");

    // With the map going on in two further blocks.
    let mut long = fields(item.clone().data(b""), 386, &[(0, 128), (128, 128), (256, 128), (384, 128)]);
    long = long.octal(SIZE.0, SIZE.1, 612);
    long.header[482] = 1;
    let extension = |pairs: &[(u64, u64)], more: u8| {
        let mut block = fields(Item::new("", 0), 0, pairs).header;
        for (at, byte) in block.iter_mut().enumerate().skip(24 * pairs.len()) {
            *byte = if at == 504 { more } else { 0 };
        }
        block
    };
    let archive = Archive::new()
        .add(long)
        .raw(&extension(&[(524_288, 50); 1], 1))
        .raw(&extension(&[(524_338, 50), (REAL_SIZE, 0)], 0))
        .raw(&sparse_data())
        .raw(&[0; 412])
        .file("next", b"x");
    let root = Root::with(&[archive]);
    check_sparse(&root, "s");
    assert_eq!(root.read("next"), b"x");
}

#[test]
fn pax_sparse_files() {
    let real = REAL_SIZE.to_string();
    let item = |name: &str| Item::file(name, &sparse_data());
    let v00 = item("v00")
        .pax("GNU.sparse.size", real.as_bytes())
        .pax("GNU.sparse.numblocks", b"2")
        .pax("GNU.sparse.offset", b"0")
        .pax("GNU.sparse.numbytes", b"512")
        .pax("GNU.sparse.offset", b"524288")
        .pax("GNU.sparse.numbytes", b"100");
    let v01 = item("GNUSparseFile.1/v01")
        .pax("GNU.sparse.size", real.as_bytes())
        .pax("GNU.sparse.name", b"v01")
        .pax("GNU.sparse.map", b"0,512,524288,100");
    let mut map = b"2\n0\n512\n524288\n100\n".to_vec();
    map.resize(512, 0);
    let v10 = Item::file("GNUSparseFile.1/v10", &[map, sparse_data()].concat())
        .pax("GNU.sparse.major", b"1")
        .pax("GNU.sparse.minor", b"0")
        .pax("GNU.sparse.name", b"v10")
        .pax("GNU.sparse.realsize", real.as_bytes());
    let root = Root::with(&[Archive::new().add(v00).add(v01).add(v10).file("next", b"x")]);
    assert_eq!(root.tree(), ["next", "v00", "v01", "v10"]);
    for name in ["v00", "v01", "v10"] {
        check_sparse(&root, name);
    }
}

#[test]
fn sparse_maps_that_lie_are_refused() {
    let sparse = |map: &str, size: &str| {
        let item = Item::file("f", &sparse_data()).pax("GNU.sparse.map", map.as_bytes());
        Archive::new().add(item.pax("GNU.sparse.size", size.as_bytes()))
    };
    for (map, size) in [
        ("0,512,256,100", "9999"),
        ("0,512,9000,1000", "9999"),
        ("0,512", "9999"),
        ("0,613", "9999"),
        ("0,512,600", "9999"),
        ("0,9223372036854775807,9223372036854775807,9223372036854775807", "9223372036854775807"),
    ] {
        assert!(damaged(&sparse(map, size)).contains("sparse map"), "{map}");
    }
    let version = |major: &str, minor: &str| {
        let item = Item::file("f", b"").pax("GNU.sparse.major", major.as_bytes());
        damaged(&Archive::new().add(item.pax("GNU.sparse.minor", minor.as_bytes())))
    };
    assert!(version("2", "0").contains("unknown version"));
    assert!(version("1", "1").contains("unknown version"));
    assert!(version("1", "0").contains("cut short"));
}

#[test]
fn zeros_become_holes() {
    let mut data = vec![0; 1 << 20];
    data[5000] = 1;
    data[700_000] = 2;
    let mut tail = vec![0; 100_000];
    tail[0] = 3;
    let root = Root::with(&[Archive::new()
        .file("odd", b"123")
        .file("f", &data)
        .file("tail", &tail)
        .file("zeros", &[0; 10_000])]);
    assert_eq!(root.read("f"), data);
    assert_eq!(root.read("tail"), tail);
    assert_eq!(root.read("zeros"), [0; 10_000]);
    assert!(root.stat("f").blocks() <= 2 * 8 + 8);
    assert!(root.stat("zeros").blocks() <= 8);
}
