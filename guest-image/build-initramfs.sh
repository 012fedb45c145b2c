#!/bin/bash
# Writes the initramfs: the agent as /init, the directories it mounts on, and the console node. Uncompressed cpio
# ("newc", the kernel's Documentation/driver-api/early-userspace/buffer-format.rst), the same bytes for the same agent.
# Needs no root, since device nodes are only entries in the archive. OUT is replaced in one rename, and left alone when
# it would not change.
#
# usage: build-initramfs.sh AGENT OUT
set -euo pipefail
export LC_ALL=C

if [ $# != 2 ]; then
    echo "usage: build-initramfs.sh AGENT OUT" >&2
    exit 2
fi
agent=$1
out=$2

die() {
    echo "initramfs: $*" >&2
    exit 1
}

inode=0

# entry NAME MODE(octal) [FILE | MAJOR MINOR]
entry() {
    local name=$1 mode=$((8#$2)) size=0 file= major=0 minor=0
    if [ $# = 3 ]; then
        file=$3
        size=$(stat -c %s "$file")
    elif [ $# = 4 ]; then
        major=$3
        minor=$4
    fi
    inode=$((inode + 1))
    # magic inode mode uid gid links mtime size dev(2) rdev(2) name-length checksum
    printf '070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X' \
        $inode $mode 0 0 1 0 "$size" 0 0 "$major" "$minor" $((${#name} + 1)) 0
    printf '%s\0' "$name"
    pad $((110 + ${#name} + 1))
    if [ -n "$file" ]; then
        cat "$file"
        pad "$size"
    fi
}

# Fills up to a multiple of four after LENGTH bytes.
pad() {
    head -c $(((4 - $1 % 4) % 4)) /dev/zero
}

archive() {
    entry dev 040755
    entry dev/console 020600 5 1
    entry proc 040755
    entry run 040755
    entry sys 040755
    entry tmp 041777
    entry init 0100755 "$agent"
    inode=-1
    entry 'TRAILER!!!' 0
}

[ -f "$agent" ] || die "$agent is not a file; build the agent first"
[ "$(head -c 4 "$agent" | od -An -tx1 | tr -d ' ')" = 7f454c46 ] || die "$agent is not an ELF program"
! readelf -lW "$agent" 2>/dev/null | grep INTERP >/dev/null || die "$agent is dynamically linked, and the initramfs holds no libraries"

mkdir -p "$(dirname "$out")"
new=$(mktemp "$out.XXXXXX")
trap 'rm -f "$new"' EXIT
archive >"$new"
chmod 644 "$new"
if cmp -s "$new" "$out"; then
    echo "initramfs: $out is up to date" >&2
else
    mv "$new" "$out"
    echo "initramfs: wrote $out, $(($(stat -c %s "$out") / 1024)) KiB" >&2
fi
