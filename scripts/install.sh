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

sed "s|@PREFIX@|${PREFIX:-/usr/local}|" packaging/husk-boot.service |
    install -D -m 644 /dev/stdin "$to/lib/systemd/system/husk-boot.service"

step "Making completions and the manual's pages"
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
for shell in bash zsh fish; do
    "$release/husk" completion "$shell" >"$made/$shell"
done
"$release/husk" man "$made/man1"
install -D -m 644 "$made/bash" "$to/share/bash-completion/completions/husk"
install -D -m 644 "$made/zsh" "$to/share/zsh/site-functions/_husk"
install -D -m 644 "$made/fish" "$to/share/fish/vendor_completions.d/husk.fish"
install -d "$to/share/man/man1"
install -m 644 "$made"/man1/*.1 "$to/share/man/man1/"

step "Installing the documentation"
for page in README.md LICENSE docs/*.md; do
    install -D -m 644 "$page" "$to/share/doc/husk/$(basename "$page")"
done
