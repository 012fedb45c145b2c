# What the other scripts share: steps with visible progress, and whether KVM can be used. Sourced, not run.
# shellcheck shell=bash
set -Eeuo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck disable=SC2034 # used by those who source this
release=$root/target/release
# shellcheck disable=SC2034
cache=${HUSK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/husk}
cd "$root"

current_step=
current_log=

# step TEXT: says what comes next.
step() {
    current_step=$1
    current_log=
    printf '==> [%4ss] %s\n' "$SECONDS" "$1" >&2
}

# quietly CMD...: runs a command whose output matters only when it fails.
quietly() {
    current_log=$(mktemp)
    if "$@" >"$current_log" 2>&1; then
        rm -f "$current_log"
        current_log=
        return
    fi
    return 1
}

on_error() {
    local code=$?
    echo >&2
    echo "FAILED: $current_step (exit code $code)" >&2
    if [ -n "$current_log" ] && [ -s "$current_log" ]; then
        echo "Last lines of $current_log:" >&2
        tail -n 30 "$current_log" >&2
    fi
    # 124 and above have meanings of their own, as that of the lab's failure.
    exit 1
}
trap on_error ERR

# Succeeds when this machine's KVM runs ordinary guests.
kvm_usable() {
    "$release/husk-vmm" probe 2>/dev/null | grep -q '"usable": *true'
}

# in_machine [LAB-OPTIONS...] -- CMD...: runs a command here if KVM can be used, else in the lab.
in_machine() {
    local options=()
    while [ "$1" != -- ]; do
        options+=("$1")
        shift
    done
    shift
    if kvm_usable; then
        "$@"
    else
        echo "This machine's KVM can't run guests (see \`husk check\`): using the lab, an emulated machine." >&2
        "$release/husk-lab" run "${options[@]}" -- "$@"
    fi
}

# with_registry: starts the registries with the test images, to be stopped when the script ends.
with_registry() {
    registry_state=$(mktemp -d)
    trap 'tests/images/registry.sh stop "$registry_state"; rm -rf "$registry_state"' EXIT
    tests/images/registry.sh start "$root/build/images/registry" "$registry_state"
    # shellcheck source=/dev/null
    source "$registry_state/env"
}
