#!/usr/bin/env bash
# Runs every check and test: lints, unit tests and fuzz targets here, end-to-end tests on real VMs (in the lab where KVM can't be used),
# and the gate against getting slower.
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

scripts/lint.sh

step "Running unit and component tests"
cargo nextest run --locked --workspace --exclude husk-tests

scripts/fuzz.sh

scripts/e2e.sh

step "Comparing starts with the committed figures"
"$release/husk-bench" gate
