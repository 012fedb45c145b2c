"""Images whose layers exercise every rule of the OCI layer format, with a script in them that checks the outcome."""

import struct
import tarfile

from oci import Tar

LONG_NAME = "n" * 180
LONG_LINK = "l" * 150
HUGE = 16 << 30
NANOSECONDS = "1234567890.123456789"
BIG_ID = 70_000_000

# VFS_CAP_REVISION_2, effective, with cap_net_raw permitted (linux/capability.h)
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)

CHECK = r"""#!/bin/sh
# Exit code: how many rules do not hold. Prints each that does not.
cd /rules || exit 99
bad=0
is() { # is WHAT EXPECTED ACTUAL
    if [ "$2" != "$3" ]; then echo "$1: expected <$2>, got <$3>"; bad=$((bad + 1)); fi
}
there() { [ -e "$1" ] || [ -L "$1" ] || { echo "$1 is missing"; bad=$((bad + 1)); }; }
gone() { if [ -e "$1" ] || [ -L "$1" ]; then echo "$1 should be gone"; bad=$((bad + 1)); fi; }

there keep
gone gone-file
gone gone-dir
gone .wh.gone-file
gone opaque/.wh..wh..opq
is "opaque directory" "new" "$(ls opaque)"
is "opaque before its entries" "early late" "$(ls opaque2 | tr '\n' ' ' | sed 's/ $//')"
is "hard link across layers" "$(stat -c %i link-target)" "$(stat -c %i hard)"
is "hard link's content" original "$(cat hard)"
is "links" 2 "$(stat -c %h hard)"
is "directory became file" "regular file" "$(stat -c %F dir-becomes-file)"
is "file became directory" inner "$(ls file-becomes-dir)"
is "directory keeps its content" keepme "$(ls meta-dir)"
is "directory's new metadata" "700 12 34" "$(stat -c '%a %u %g' meta-dir)"
is "through a symlink" through "$(cat real/through)"
is "through an absolute symlink" through2 "$(cat real/through2)"
is "symlink kept" real "$(readlink symlinked)"
is "symlink to nowhere kept" /nowhere/at/all "$(readlink dangling)"
is "replaced symlink" "regular file" "$(stat -c %F was-link)"
is "its old target untouched" untouched "$(cat link-victim)"
is "setuid" "4755 0 0" "$(stat -c '%a %u %g' setuid)"
is "sticky" 1777 "$(stat -c %a sticky)"
is "large ids" "70000000 70000001" "$(stat -c '%u %g' big-ids)"
is "time" 1234567890 "$(stat -c %Y timed)"
is "nanoseconds" 1 "$(stat -c %y timed | grep -c '\.123456789')"
is "directory's time" 1111111111 "$(stat -c %Y old-dir)"
is "character device" "character special file 1 3" "$(stat -c '%F %t %T' null-device)"
is "block device" "block special file 7 0" "$(stat -c '%F %t %T' block-device)"
is "FIFO" fifo "$(stat -c %F fifo)"
is "long name" long "$(cat nnnnnnnnnnnnnnnn*)"
is "long link" 150 "$(readlink long-link | tr -d '\n' | wc -c)"
is "name in UTF-8" utf8 "$(cat 'grüße-日本')"
is "name with spaces and newline" odd "$(cat 'a b
c')"
is "sparse file's size" 17179869184 "$(stat -c %s sparse)"
is "sparse file is sparse" yes "$([ "$(stat -c %b sparse)" -lt 4096 ] && echo yes)"
is "sparse file's begin" BEGIN "$(head -c 5 sparse)"
is "sparse file's end" END "$(tail -c 3 sparse)"
is "parents made" 755 "$(stat -c %a made/up/parents)"
is "same name twice" second "$(cat twice)"
is "capability" 0000000000002000 "$(su app -s /bin/sh -c '/rules/capable/grep CapEff /proc/self/status' | awk '{ print $2 }')"
[ "$bad" = 0 ] && echo "all layer rules hold"
exit "$bad"
"""


def sparse_1_0(tar, name, size, segments):
    """A sparse file in GNU's PAX format 1.0: the map is the first part of the data."""
    table = f"{len(segments)}\n" + "".join(f"{offset}\n{len(data)}\n" for offset, data in segments)
    head = table.encode()
    head += b"\0" * (-len(head) % 512)
    data = head + b"".join(data for _, data in segments)
    pax = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": name,
        "GNU.sparse.realsize": str(size),
    }
    tar.add("GNUSparseFile.0/" + name.rsplit("/", 1)[-1], data=data, pax=pax)


def add(layout, busybox, base, path):
    first = Tar()
    first.dir("rules")
    first.file("rules/keep").file("rules/gone-file").dir("rules/gone-dir").file("rules/gone-dir/a")
    first.dir("rules/opaque").file("rules/opaque/old1").dir("rules/opaque/sub").file("rules/opaque/sub/old")
    first.dir("rules/opaque2").file("rules/opaque2/old")
    first.file("rules/link-target", "original")
    first.dir("rules/dir-becomes-file").file("rules/dir-becomes-file/x").file("rules/file-becomes-dir")
    first.dir("rules/meta-dir").file("rules/meta-dir/keepme")
    first.dir("rules/real").symlink("rules/symlinked", "real").symlink("rules/absolute", "/rules/real")
    first.symlink("rules/dangling", "/nowhere/at/all")
    first.file("rules/link-victim", "untouched").symlink("rules/was-link", "link-victim")

    second = Tar()
    second.file("rules/.wh.gone-file").file("rules/.wh.gone-dir")
    second.file("rules/opaque/.wh..wh..opq").file("rules/opaque/new")
    second.file("rules/opaque2/early").file("rules/opaque2/.wh..wh..opq").file("rules/opaque2/late")
    second.hardlink("rules/hard", "rules/link-target")
    second.file("rules/dir-becomes-file", "file").dir("rules/file-becomes-dir").file("rules/file-becomes-dir/inner")
    second.dir("rules/meta-dir", mode=0o700, uid=12, gid=34)
    second.file("rules/symlinked/through", "through").file("rules/absolute/through2", "through2")
    second.file("rules/was-link", "new")

    third = Tar()
    third.file("rules/setuid", "x", mode=0o4755).dir("rules/sticky", mode=0o1777)
    third.file("rules/big-ids", uid=BIG_ID, gid=BIG_ID + 1)
    third.file("rules/timed", pax={"mtime": NANOSECONDS})
    third.dir("rules/old-dir", mtime=1_111_111_111).file("rules/old-dir/later")
    third.add("rules/null-device", kind=tarfile.CHRTYPE, device=(1, 3), mode=0o666)
    third.add("rules/block-device", kind=tarfile.BLKTYPE, device=(7, 0), mode=0o600)
    third.add("rules/fifo", kind=tarfile.FIFOTYPE)
    third.file("rules/" + LONG_NAME, "long").symlink("rules/long-link", LONG_LINK)
    third.file("rules/grüße-日本", "utf8").file("rules/a b\nc", "odd")
    sparse_1_0(third, "rules/sparse", HUGE, [(0, b"BEGIN"), (HUGE - 3, b"END")])
    third.file("rules/made/up/parents/file")
    third.file("rules/twice", "first").file("rules/twice", "second")

    fourth = Tar()
    fourth.file("check.sh", CHECK, mode=0o755)

    layout.image(
        "layers:latest",
        [
            base,
            (first.bytes(), "gzip"),
            (second.bytes(), "zstd"),
            (third.bytes(), None),
            (fourth.bytes(), "gzip"),
            (capable_layer(busybox), "gzip"),
        ],
        {"Cmd": ["/check.sh"], "Env": [path]},
    )
    many = [(Tar().file(f"many/{n}", str(n)).bytes(), "gzip") for n in range(30)]
    layout.image("many:latest", [base, *many], {"Cmd": ["sh", "-c", "ls /many | wc -l"], "Env": [path]})


def capable_layer(busybox):
    """A busybox with file capabilities, by the name of the applet it is to be."""
    with open(busybox, "rb") as file:
        binary = file.read()
    pax = {"SCHILY.xattr.security.capability": CAPABILITY.decode("ascii")}
    return Tar().file("rules/capable/grep", binary, mode=0o755, pax=pax).bytes()
