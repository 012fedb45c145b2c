#!/usr/bin/env bash
# Runs each fuzz target of the VMM for a bounded time: `scripts/fuzz.sh [SECONDS_PER_TARGET [TARGET...]]`. What it finds stays
# in vmm/fuzz/corpus; the seeds are made anew each time. Fails at a crash, a leak, or a run that takes too long or too much.
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

seconds=${1:-10}
targets=("${@:2}")
# cargo-fuzz needs unstable flags of the compiler (coverage and sanitizer). This lets the stable one take them; it is set for
# nothing else.
export RUSTC_BOOTSTRAP=1
dirs=(--fuzz-dir fuzz --target-dir "$root/target/fuzz")
cd vmm

step "Building the fuzz targets"
quietly cargo fuzz build "${dirs[@]}"
if [ ${#targets[@]} = 0 ]; then
    mapfile -t targets < <(cargo fuzz list --fuzz-dir fuzz)
fi

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
failed=()
for target in "${targets[@]}"; do
    step "Fuzzing $target for $seconds s"
    corpus=fuzz/corpus/$target
    mkdir -p "$corpus"
    if TMPDIR=$tmp HUSK_FUZZ_SEEDS=$corpus cargo fuzz run "${dirs[@]}" "$target" "$corpus" -- -max_total_time="$seconds" \
        -max_len=4096 -timeout=5 -rss_limit_mb=2048 -print_final_stats=1 >"$tmp/log" 2>&1; then
        awk -v target="$target" '/number_of_executed_units/ { runs = $2 } /average_exec_per_sec/ { speed = $2 }
            / cov: / { for (i = 1; i < NF; i++) if ($i == "cov:") cov = $(i + 1) }
            END { printf "%-10s %9d executions, %6d per second, %5d places covered\n", target, runs, speed, cov }' "$tmp/log"
    else
        tail -n 60 "$tmp/log" >&2
        failed+=("$target")
    fi
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "FAILED: ${failed[*]}. The input that did it is named above: run it again, in vmm/, by" >&2
    echo "  RUSTC_BOOTSTRAP=1 cargo fuzz run ${dirs[*]} TARGET fuzz/artifacts/TARGET/FILE" >&2
    exit 1
fi
