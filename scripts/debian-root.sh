#!/usr/bin/env bash
# Prints the directory of a root file system of a Debian suite with some packages, made once and kept in the cache.
#
# usage: debian-root.sh SUITE PACKAGE,...
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

suite=$1 packages=$2 options=()
# Old and new packages are all the same here; sid's index may be a mirror's old one.
[ "$suite" != sid ] || options+=("--aptopt=Acquire::Check-Valid-Until \"false\"")
made=$cache/containerd/$suite-$(sha256sum <<<"$packages" | cut -c 1-8)
mkdir -p "$cache/containerd"
exec 9>"$made.lock"
flock 9
if [ ! -d "$made" ]; then
    rm -rf "$made.tmp"
    mmdebstrap --quiet --variant=minbase --include="$packages" "${options[@]}" "$suite" "$made.tmp" >&2
    mv "$made.tmp" "$made"
fi
echo "$made"
