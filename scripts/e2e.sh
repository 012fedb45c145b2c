#!/usr/bin/env bash
# Runs the end-to-end tests on real VMs: builds everything here, then runs them in the lab, or directly where
# KVM can be used by root (some tests mount and change users). Arguments go to nextest, as in `scripts/e2e.sh kill9`.
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

if [ "${1:-}" != --inside ]; then
    step "Building the end-to-end tests' init for guests"
    target=x86_64-unknown-linux-gnu
    RUSTFLAGS="-C target-feature=+crt-static -C relocation-model=static" LIBSECCOMP_LINK_TYPE=static \
        LIBSECCOMP_LIB_PATH=/usr/lib/x86_64-linux-gnu \
        cargo build --locked --profile agent --package husk-tests --bin guest-init \
        --target "$target" --target-dir build/agent-target
    guest-image/build-initramfs.sh "build/agent-target/$target/agent/guest-init" build/e2e/initramfs.cpio

    step "Building the end-to-end tests' hostile guest"
    cargo build --locked --release --manifest-path tests/hostile-guest/Cargo.toml --target "$target" \
        --target-dir build/agent-target

    step "Building the end-to-end tests"
    cargo metadata --locked --format-version 1 --filter-platform x86_64-unknown-linux-gnu >build/e2e/cargo.json
    cargo nextest list --locked --cargo-profile release --package husk-tests --test e2e \
        --list-type binaries-only --message-format json >build/e2e/binaries.json

    # run FILTER NEXTEST-OPTIONS...: should the emulated machine hang, its time limit passes (124), and should its kernel
    # crash, that is 125. Only then is a run begun again, some times at most, with the tests that have not passed yet. Failed
    # tests never are. In a network and with mounts of their own: nothing of this machine's is touched.
    run() {
        local filter=$1 passed try code log
        shift
        log=$(mktemp)
        for try in 1 2 3; do
            code=0
            in_machine --timeout 1500 -- unshare --net --mount "$root/scripts/e2e.sh" --inside -E "$filter" "$@" 2>&1 |
                tee "$log" || code=$?
            [ "$code" = 124 ] || [ "$code" = 125 ] || break
            [ "$try" -lt 3 ] || break
            step "Running those again that have not passed: the emulated machine hung or crashed"
            passed=$(sed -n 's/^ *\(TRY [0-9] \)\?PASS .*husk-tests::e2e \([^ ]*\)$/test(=\2)/p' "$log" | sort -u | paste -sd+)
            [ -z "$passed" ] || filter="($filter) - ($passed)"
        done
        rm -f "$log"
        return "$code"
    }
    if [ $# -gt 0 ]; then
        step "Running the end-to-end tests"
        in_machine --timeout 1800 -- unshare --net --mount "$root/scripts/e2e.sh" --inside "$@"
        exit
    fi
    others='test(/^(kill_sweep|network.*|cni|join|unprivileged|hostile_guest)::/)'
    if kvm_usable; then
        step "Running the end-to-end tests"
        run "all()"
        step "Running the end-to-end test with fifty guests"
        run 'test(fifty_start_at_once)' --run-ignored only
    else
        # Emulated machines have one CPU each, so that two at once use two. What happens to one concerns only half of the tests.
        step "Running the end-to-end tests, those of networks and hostile guests beside the others; they are shown afterwards"
        mkdir -p build/e2e
        set -m # a process group of its own
        run "$others" >build/e2e/others.log 2>&1 &
        beside=$!
        set +m
        trap 'kill -- -"$beside" 2>/dev/null || true' EXIT
        failed=0
        run "not $others" || failed=$?
        wait "$beside" || failed=$?
        trap - EXIT
        step "What the end-to-end tests of networks and hostile guests said"
        cat build/e2e/others.log
        [ "$failed" = 0 ] || exit "$failed"
        step "SKIPPED: 1 end-to-end test with fifty guests at once, too much for the lab; scripts/e2e.sh --run-ignored only fifty runs it"
    fi
    step "SKIPPED: the tests of containerd's runtime with Debian 12's and sid's, faults, and fifty containers one after another and at once, for their time; scripts/e2e-containerd.sh runs all"
    HUSK_TEST_SUITES=trixie scripts/e2e-containerd.sh --skip fifty_containers --skip faults
    step "SKIPPED: 10 tests with Kubernetes' CRI and 6 with Docker, for their time; make test-engines runs them"
    exit
fi
shift

ip link set lo up
with_registry
# Whatever name servers this machine has: these are nobody's, and never asked.
resolv_conf=$(realpath -m /etc/resolv.conf)
if [ ! -e "$resolv_conf" ]; then
    # An empty one means the same as none (resolv.conf(5)).
    mkdir -p "$(dirname "$resolv_conf")"
    touch "$resolv_conf"
fi
printf 'nameserver 198.51.100.1\n' >"$registry_state/resolv.conf"
mount --bind "$registry_state/resolv.conf" "$resolv_conf"
export HUSK_TEST_BIN=$release
export HUSK_TEST_GUEST=$root/build/guest
export HUSK_TEST_INITRAMFS=$root/build/e2e/initramfs.cpio
export HUSK_TEST_HOSTILE_GUEST=$root/build/agent-target/x86_64-unknown-linux-gnu/release/hostile-guest
export HUSK_TEST_ROOT=$registry_state/prepared
# What a user's own settings would add.
unset HUSK_ROOT DOCKER_CONFIG
export HOME=$registry_state/home
mkdir "$HOME"

step "Preparing the images"
# Images whose layers are all busybox's need no unpacking of their own.
for name in busybox debian-python redis entry-missing entry-not-executable user-missing no-command; do
    "$release/husk" --root "$HUSK_TEST_ROOT" pull --quiet "$HUSK_TEST_REGISTRY/$name"
done
for name in busybox debian-python redis; do
    "$release/husk" --root "$HUSK_TEST_ROOT" run --rm --entrypoint true "$HUSK_TEST_REGISTRY/$name"
done

step "Running the tests"
cargo-nextest nextest run --profile e2e --cargo-metadata build/e2e/cargo.json \
    --binaries-metadata build/e2e/binaries.json --no-tests pass "$@"

step "Looking for leftovers"
left=$(
    pgrep -a husk || true
    find "$HUSK_TEST_ROOT/run" -mindepth 1 ! -name lock ! -name names ! -name 'events.log*' ! -path '*/run/networks*'
    find "$HUSK_TEST_ROOT/data/containers" -mindepth 1
    # What a network was given last is remembered; nobody may still have anything, and no bridge be left.
    grep -rl '"sandbox"' "$HUSK_TEST_ROOT/run/networks" || true
    ip -o link | grep -w 'hk.*' || true
    find "$HUSK_TEST_ROOT/data/disks" -name '*.tmp'
    find /tmp -maxdepth 1 -newer "$registry_state/env" \( -name 'husk-*' -o -name 'vm-*' \)
)
[ -z "$left" ] || { printf 'left behind:\n%s\n' "$left" >&2; exit 1; }
