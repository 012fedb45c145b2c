#!/usr/bin/env bash
# Builds the images for demo and tests from Debian's packages, once per set of inputs, and prints where they are: a
# folder with `layout` (an OCI image layout) and `registry` (a docker-registry's storage that holds them all).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${HUSK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/husk}/images
# shellcheck source=/dev/null
suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")
busybox=$(command -v busybox)
key=$({ cat "$here"/*.py "$here/build.sh" "$busybox"; echo "$suite"; } | sha256sum | cut -c 1-16)
done=$cache/$key

mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
if [ ! -d "$done" ]; then
    work=$(mktemp -d "$cache/.building.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    export SOURCE_DATE_EPOCH=1700000000
    # shellcheck disable=SC2016 # mmdebstrap gives the hook its directory as $1
    root() { # root NAME PACKAGES: a minimal Debian with these packages, as a tar
        echo "images: Debian $suite with $2" >&2
        mmdebstrap --quiet --variant=minbase --include="$2" \
            --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
            --dpkgopt='path-exclude=/usr/share/locale/*' \
            --customize-hook='rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/*' \
            "$suite" "$work/$1.tar" >&2
    }
    root python python3-minimal
    root redis redis-server,redis-tools
    echo "images: layouts" >&2
    python3 "$here/build.py" "$work/layout" "$busybox" "$work/python.tar" "$work/redis.tar"
    rm "$work"/*.tar
    echo "images: pushing to a registry" >&2
    "$here/registry.sh" fill "$work/registry" "$work/layout"
    chmod 755 "$work"
    mv "$work" "$done"
    trap - EXIT
fi
echo "$done"
