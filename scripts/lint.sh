#!/usr/bin/env bash
# Checks formatting and lints of all code.
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

step "Checking formatting"
cargo fmt --all --check
cargo fmt --manifest-path tests/hostile-guest/Cargo.toml --check
cargo fmt --manifest-path vmm/fuzz/Cargo.toml --check

step "Checking the scripts"
# SC1007 takes `local file= size=0` for a mistake.
shellcheck --external-sources --exclude=SC1007 scripts/*.sh benches/*.sh tests/images/*.sh guest-image/*.sh .ci/run

step "Checking lints"
cargo clippy --quiet --locked --workspace --all-targets -- -D warnings
cargo clippy --quiet --locked --manifest-path tests/hostile-guest/Cargo.toml --target-dir build/agent-target -- -D warnings
