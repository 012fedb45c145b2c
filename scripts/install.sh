#!/usr/bin/env bash
# Installs what scripts/build.sh made: DESTDIR and PREFIX say where.
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

to=${DESTDIR:-}${PREFIX:-/usr/local}

step "Looking for what was built"
for file in "$release/husk" "$release/husk-supervisor" "$release/containerd-shim-husk-v2" "$release/husk-vmm" "$release/husk-fs" build/guest/vmlinux build/guest/initramfs.cpio; do
    [ -f "$file" ] || { echo "$file is missing: run \`make build\` first" >&2; exit 1; }
done

step "Installing to $to"
install -D -m 755 "$release/husk" "$to/bin/husk"
install -D -m 755 "$release/containerd-shim-husk-v2" "$to/bin/containerd-shim-husk-v2"
install -D -m 755 "$release/husk-vmm" "$to/libexec/husk/husk-vmm"
install -D -m 755 "$release/husk-fs" "$to/libexec/husk/husk-fs"
install -D -m 755 "$release/husk-supervisor" "$to/libexec/husk/husk-supervisor"
install -D -m 644 build/guest/vmlinux "$to/share/husk/vmlinux"
install -D -m 644 build/guest/initramfs.cpio "$to/share/husk/initramfs.cpio"
for page in README.md LICENSE docs/*.md; do
    install -D -m 644 "$page" "$to/share/doc/husk/$(basename "$page")"
done
