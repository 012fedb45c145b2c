#!/usr/bin/env bash
# Removes what was built in this tree.
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

step "Removing target/ and build/"
rm -rf target build
echo "Kernels and images stay in $cache; remove it yourself when you are done with husk." >&2
