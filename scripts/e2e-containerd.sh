#!/usr/bin/env bash
# Tests the containerd runtime with real containerds, each in an emulated machine with a root file system of its own: Debian
# 12's (1.6), Debian 13's (1.7) and that of Debian sid (2.x). HUSK_TEST_SUITES names others; arguments go to the tests.
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

read -ra suites <<<"${HUSK_TEST_SUITES:-bookworm trixie sid}"

# Prints the directory of a root file system with containerd, made once and kept in the cache.
root_of() {
    local suite=$1 made options=()
    # Old and new packages are all the same here; sid's index may be a mirror's old one.
    [ "$suite" != sid ] || options+=("--aptopt=Acquire::Check-Valid-Until \"false\"")
    made=$cache/containerd/$suite-1
    mkdir -p "$cache/containerd"
    (
        flock 9
        [ -d "$made" ] || {
            rm -rf "$made.tmp"
            mmdebstrap --quiet --variant=minbase --include=containerd,runc "${options[@]}" "$suite" "$made.tmp" >&2 &&
                mv "$made.tmp" "$made"
        }
    ) 9>"$cache/containerd/$suite.lock" && echo "$made"
}

step "Building the tests of containerd's runtime"
cargo build --locked --release --package husk --package husk-shim --package husk-vmm --package husk-filesystem --package husk-lab
mkdir -p build/e2e
binary=$(cargo test --locked --release --no-run --package husk-tests --test containerd --message-format json |
    sed -n 's/.*"executable":"\([^"]*containerd-[^"]*\)".*/\1/p' | tail -n 1)
archive=build/e2e/busybox.tar
rm -f "$archive"
skopeo copy --quiet oci:build/images/layout:busybox:latest "docker-archive:$archive:docker.io/library/busybox:latest"

failed=0
for suite in "${suites[@]}"; do
    step "Making a root file system of Debian $suite"
    if ! made=$(root_of "$suite"); then
        step "SKIPPED: the tests with the containerd of Debian $suite, of which no root file system can be made"
        continue
    fi
    quietly env DESTDIR="$made" scripts/install.sh
    install -D -m 644 "$archive" "$made/opt/husk-test/busybox.tar"
    install -D -m 755 "$binary" "$made/opt/husk-test/containerd"
    step "Running the tests with the containerd of Debian $suite"
    # Again only when the emulated machine hung (124) or crashed (125), as in e2e.sh.
    for try in 1 2; do
        code=0
        "$release/husk-lab" run --root "$made" --disk-size 2048 --timeout 600 --out "build/e2e/containerd-$suite" \
            --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
            -- /opt/husk-test/containerd --test-threads 1 --nocapture "$@" || code=$?
        [ "$code" = 124 ] || [ "$code" = 125 ] || break
        step "The emulated machine hung or crashed (try $try)"
    done
    [ "$code" = 0 ] || failed=1
done
[ "$failed" = 0 ] || { echo "FAILED: tests of containerd's runtime; its logs are in build/e2e/containerd-*" >&2; exit 1; }
