# What the other scripts share: steps with visible progress, and whether KVM can be used. Sourced, not run.
# shellcheck shell=bash
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck disable=SC2034 # used by those who source this
release=$root/target/release
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
    exit "$code"
}
trap on_error ERR

# Succeeds when this machine's KVM runs ordinary guests.
kvm_usable() {
    "$release/husk-vmm" probe 2>/dev/null | grep -q '"usable": *true'
}
