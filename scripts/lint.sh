#!/usr/bin/env bash
# Checks formatting and lints of all code.
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

step "Checking formatting"
cargo fmt --all --check

step "Checking lints"
cargo clippy --quiet --locked --workspace --all-targets -- -D warnings
