#!/usr/bin/env bash
# Measures `husk run` of a prepared image, split along its timeline: in virtual milliseconds (a million instructions
# each) in the lab's deterministic mode, or in wall milliseconds where KVM can be used.
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

if [ "${1:-}" != --inside ]; then
    step "Measuring a start"
    in_machine --deterministic --timeout 900 -- "$root/scripts/bench.sh" --inside
    exit
fi

with_registry
export HUSK_ROOT=$registry_state/husk
image=$HUSK_TEST_REGISTRY/busybox
# In the lab /tmp is in memory and the checkout is not: an installed copy there is measured, not the lab's file sharing.
DESTDIR='' PREFIX=$registry_state/installed scripts/install.sh
husk=$registry_state/installed/bin/husk
# The first runs read everything from disk once; they are not measured.
for network in none none default default; do
    "$husk" run --rm --network "$network" "$image" true
done
for network in none default; do
    for round in 1 2; do
        echo "run $round: husk run --rm --network $network busybox true"
        "$husk" run --rm --timings --network "$network" "$image" true 2>&1
    done
done
size() { stat -Lc %s "$1" | numfmt --to=iec-i --suffix=B; }
echo "vmlinux: $(size build/guest/vmlinux), initramfs: $(size build/guest/initramfs.cpio)"
